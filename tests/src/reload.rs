//! Live changes: whole or not at all, and nothing that did not change is touched.

use sluice_testkit::{Gateway, Load, Origin, Reply, Signal, Wire, eventually, http};

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
async fn reloads_under_load_fail_no_request_and_keep_the_pool() {
    let origin = Origin::start(Reply::ok("x")).await;
    let other = Origin::start(Reply::ok("x")).await;
    let extra = |turn: usize| {
        format!(
            "[upstreams.other]\nendpoints = [{{ address = \"{}\", weight = {} }}]\n[[routes]]\nname = \"turn-{turn}\"\n\
             match = {{ path = \"/turn/{turn}\" }}\nforward = {{ upstream = \"other\" }}\n",
            other.address(),
            turn % 7 + 1
        )
    };
    let base = document(&[origin.address()], "");
    let gateway = Gateway::start(&(base.clone() + &extra(0))).await;
    let load = Load { connections: 4, requests: usize::MAX, body: Some("x".into()), ..Load::default() };
    let load = load.start(gateway.address("web"));
    for turn in 1..=100 {
        let before = load.answered();
        let reloaded = gateway.reload(&(base.clone() + &extra(turn))).await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.body);
        eventually("requests after the reload", async || (load.answered() > before).then_some(())).await;
    }
    let report = load.finish().await;
    report.assert_clean();
    assert_eq!(report.opened, 4, "client connections were kept");
    assert!(
        origin.connections() <= 4,
        "{} connections to an upstream that did not change",
        origin.connections()
    );
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
