//! `sluice connect`: our connector's process with our gateway's, in both versions of the tunnels.

pub(crate) mod child;
mod flags;
mod http2;
mod reload;
mod with_peers;

use sha2::{Digest, Sha256};
use sluice_testkit::tls::Authority;
use sluice_testkit::{
    Gateway, Load, ManualOrigin, Origin, Reply, Scratch, Script, Signal, Wire, eventually, free_port, http,
    sluice,
};

use child::Connector;

pub(crate) const VERSIONS: [&str; 2] = ["3.0", "1.0"];

/// A gateway whose requests name their tunnel; connectors register at this port.
pub(crate) fn document(port: u16, tls: &str) -> String {
    format!(
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [listeners.tunnels]\naddress = \"127.0.0.1:{port}\"\nprotocol = \"tunnel\"\n{tls}\n\n\
         [[routes]]\nname = \"tunnels\"\ntunnel = {{}}\n"
    )
}

#[tokio::test]
async fn bodies_pass_both_ways_unchanged() {
    let echo = Script::each(|request| Reply::ok(request.body.clone()).field("X-Target", &request.target));
    let origin = Origin::start(echo).await;
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for version in VERSIONS {
        let gateway = Gateway::start(&document(0, "")).await;
        let connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let answer = http::get(gateway.address("web"), "/shop/a?b=c").await;
        assert_eq!((answer.status, answer.field("x-target")), (200, Some("/shop/a?b=c")), "{version}");
        for _ in 0..3 {
            let answer = http::post(gateway.address("web"), "/shop/up", &body).await;
            assert_eq!(Sha256::digest(&answer.body), Sha256::digest(&body), "{version}");
        }
        let health = connector.health().await;
        assert_eq!(health["services"]["shop"]["requests"]["total"], 4, "{health:#}");
        assert_eq!(http::get(gateway.address("web"), "/other").await.status, 404);
    }
}

#[tokio::test]
async fn events_arrive_one_by_one_and_an_abort_reaches_the_target() {
    for version in VERSIONS {
        let origin = ManualOrigin::start().await;
        let gateway = Gateway::start(&document(0, "")).await;
        let connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop/events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut target = origin.accept().await;
        target.request().await;
        target.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
        for tick in 0..5 {
            target.send(format!("data: {tick}\n\n")).await;
            client.expect(format!("9\r\ndata: {tick}\n\n\r\n")).await;
        }
        assert_eq!(connector.health().await["services"]["shop"]["requests"]["running"], 1);
        client.reset();
        target.expect_closed().await;
        eventually("no running request", async || {
            (connector.health().await["services"]["shop"]["requests"]["running"] == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_target_that_is_gone_is_502_and_one_that_dies_an_abort() {
    for version in VERSIONS {
        let mut origin = Origin::start(Reply::ok(vec![b'x'; 10_000]).reset_after(5_000)).await;
        let gateway = Gateway::start(&document(0, "")).await;
        let connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.try_answer_to("GET").await;
        assert!(
            answer.is_err() || answer.is_ok_and(|answer| answer.status == 502),
            "{version}: a whole answer"
        );
        origin.stop().await;
        let answer = http::get(gateway.address("web"), "/shop/").await;
        assert_eq!(answer.status, 502, "{version}: {}", answer.text());
        origin.set_script(Reply::ok("back"));
        origin.start_again().await;
        assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "back");
        assert!(connector.process.stderr().contains("target failed"), "{}", connector.process.stderr());
    }
}

#[tokio::test]
async fn a_connector_comes_back_when_it_or_its_gateway_was_killed() {
    let origin = Origin::start(Reply::ok("here")).await;
    for version in VERSIONS {
        let port = free_port();
        let mut gateway = Gateway::start(&document(port, "")).await;
        let mut connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        connector.process.signal(Signal::Kill).await;
        connector.process.wait_exit().await;
        let connector = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "here");

        gateway.signal(Signal::Kill).await;
        gateway.wait_exit().await;
        connector.wait("down").await;
        assert_eq!(http::get(connector.health, "/health").await.status, 503);
        let gateway = Gateway::start(&document(port, "")).await;
        connector.wait("up").await;
        assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "here");
        let said = connector.process.stderr();
        assert_eq!(said.matches("registered").count(), 2, "{said}");
    }
}

#[tokio::test]
async fn a_connector_that_is_told_to_end_under_load_loses_no_request() {
    let origin = Origin::start(Reply::ok("here")).await;
    for version in VERSIONS {
        let gateway = Gateway::start(&document(0, "")).await;
        let stays = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let mut goes = Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
        let load = Load {
            requests: usize::MAX,
            target: "/shop/".into(),
            body: Some(b"here".to_vec()),
            ..Load::default()
        };
        let load = load.start(gateway.address("web"));
        eventually("load", async || (load.answered() > 100).then_some(())).await;
        goes.process.signal(Signal::Term).await;
        let status = goes.process.wait_exit().await;
        assert!(status.success(), "{version}: {status}\n{}", goes.process.stderr());
        let before = load.answered();
        eventually("more load", async || (load.answered() > before + 100).then_some(())).await;
        load.finish().await.assert_clean();
        assert_eq!(stays.health().await["status"], "up");
    }
}

#[tokio::test]
async fn running_requests_are_waited_for_until_a_second_signal() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    for version in VERSIONS {
        let gateway = Gateway::start(&document(0, "")).await;
        for is_cut in [false, true] {
            let mut connector =
                Connector::publish(gateway.address("tunnels"), origin.address(), version).await;
            let mut client = Wire::connect(gateway.address("web")).await;
            client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
            origin.wait_held(1).await;
            connector.process.signal(Signal::Term).await;
            connector.wait("draining").await;
            if is_cut {
                connector.process.signal(Signal::Term).await;
                assert_eq!(connector.process.wait_exit().await.code(), Some(1));
                assert_eq!(client.answer().await.status, 502, "{version}");
                origin.release();
            } else {
                origin.release();
                assert_eq!(client.answer().await.text(), "late", "{version}");
                assert!(connector.process.wait_exit().await.success(), "{}", connector.process.stderr());
            }
            origin.wait_held(0).await;
        }
    }
}

#[tokio::test]
async fn tunnels_over_tls_prove_both_ends() {
    let (scratch, authority) = (Scratch::new(), Authority::new("Tests"));
    let ca = authority.write(&scratch, "ca.pem").display().to_string();
    let (chain, key) = authority.leaf(&["127.0.0.1"]).write(&scratch, "gateway");
    let (own, own_key) = authority.leaf(&["connector"]).write(&scratch, "connector");
    let [own, own_key] = [own, own_key].map(|path| path.display().to_string());
    let stranger = Authority::new("Strangers").write(&scratch, "strange.pem").display().to_string();
    let tls = format!("tls = {{ certificates = [\"own\"], client_auth = {{ ca = \"{ca}\" }} }}");
    let certificate =
        format!("\n[certificates.own]\nchain = \"{}\"\nkey = \"{}\"\n", chain.display(), key.display());
    let gateway = Gateway::start(&(document(0, &tls) + &certificate)).await;
    let origin = Origin::start(Reply::ok("secure")).await;
    let (router, target) =
        (format!("wss://{}", gateway.address("tunnels")), format!("http://{}", origin.address()));
    let to = ["--router", &router, "--route", "shop", "--target", &target];

    let good = [&to[..], &["--ca", &ca, "--cert", &own, "--key", &own_key]].concat();
    let connector = Connector::launch(&good).await;
    connector.wait("up").await;
    assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "secure");

    for arguments in [&["--ca", &stranger, "--cert", &own, "--key", &own_key][..], &["--ca", &ca]] {
        let connector = Connector::launch(&[&to[..], arguments].concat()).await;
        eventually("a failure", async || {
            connector.health().await["services"]["shop"]["routers"][0]["last_error"].is_string().then_some(())
        })
        .await;
        assert_eq!(connector.health().await["status"], "down", "{arguments:?}");
    }
}

#[tokio::test]
async fn a_file_publishes_many_services() {
    let (one, two) = (Origin::start(Reply::ok("one")).await, Origin::start(Reply::ok("two")).await);
    let gateway = Gateway::start(&document(0, "")).await;
    let scratch = Scratch::new();
    let text = format!(
        "routers = [\"ws://{}\"]\nhealth = \"127.0.0.1:0\"\n\n[services.one]\ntarget = \"http://{}\"\n\n\
         [services.other]\nroute = \"two\"\nversions = [\"1.0\"]\ntarget = \"http://{}\"\n",
        gateway.address("tunnels"),
        one.address(),
        two.address()
    );
    let path = scratch.write("connector.toml", text).display().to_string();
    let connector = Connector::of(Gateway::launch(&sluice(["connect", &path]), Scratch::new()).await);
    connector.wait("up").await;
    for route in ["one", "two"] {
        assert_eq!(http::get(gateway.address("web"), &format!("/{route}/")).await.text(), route);
    }
    assert_eq!(http::get(connector.health, "/").await.status, 404);
    assert_eq!(http::post(connector.health, "/health", "").await.status, 405);
}

#[tokio::test]
async fn every_problem_of_a_connector_is_shown_with_its_place() {
    let scratch = Scratch::new();
    let text = "routers = [\"gateway\"]\nheaders = { host = \"a\" }\n\n[services.a]\ntarget = \"h2c://localhost\"\n\
                wndow = 2\n\n[services.b]\nroute = \"b c\"\ntarget = \"http://localhost/x\"\n\n\
                [services.c]\ntarget = \"http://localhost\"\nprotocol = \"auto\"\n";
    let path = scratch.write("bad.toml", text).display().to_string();
    let ended = sluice(["connect", &path]).finish().await;
    assert_eq!(ended.code(), 78, "{}", ended.stderr);
    assert!(ended.stderr.contains("bad.toml:6:1") && ended.stderr.contains("window"), "{}", ended.stderr);

    let path = scratch.write("bad.toml", text.replace("wndow", "window")).display().to_string();
    let ended = sluice(["connect", &path]).finish().await;
    for place in [
        "bad.toml:1:12",
        "bad.toml:2:20",
        "bad.toml:5:10",
        "bad.toml:9:9",
        "bad.toml:10:10",
        "bad.toml:14:12",
    ] {
        assert!(ended.stderr.contains(place), "{place}\n{}", ended.stderr);
    }
    let ended = sluice(["connect", "--route", "a"]).finish().await;
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
}

#[tokio::test]
async fn what_the_command_line_says_can_be_printed_as_a_file() {
    let arguments = [
        "connect",
        "--print",
        "--router",
        "wss://gateway.example",
        "--route",
        "a/b",
        "--target",
        "http://localhost:1",
    ];
    let printed = sluice(arguments).finish().await;
    assert_eq!(printed.code(), 0, "{}", printed.stderr);
    let scratch = Scratch::new();
    let path = scratch.write("connector.toml", &printed.stdout).display().to_string();
    let again = sluice(["connect", "--print", &path]).finish().await;
    assert_eq!((again.code(), &again.stdout), (0, &printed.stdout), "{}", again.stderr);
}
