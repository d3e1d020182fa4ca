//! TLS at the socket: towards clients and towards endpoints.

use sluice_testkit::tls::{Authority, Client, Leaf, Server, server_config, server_config_for_clients};
use sluice_testkit::{Gateway, Origin, Reply, Scratch, Script, Wire, eventually, http};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

/// A folder with a certificate of two names and one of another, and their authority.
struct Shop {
    scratch: Scratch,
    authority: Authority,
}

impl Shop {
    fn new() -> Shop {
        let (scratch, authority) = (Scratch::new(), Authority::new("Tests"));
        authority.leaf(&["shop.example", "*.shop.example", "127.0.0.1"]).write(&scratch, "shop");
        authority.leaf(&["other.example"]).write(&scratch, "other");
        authority.write(&scratch, "ca");
        Shop { scratch, authority }
    }

    /// A listener `web` over TLS, with more lines for its tls table, before an endpoint.
    fn document(&self, tls: &str, origin: &Origin) -> String {
        let folder = self.scratch.path().display();
        format!(
            "[process]\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
             [listeners.web]\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificates = [\"shop\", \"other\"]{tls} }}\n\n\
             [certificates.shop]\nchain = \"{folder}/shop.crt\"\nkey = \"{folder}/shop.key\"\n\n\
             [certificates.other]\nchain = \"{folder}/other.crt\"\nkey = \"{folder}/other.key\"\n\n\
             [[routes]]\nname = \"all\"\nforward = {{ upstream = \"app\" }}\n\
             filters = [{{ headers = {{ request = {{ set = {{ x-tls = \"{{tls.version}}\", x-sni = \"{{tls.sni}}\", \
             x-subject = \"{{tls.client.subject}}\" }} }} }} }}]\n\n\
             [upstreams.app]\nendpoints = [\"{}\"]\n",
            origin.address()
        )
    }

    async fn gateway(&self, tls: &str, origin: &Origin) -> Gateway {
        Gateway::start(&self.document(tls, origin)).await
    }

    fn client(&self) -> Client {
        Client::trusting(&self.authority)
    }
}

async fn refused(gateway: &Gateway, reason: &str) {
    eventually(reason, async || {
        let count = gateway.metric("sluice_listener_refused_total", &["web", reason]).await;
        (count > 0.0).then_some(())
    })
    .await;
}

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_the_endpoint_knows_it_was_https() {
    let origin = Origin::start(Reply::ok("hello")).await;
    let shop = Shop::new();
    let gateway = shop.gateway("", &origin).await;
    for name in ["shop.example", "a.shop.example", "other.example"] {
        let mut wire = shop.client().connect(gateway.address("web"), name).await;
        wire.send(get(name)).await;
        assert_eq!(wire.answer().await.text(), "hello");
        let seen = origin.last();
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        assert_eq!((seen.field("x-tls"), seen.field("x-sni")), (Some("TLSv1.3"), Some(name)));
    }
    // A name nobody has a certificate for gets the first one, which the client does not accept.
    assert!(shop.client().try_connect(gateway.address("web"), "nobody.example").await.is_err());
    refused(&gateway, "tls-rejected-by-client").await;
}

#[tokio::test]
async fn an_older_version_is_spoken_unless_the_policy_forbids_it() {
    let origin = Origin::start(Reply::ok("")).await;
    let shop = Shop::new();
    let old = Client::speaking(&[&rustls::version::TLS12], &shop.authority);
    let gateway = shop.gateway("", &origin).await;
    let mut wire = old.connect(gateway.address("web"), "shop.example").await;
    wire.send(get("shop.example")).await;
    assert_eq!(wire.answer().await.status, 200);
    assert_eq!(origin.last().field("x-tls"), Some("TLSv1.2"));
    let strict = shop.gateway(", min_version = \"1.3\"", &origin).await;
    assert!(old.try_connect(strict.address("web"), "shop.example").await.is_err());
    refused(&strict, "tls-no-common-parameters").await;
}

#[tokio::test]
async fn alpn_decides_between_http_2_and_http_1() {
    let origin = Origin::start(Reply::ok("")).await;
    let shop = Shop::new();
    let gateway = shop.gateway("", &origin).await;
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"][..], "http/1.1")] {
        let client = shop.client().offering(offered);
        let wire = client.connect(gateway.address("web"), "shop.example").await;
        assert_eq!(wire.session().alpn_protocol(), Some(agreed.as_bytes()));
    }
    let client = shop.client().offering(&["spdy/3"]);
    assert!(client.try_connect(gateway.address("web"), "shop.example").await.is_err());
    refused(&gateway, "tls-no-common-alpn").await;
}

#[tokio::test]
async fn a_connection_carries_requests_for_the_names_of_its_certificate_only() {
    let origin = Origin::start(Reply::ok("")).await;
    let shop = Shop::new();
    let gateway = shop.gateway("", &origin).await;
    let mut wire = shop.client().connect(gateway.address("web"), "shop.example").await;
    for (host, status) in [("shop.example", 200), ("b.shop.example", 200), ("other.example", 421)] {
        wire.send(get(host)).await;
        assert_eq!(wire.answer().await.status, status, "{host}");
    }
    let lax = shop.gateway(", strict_sni = false", &origin).await;
    let mut wire = shop.client().connect(lax.address("web"), "shop.example").await;
    wire.send(get("other.example")).await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn clients_prove_who_they_are_where_the_listener_asks() {
    let origin = Origin::start(Reply::ok("")).await;
    let shop = Shop::new();
    let ada = shop.authority.leaf(&["ada.example"]);
    let stranger = Authority::new("Strangers").leaf(&["eve.example"]);
    let ca = shop.scratch.file("ca.crt");
    let auth = |mode: &str| format!(", client_auth = {{ ca = \"{}\", mode = \"{mode}\" }}", ca.display());
    for (mode, anonymous) in [("required", false), ("optional", true)] {
        let gateway = shop.gateway(&auth(mode), &origin).await;
        let ask = async |client: Client| {
            // Under TLS 1.3 a client learns only with the first answer that it was refused.
            let mut wire = client.try_connect(gateway.address("web"), "shop.example").await.ok()?;
            wire.try_send(get("shop.example")).await.ok()?;
            wire.try_answer_to("GET").await.ok()
        };
        assert_eq!(ask(shop.client().presenting(&ada)).await.map(|answer| answer.status), Some(200));
        let subject = origin.last().field("x-subject").map(str::to_owned);
        assert!(subject.is_some_and(|subject| subject.contains("CN=")), "{mode}");
        assert_eq!(ask(shop.client()).await.is_some(), anonymous, "{mode}");
        assert!(ask(shop.client().presenting(&stranger)).await.is_none(), "{mode}");
        refused(&gateway, "tls-client-certificate").await;
    }
}

#[tokio::test]
async fn what_is_no_tls_is_told_so_and_a_silent_client_does_not_stay() {
    let origin = Origin::start(Reply::ok("")).await;
    let shop = Shop::new();
    let gateway = shop.gateway(", handshake_timeout = \"200ms\"", &origin).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.text().contains("https://")), (400, true));
    refused(&gateway, "tls-not-tls").await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.expect_closed().await;
    refused(&gateway, "tls-timeout").await;
    // The start of a hello, and then nothing; and a record of nonsense.
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send([22, 3, 1, 2, 0, 1]).await.expect_closed().await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send([22, 3, 1, 0, 4, 9, 9, 9, 9]).await;
    wire.read_to_end().await;
    refused(&gateway, "tls-malformed").await;
}

#[tokio::test]
async fn a_session_is_resumed_on_any_worker_and_over_a_reload() {
    let origin = Origin::start(Reply::ok("")).await;
    let shop = Shop::new();
    let gateway = shop.gateway("", &origin).await;
    let client = shop.client();
    let resumed = async || {
        let mut wire = client.connect(gateway.address("web"), "shop.example").await;
        wire.send(get("shop.example")).await;
        assert_eq!(wire.answer().await.status, 200);
        wire.session().handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    };
    assert!(!resumed().await, "the first handshake is a full one");
    for round in 0..10 {
        assert!(resumed().await, "connection {round} found no session");
    }
    let document = shop.document("", &origin).replace("name = \"all\"", "name = \"renamed\"");
    assert_eq!(gateway.reload(&document).await.status, 200);
    assert!(resumed().await, "a reload forgot the sessions");
}

/// A gateway on a plain listener before an endpoint over TLS.
async fn upstream(shop: &Shop, address: std::net::SocketAddr, tls: &str) -> Gateway {
    let folder = shop.scratch.path().display();
    Gateway::start(&format!(
        "[process]\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n[listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [certificates.client]\nchain = \"{folder}/shop.crt\"\nkey = \"{folder}/shop.key\"\n\n\
         [[routes]]\nname = \"all\"\nforward = {{ upstream = \"app\" }}\n\n\
         [upstreams.app]\nendpoints = [\"{address}\"]\ntls = {{ {tls} }}\n"
    ))
    .await
}

#[tokio::test]
async fn endpoints_are_verified_by_name_and_authority() {
    let origin = Origin::start(Script::each(|_| Reply::ok("inside"))).await;
    let shop = Shop::new();
    let ca = format!("ca = \"{}\"", shop.scratch.file("ca.crt").display());
    let own = format!("{ca}, sni = \"127.0.0.1\"");
    let serve = async |leaf: &Leaf| Server::before(origin.address(), server_config(leaf)).await;
    let good = serve(&shop.authority.leaf(&["127.0.0.1", "in.example"])).await;
    let ask = async |address, tls: &str| {
        let gateway = upstream(&shop, address, tls).await;
        let answer = http::get(gateway.address("web"), "/").await;
        if answer.status == 200 { "inside".to_owned() } else { answer.code() }
    };
    assert_eq!(ask(good.address(), &own).await, "inside");
    assert_eq!(ask(good.address(), &format!("{ca}, sni = \"in.example\"")).await, "inside");
    assert_eq!(ask(good.address(), &format!("{ca}, sni = \"out.example\"")).await, "upstream-untrusted");
    assert_eq!(ask(good.address(), &ca).await, "upstream-untrusted", "the endpoint's host is the name");
    assert_eq!(ask(good.address(), "").await, "upstream-untrusted", "the system knows no such authority");
    assert_eq!(ask(good.address(), "verify = false").await, "inside");
    let expired = serve(&shop.authority.expired(&["127.0.0.1"])).await;
    assert_eq!(ask(expired.address(), &own).await, "upstream-untrusted");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = plain.accept().await.unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        // Until the gateway has gone: closing with unread bytes would be a reset.
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    });
    assert_eq!(ask(address, &own).await, "upstream-tls-failed", "plain HTTP where TLS is expected");
}

#[tokio::test]
async fn an_endpoint_may_ask_who_we_are() {
    let origin = Origin::start(Reply::ok("inside")).await;
    let shop = Shop::new();
    let leaf = shop.authority.leaf(&["127.0.0.1"]);
    let strict = Server::before(origin.address(), server_config_for_clients(&leaf, &shop.authority)).await;
    let own = format!("ca = \"{}\", sni = \"127.0.0.1\"", shop.scratch.file("ca.crt").display());
    let gateway = upstream(&shop, strict.address(), &format!("{own}, certificate = \"client\"")).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "inside");
    let anonymous = upstream(&shop, strict.address(), &own).await;
    let answer = http::get(anonymous.address("web"), "/").await;
    assert!(answer.status >= 500, "{}", answer.status);
}

mod with_peers {
    use super::*;
    use sluice_testkit::Program;

    #[tokio::test]
    async fn curl_and_openssl_accept_the_certificate_and_speak_both_protocols() {
        let origin = Origin::start(Reply::ok("hello")).await;
        let shop = Shop::new();
        let gateway = shop.gateway("", &origin).await;
        let port = gateway.address("web").port();
        let (url, ca) = (format!("https://127.0.0.1:{port}/"), shop.scratch.file("ca.crt"));
        let ca = ca.display().to_string();
        for (option, version) in [("--http2", "2"), ("--http1.1", "1.1"), ("--tls-max=1.2", "2")] {
            let (option, value) = option.split_once('=').unwrap_or((option, ""));
            let mut words = vec!["-sS", "--cacert", &ca, "-w", " %{http_version}", option];
            words.extend((!value.is_empty()).then_some(value));
            words.push(&url);
            let ended = Program::at("curl").arguments(words).finish().await;
            assert_eq!(ended.stdout, format!("hello {version}"), "{option}: {}", ended.stderr);
        }
        let connect = format!("127.0.0.1:{port}");
        let words = ["s_client", "-connect", &connect, "-CAfile", &ca, "-servername", "a.shop.example"];
        let words = words.into_iter().chain(["-verify_hostname", "a.shop.example", "-verify_return_error"]);
        let ended = Program::at("openssl").arguments(words).finish().await;
        assert!(ended.stdout.contains("Verify return code: 0 (ok)"), "{}{}", ended.stdout, ended.stderr);
    }

    #[tokio::test]
    async fn pythons_ssl_verifies_and_reads_to_the_orderly_end() {
        let origin = Origin::start(Reply::until_close("x".repeat(100_000))).await;
        let shop = Shop::new();
        let gateway = shop.gateway("", &origin).await;
        let script = "import socket, ssl, sys\n\
             context = ssl.create_default_context(cafile=sys.argv[2])\n\
             plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
             secure = context.wrap_socket(plain, server_hostname='shop.example', suppress_ragged_eofs=False)\n\
             secure.sendall(b'GET / HTTP/1.0\\r\\nHost: shop.example\\r\\n\\r\\n')\n\
             read = b''\n\
             while True:\n    piece = secure.recv(65536)\n    if not piece: break\n    read += piece\n\
             print(len(read.split(b'\\r\\n\\r\\n', 1)[1]), secure.version())\n";
        let port = gateway.address("web").port().to_string();
        let ca = shop.scratch.file("ca.crt").display().to_string();
        let ended = Program::at("/usr/bin/python3").arguments(["-c", script, &port, &ca]).finish().await;
        assert_eq!(ended.stdout.trim(), "100000 TLSv1.3", "{}", ended.stderr);
    }
}
