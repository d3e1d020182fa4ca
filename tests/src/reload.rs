//! Live changes: whole or not at all, and nothing that did not change is touched.

use std::net::SocketAddr;

use sluice_testkit::{
    Gateway, Load, ManualOrigin, Origin, Reply, Scratch, Signal, Wire, eventually, free_port, http, sluice,
};
use tokio::net::TcpStream;

use crate::forward::document;

#[tokio::test]
async fn a_change_is_live_through_the_admin_endpoint() {
    let (old, new) = (Origin::start(Reply::ok("old")).await, Origin::start(Reply::ok("new")).await);
    let gateway = Gateway::start(&document(&[old.address()], "")).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "old");
    let reloaded = gateway.reload(&document(&[new.address()], "")).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "new");
}

#[tokio::test]
async fn r12_a_changed_file_and_a_hup_are_taken_on() {
    let origins = [
        Origin::start(Reply::ok("0")).await,
        Origin::start(Reply::ok("1")).await,
        Origin::start(Reply::ok("2")).await,
    ];
    let gateway = Gateway::start(&document(&[origins[0].address()], "")).await;
    gateway.write(&document(&[origins[1].address()], ""));
    wait_body(&gateway, "1").await;
    gateway.write(&document(&[origins[2].address()], ""));
    gateway.signal(Signal::Hup).await;
    wait_body(&gateway, "2").await;
}

async fn wait_body(gateway: &Gateway, body: &str) {
    let address = gateway.address("web");
    eventually("the new endpoint", async || (http::get(address, "/").await.text() == body).then_some(()))
        .await;
}

#[tokio::test]
async fn a_bad_document_changes_nothing_and_shows_its_problems() {
    let origin = Origin::start(Reply::ok("kept")).await;
    let gateway = Gateway::start(&document(&[origin.address()], "")).await;
    for bad in [
        "[listeners.web",
        "[listeners.web]\naddres = 1\n",
        &document(&[origin.address()], "balance = \"nonsense\""),
    ] {
        let reloaded = gateway.reload(bad).await;
        assert!((400..500).contains(&reloaded.status), "{}: {}", reloaded.status, reloaded.body);
        assert!(!reloaded.body.is_empty());
        assert_eq!(http::get(gateway.address("web"), "/").await.text(), "kept");
    }
    assert_eq!(origin.connections(), 1, "the pool was kept");
}

#[tokio::test]
async fn a_thousand_reloads_under_load_fail_no_request_and_keep_the_pool() {
    let origin = Origin::start(Reply::ok("x")).await;
    let other = Origin::start(Reply::ok("x")).await;
    // Each turn changes a weight, and every second one a route.
    let extra = |turn: usize| {
        format!(
            "[upstreams.other]\nendpoints = [{{ address = \"{}\", weight = {} }}]\n[[routes]]\nname = \"turn-{}\"\n\
             match = {{ path_prefix = \"/turn\" }}\nforward = {{ upstream = \"other\" }}\n",
            other.address(),
            turn % 7 + 1,
            turn / 2,
        )
    };
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&(base.clone() + &extra(0))).await;
    let load = |target: &str, connections| {
        let (body, target) = (Some("x".into()), target.to_owned());
        let load = Load { connections, requests: usize::MAX, body, target, ..Load::default() };
        load.start(gateway.address("web"))
    };
    let (unchanged, changing) = (load("/", 3), load("/turn", 2));
    for turn in 1..=1_000 {
        let before = (unchanged.answered(), changing.answered());
        let reloaded = gateway.reload(&(base.clone() + &extra(turn))).await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.body);
        if turn % 20 == 0 {
            eventually("requests after the reload", async || {
                let both = unchanged.answered() > before.0 && changing.answered() > before.1;
                both.then_some(())
            })
            .await;
        }
    }
    for (load, connections) in [(unchanged, 3), (changing, 2)] {
        let report = load.finish().await;
        report.assert_clean();
        assert_eq!(report.opened, connections, "client connections were kept");
        assert!(report.right >= 50, "{}", report.right);
    }
    assert!(
        origin.connections() <= 3,
        "{} connections to an upstream that did not change",
        origin.connections()
    );
}

#[tokio::test]
async fn a_listener_that_is_gone_stops_and_a_new_one_starts() {
    let origin = Origin::start(Reply::ok("x").held()).await;
    let base = document(&[origin.address()], "");
    // A port of our own: what is told at the start does not tell of later listeners.
    let port = free_port();
    let extra = format!("[listeners.extra]\naddress = \"127.0.0.1:{port}\"\n");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let gateway = Gateway::start(&base).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens yet");
    assert_eq!(gateway.reload(&(base.clone() + &extra)).await.status, 200);
    let mut busy = Wire::connect(address).await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_held(1).await;
    let mut kept = Wire::connect(gateway.address("web")).await;
    assert_eq!(gateway.reload(&base).await.status, 200);
    eventually("the port to be free", async || TcpStream::connect(address).await.err()).await;
    origin.release();
    let answer = busy.answer().await;
    assert_eq!((answer.text().as_str(), answer.field("connection")), ("x", Some("close")));
    busy.expect_closed().await;
    origin.set_script(Reply::ok("y"));
    kept.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(kept.answer().await.text(), "y", "the other listener never noticed");
    assert_eq!(gateway.reload(&(base + &extra)).await.status, 200, "it may come back");
    assert_eq!(http::get(address, "/").await.text(), "y");
}

#[tokio::test]
async fn a_listener_whose_port_is_taken_changes_nothing() {
    let (origin, taken) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("")).await);
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&base).await;
    let more = format!("[listeners.extra]\naddress = \"{}\"\n", taken.address());
    let reloaded = gateway.reload(&(base.replace("\"all\"", "\"other\"") + &more)).await;
    assert_eq!(reloaded.status, 422, "{}", reloaded.body);
    assert!(reloaded.body.contains(&taken.address().to_string()), "{}", reloaded.body);
    let status = http::get(gateway.admin(), "/v1/status").await.json();
    assert_eq!(status["routes"], serde_json::json!(["all"]), "nothing of it was taken");
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "x");
}

#[tokio::test]
async fn what_stands_under_process_needs_a_restart() {
    let origin = Origin::start(Reply::ok("x")).await;
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&base).await;
    for (old, new) in [
        ("workers = 1", "workers = 2"),
        ("workers = 1", "workers = 1\ndrain_timeout = \"1s\""),
        ("admin = { address = \"127.0.0.1:0\" }", ""),
    ] {
        let reloaded = gateway.reload(&base.replace(old, new).replace("\"all\"", "\"other\"")).await;
        assert_eq!(reloaded.status, 422, "{new}: {}", reloaded.body);
        assert!(reloaded.body.contains("process"), "{}", reloaded.body);
    }
    let status = http::get(gateway.admin(), "/v1/status").await.json();
    assert_eq!(status["routes"], serde_json::json!(["all"]));
}

#[tokio::test]
async fn limits_and_times_of_a_listener_change_under_its_connections() {
    let origin = Origin::start(Reply::ok("x")).await;
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&base).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{}", "x".repeat(100));
    wire.send(&request).await;
    assert_eq!(wire.answer().await.status, 200);
    let listener = "[listeners.web]\naddress = \"127.0.0.1:0\"\n";
    let stricter = base.replace(listener, &format!("{listener}limits.body = \"99B\"\n"));
    assert_ne!(stricter, base);
    assert_eq!(gateway.reload(&stricter).await.status, 200);
    wire.send(&request).await;
    assert_eq!(wire.answer().await.status, 413, "the same connection");
}

#[tokio::test]
async fn a_long_stream_runs_on_through_reloads() {
    let origin = ManualOrigin::start().await;
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&base).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut endpoint = origin.accept().await;
    endpoint.request().await;
    endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").await;
    assert_eq!(client.head().await.status, 200);
    let elsewhere = document(&["127.0.0.1:9".parse().unwrap()], "");
    for document in [&elsewhere, &base, &elsewhere] {
        endpoint.send("ab").await;
        client.expect("ab").await;
        assert_eq!(gateway.reload(document).await.status, 200);
    }
    endpoint.send("abcd").await;
    client.expect("abcd").await;
}

#[tokio::test]
async fn the_reload_command_says_how_it_went() {
    let origin = Origin::start(Reply::ok("x")).await;
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&base).await;
    let admin = gateway.admin().to_string();
    let ask = async |arguments: &[&str]| sluice([&["reload"], arguments].concat()).finish().await;
    let ended = ask(&["--admin", &admin]).await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("revision"), "{}", ended.stdout);
    gateway.write("[listeners.web]\naddres = 1\n");
    let ended = ask(&["--admin", &admin]).await;
    assert_eq!(ended.code(), 78, "{}", ended.stdout);
    assert!(ended.stderr.contains("addres"), "{}", ended.stderr);
    // Where the admin endpoints are can be read from the document of the gateway too.
    let scratch = Scratch::new();
    let text = base
        .replace("admin = { address = \"127.0.0.1:0\" }", &format!("admin = {{ address = \"{admin}\" }}"));
    let path = scratch.write("sluice.toml", text).display().to_string();
    gateway.write(&base);
    assert_eq!(ask(&[&path]).await.code(), 0);
    let nobody = format!("127.0.0.1:{}", free_port());
    let ended = ask(&["--admin", &nobody]).await;
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains(&nobody), "{}", ended.stderr);
    let path = scratch.write("without.toml", "").display().to_string();
    let ended = ask(&[&path]).await;
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
}

#[tokio::test]
async fn an_exchange_finishes_on_the_snapshot_it_began_with() {
    let (old, new) = (Origin::start(Reply::ok("old").held()).await, Origin::start(Reply::ok("new")).await);
    let gateway = Gateway::start(&document(&[old.address()], "")).await;
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    old.wait_held(1).await;
    assert_eq!(gateway.reload(&document(&[new.address()], "")).await.status, 200);
    old.release();
    assert_eq!(wire.answer().await.text(), "old");
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "new", "the same client connection sees the new snapshot");
}

#[tokio::test]
async fn a_listener_can_be_renamed_where_it_stands() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    let address = format!("127.0.0.1:{}", free_port());
    let web = "[listeners.web]\naddress = \"127.0.0.1:0\"";
    let before =
        document(&[origin.address()], "").replace(web, &format!("[listeners.old]\naddress = \"{address}\""));
    let gateway = Gateway::start(&before).await;
    let mut client = Wire::connect(gateway.address("old")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_held(1).await;
    let after = before.replace("[listeners.old]", "[listeners.new]\nlimits = { body = \"1B\" }");
    let reloaded = gateway.reload(&after).await;
    assert_eq!(reloaded.status, 200, "{}", reloaded.body);
    origin.set_script(Reply::ok("x"));
    // Connections that were open and new ones have the new listener's rules.
    origin.release();
    assert_eq!(client.answer().await.text(), "late");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
    client.send(post).await;
    assert_eq!(client.answer().await.status, 413);
    let mut client = Wire::connect(address.parse().unwrap()).await;
    client.send(post).await;
    assert_eq!(client.answer().await.status, 413);
}
