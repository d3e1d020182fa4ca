//! Real clients: curl, git and pip, in front of a site under TLS.

use sluice_testkit::tls::Authority;
use sluice_testkit::{Finished, Gateway, Origin, Peer, Reply, Scratch};

use super::{LOOPBACK, document, gateway};
use crate::auth::HASH;

/// Runs a program to its end, with nothing of the machine's own settings but where programs are.
async fn run(program: &str, arguments: &[&str], scratch: &Scratch) -> Finished {
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    let home = format!("HOME={}", scratch.path().display());
    let clean = ["-i", &path, &home, "GIT_CONFIG_NOSYSTEM=1", "timeout", "60", program];
    let words = [&clean[..], arguments].concat();
    let what = words[6..].join(" ");
    let mut command = tokio::process::Command::new("env");
    command.args(words).current_dir(scratch.path()).kill_on_drop(true);
    // Interpreters start slowly on a machine that is busy.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await;
    let ended = ended.unwrap_or_else(|_| panic!("not in time: {what}")).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Finished { status: ended.status, stdout: text(&ended.stdout), stderr: text(&ended.stderr) }
}

#[track_caller]
fn well(ended: &Finished) {
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
}

fn proxy(gateway: &Gateway) -> String {
    format!("http://{}", gateway.address("proxy"))
}

/// A site under TLS with the files of `scratch`, and the file with the authority that vouches for it.
async fn site(scratch: &Scratch) -> (Peer, String) {
    let authority = Authority::new("authority of this test");
    let (chain, key) = authority.leaf(&["localhost"]).write(scratch, "site");
    let trusted = authority.write(scratch, "authority.pem").display().to_string();
    (Peer::python_tls(scratch.path(), &chain, &key).await, trusted)
}

#[tokio::test]
async fn curl_gets_pages_in_both_ways() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("plain page")).await;
    scratch.write("page", "page under TLS");
    let (site, chain) = site(&scratch).await;
    let gateway = gateway(LOOPBACK).await;
    let proxy = proxy(&gateway);
    let plain = format!("http://{}/", origin.address());
    let ended = run("curl", &["-sS", "-x", &proxy, &plain], &scratch).await;
    well(&ended);
    assert_eq!(ended.stdout, "plain page");
    let tunnelled = run("curl", &["-sS", "-p", "-x", &proxy, &plain], &scratch).await;
    assert_eq!(tunnelled.stdout, "plain page", "{}", tunnelled.stderr);
    let secure = format!("https://localhost:{}/page", site.address().port());
    let ended = run("curl", &["-sS", "-x", &proxy, "--cacert", &chain, &secure], &scratch).await;
    well(&ended);
    assert_eq!(ended.stdout, "page under TLS");
}

#[tokio::test]
async fn the_way_to_the_proxy_may_be_under_tls() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("through TLS")).await;
    let authority = Authority::new("authority of this test");
    let (chain, key) = authority.leaf(&["localhost"]).write(&scratch, "proxy");
    let tables =
        format!("[certificates.own]\nchain = \"{}\"\nkey = \"{}\"\n", chain.display(), key.display());
    let document = document(LOOPBACK, &tables)
        .replace("[listeners.proxy]\n", "[listeners.proxy]\ntls = { certificates = [\"own\"] }\n");
    let gateway = Gateway::start(&document).await;
    let proxy = format!("https://localhost:{}", gateway.address("proxy").port());
    let trusted = authority.write(&scratch, "authority").display().to_string();
    let url = format!("http://{}/", origin.address());
    for way in [&[][..], &["-p"]] {
        let words = [&["-sS", "--proxy-cacert", &trusted, "-x", &proxy], way, &[&url]].concat();
        let ended = run("curl", &words, &scratch).await;
        well(&ended);
        assert_eq!(ended.stdout, "through TLS");
    }
}

#[tokio::test]
async fn a_proxy_may_ask_for_credentials() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("for anna")).await;
    let filter =
        format!("filters = [{{ basic_auth = {{ realm = \"inside\", users = {{ anna = \"{HASH}\" }} }} }}]\n");
    let document =
        document(LOOPBACK, "").replace("[routes.forward_proxy]", &format!("{filter}[routes.forward_proxy]"));
    let gateway = Gateway::start(&document).await;
    let (proxy, url) = (proxy(&gateway), format!("http://{}/", origin.address()));
    let said = ["-sS", "-o", "said", "-w", "%{http_code} %{http_connect}", "-x", &proxy];
    for (way, code) in [(&[][..], "407 000"), (&["-p"], "000 407")] {
        let asked = run("curl", &[&said, way, &[&url]].concat(), &scratch).await;
        assert_eq!(asked.stdout, code, "{}", asked.stderr);
        let known = run("curl", &[&said, way, &["-U", "anna:correct horse", &url]].concat(), &scratch).await;
        assert!(known.stdout.starts_with("200"), "{} {}", known.stdout, known.stderr);
        assert_eq!(std::fs::read_to_string(scratch.file("said")).unwrap(), "for anna");
    }
    assert_eq!((origin.count(), origin.last().field("proxy-authorization")), (2, None));
}

#[tokio::test]
async fn curl_is_told_what_is_denied() {
    let scratch = Scratch::new();
    let gateway = gateway("").await;
    let said = ["-sS", "-o", "/dev/null", "-w", "%{http_connect}", "-x"];
    let ended = run("curl", &[&said[..], &[&proxy(&gateway), "https://127.0.0.1/"]].concat(), &scratch).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (56, "403"), "{}", ended.stderr);
}

#[tokio::test]
async fn git_clones_over_https() {
    let scratch = Scratch::new();
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t.test"];
    for arguments in [
        &["init", "-q", "work"][..],
        &[&["-C", "work"][..], &identity, &["commit", "-q", "--allow-empty", "-m", "first"]].concat(),
        &["clone", "-q", "--bare", "work", "site.git"],
        &["-C", "site.git", "update-server-info"],
    ] {
        well(&run("git", arguments, &scratch).await);
    }
    let (site, chain) = site(&scratch).await;
    let gateway = gateway(LOOPBACK).await;
    let (through, trust) = (format!("http.proxy={}", proxy(&gateway)), format!("http.sslCAInfo={chain}"));
    let url = format!("https://localhost:{}/site.git", site.address().port());
    let ended = run("git", &["-c", &through, "-c", &trust, "clone", "-q", &url, "copy"], &scratch).await;
    well(&ended);
    let log = run("git", &["-C", "copy", "log", "--format=%s"], &scratch).await;
    assert_eq!(log.stdout, "first\n");
    assert!(gateway.metric("sluice_http_requests_total", &["route=\"proxy\""]).await > 0.0);
}

/// Makes a wheel that pip takes.
const WHEEL: &str = "
import os, zipfile
os.makedirs('simple/hello')
name = 'hello-1.0-py3-none-any.whl'
with zipfile.ZipFile('simple/hello/' + name, 'w') as wheel:
    info = 'hello-1.0.dist-info/'
    wheel.writestr('hello.py', '')
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: hello\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
open('simple/hello/index.html', 'w').write('<a href=\"%s\">%s</a>' % (name, name))
";

#[tokio::test]
async fn pip_downloads_from_an_index() {
    let scratch = Scratch::new();
    well(&run("python3", &["-c", WHEEL], &scratch).await);
    let (site, chain) = site(&scratch).await;
    let gateway = gateway(LOOPBACK).await;
    let index = format!("https://localhost:{}/simple/", site.address().port());
    let pip =
        ["-m", "pip", "--isolated", "--disable-pip-version-check", "download", "--no-deps", "-d", "got"];
    let from = ["--index-url", &index, "--cert", &chain, "--proxy", &proxy(&gateway), "hello"];
    let ended = run("python3", &[&pip[..], &from].concat(), &scratch).await;
    well(&ended);
    assert!(scratch.file("got").join("hello-1.0-py3-none-any.whl").is_file(), "{}", ended.stdout);
    assert!(gateway.metric("sluice_http_requests_total", &["route=\"proxy\""]).await > 0.0);
}

#[tokio::test]
async fn curl_speaks_socks_5_with_and_without_a_password() {
    let origin = Origin::start(Reply::ok("hello")).await;
    let scratch = Scratch::new();
    let open = "[listeners.socks]\naddress = \"127.0.0.1:0\"\nprotocol = \"socks5\"\n";
    let gateway = Gateway::start(&document(LOOPBACK, open)).await;
    let (port, url) = (gateway.address("socks").port(), format!("http://{}/", origin.address()));
    let through = format!("socks5h://127.0.0.1:{port}");
    let said = run("curl", &["-sS", "-x", &through, &url], &scratch).await;
    assert_eq!(said.stdout, "hello", "{}", said.stderr);
    let denied = run("curl", &["-sS", "-x", &through, "http://10.0.0.1/"], &scratch).await;
    assert_eq!(denied.code(), 97, "{}", denied.stderr);

    let asks = format!(
        "filters = [{{ basic_auth = {{ users = {{ anna = \"{HASH}\" }} }} }}]\n[routes.forward_proxy]\n{LOOPBACK}"
    );
    let asks = format!("match = {{ listeners = [\"socks\"] }}\n{asks}");
    let guarded = document("", open).replace("[routes.forward_proxy]\n", &asks);
    // A second listener, whose route asks for nothing.
    let inner = "[listeners.inner]\naddress = \"127.0.0.1:0\"\nprotocol = \"socks5\"\n\
                 [[routes]]\nname = \"inner\"\nmatch = { listeners = [\"inner\"] }\n[routes.forward_proxy]\n";
    let gateway = Gateway::start(&format!("{guarded}{inner}{LOOPBACK}")).await;
    let through = format!("socks5h://nobody:wrong@127.0.0.1:{}", gateway.address("inner").port());
    let said = run("curl", &["-sS", "-x", &through, &url], &scratch).await;
    assert_eq!(said.stdout, "hello", "its password is not asked for: {}", said.stderr);
    let port = gateway.address("socks").port();
    for (user, code) in [("anna:correct horse@", 0), ("anna:wrong@", 97), ("", 97)] {
        let through = format!("socks5h://{}127.0.0.1:{port}", user.replace(' ', "%20"));
        let ended = run("curl", &["-sS", "-x", &through, &url], &scratch).await;
        assert_eq!(ended.code(), code, "{user}: {}{}", ended.stdout, ended.stderr);
    }
}
