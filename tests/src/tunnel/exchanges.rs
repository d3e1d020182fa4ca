//! What travels through tunnels, both versions.

use sha2::{Digest as _, Sha256};
use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Script, Wire, eventually, http, within};
use sluice_tunnel::registration::Version;

use super::connector::Running;
use super::raw::{BINARY, Raw, TEXT};
use super::{document, gateway};

const BOTH: [Version; 2] = [Version::V1, Version::V3];
const LARGE: usize = 12 * 1024 * 1024;

fn large() -> Vec<u8> {
    (0..LARGE).map(|number| (number * 7 + number / 251) as u8).collect()
}

#[tokio::test]
async fn a_request_and_its_answer_have_the_form_of_1_0() {
    let gateway = gateway("").await;
    let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("POST /shop/a%20b?q=1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n5\r\nhello\r\n").await;
    let head = raw.text().await;
    assert!(head.starts_with("POST /shop/a%20b?q=1 HTTP/1.1\n"), "{head}");
    assert!(head.ends_with("\n\n_1"), "{head}");
    assert!(head.contains("\nX-A:1\n") && head.contains("\nHost:h\n"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(raw.frame().await, (BINARY, b"hello".to_vec()));
    client.send("0\r\n\r\n").await;
    assert_eq!(raw.text().await, "_3");
    // The dialect with an echo line, and without a reason.
    raw.send(TEXT, "HTTP/1.1 201\nPOST /shop\nX-B:2\nContent-Length:6\n").await;
    raw.send(BINARY, "an").await.send(BINARY, "swer").await.close(1000).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("x-b"), answer.text().as_str()), (201, Some("2"), "answer"));
}

#[tokio::test]
async fn the_end_of_a_tunnel_says_what_became_of_the_exchange() {
    let gateway = gateway("").await;
    let (web, tunnels) = (gateway.address("web"), gateway.address("tunnels"));
    for (code, status, failure) in [
        (1011, 502, "tunnel-target-failed"),
        (1008, 400, "tunnel-refused"),
        (1000, 502, "upstream-invalid"),
        (1001, 502, "tunnel-lost"),
    ] {
        let mut raw = Raw::register(tunnels, "shop").await;
        let serve = async {
            raw.text().await;
            raw.close(code).await;
        };
        let (answer, ()) = tokio::join!(http::post(web, "/shop", "x"), serve);
        assert_eq!((answer.status, answer.code().as_str()), (status, failure), "{code}");
    }
    let mut raw = Raw::register(tunnels, "shop").await;
    let serve = async {
        raw.text().await;
        raw.vanish();
    };
    let (answer, ()) = tokio::join!(http::post(web, "/shop", "x"), serve);
    assert_eq!((answer.status, answer.code().as_str()), (502, "tunnel-lost"));
    for (kind, payload) in [(TEXT, "nonsense"), (BINARY, "too early")] {
        let mut raw = Raw::register(tunnels, "shop").await;
        let serve = async {
            raw.text().await;
            raw.send(kind, payload).await;
        };
        let (answer, ()) = tokio::join!(http::post(web, "/shop", "x"), serve);
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream-invalid"), "{payload}");
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_never_looks_complete() {
    let gateway = gateway("").await;
    for end in [Some(1011), Some(1001), None] {
        let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop HTTP/1.1\r\nHost: h\r\n\r\n").await;
        raw.text().await;
        raw.send(TEXT, "HTTP/1.1 200 OK\nX-A:1\n").await.send(BINARY, "part").await;
        assert_eq!(client.head().await.status, 200);
        match end {
            Some(code) => raw.close(code).await,
            None => raw.vanish(),
        }
        let rest = client.read_to_end().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_client_that_leaves_closes_its_1_0_tunnel() {
    let gateway = gateway("").await;
    let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("GET /shop HTTP/1.1\r\nHost: h\r\n\r\n").await;
    raw.text().await;
    drop(client);
    raw.expect_close(1001, "Going away").await;
}

#[tokio::test]
async fn requests_of_every_kind_come_through_our_connector() {
    for version in BOTH {
        let origin = Origin::start(Reply::echo()).await;
        let gateway = gateway("").await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let web = gateway.address("web");
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
            let body: &[u8] = if matches!(method, "POST" | "PUT") { b"content" } else { b"" };
            let answer = http::request(web, method, "/shop/x?y=%20z", &[("X-A", "1")], body).await;
            let seen = answer.json();
            assert_eq!((answer.status, &seen["method"]), (200, &method.into()), "{version}");
            assert_eq!(seen["target"], "/shop/x?y=%20z");
            assert_eq!(seen["body"].as_str().map(str::len), Some(body.len()));
        }
        let mut client = Wire::connect(web).await;
        for _ in 0..3 {
            client.send("HEAD /shop HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert_eq!(client.answer_to("HEAD").await.status, 200);
        }
    }
}

#[tokio::test]
async fn large_bodies_are_the_same_at_the_other_end() {
    let hash = |bytes: &[u8]| format!("{:x?}", Sha256::digest(bytes).as_slice());
    for version in BOTH {
        let script = Script::each(move |received| match received.method.as_str() {
            "POST" => Reply::ok(format!("{:x?}", Sha256::digest(&received.body).as_slice())),
            _ => Reply::ok(large()),
        });
        let origin = Origin::start(script).await;
        let gateway = gateway("").await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let web = gateway.address("web");
        let sent = http::post(web, "/shop", large()).await;
        assert_eq!(sent.text(), hash(&large()), "{version}");
        let got = http::get(web, "/shop").await;
        assert_eq!((got.body.len(), hash(&got.body)), (LARGE, hash(&large())), "{version}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_by_the_target() {
    for version in BOTH {
        let origin = ManualOrigin::start().await;
        let gateway = gateway("").await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut target = origin.accept().await;
        target.request().await;
        drop(client);
        target.expect_closed().await;
    }
}

#[tokio::test]
async fn a_target_that_dies_is_an_abort_for_the_client() {
    for version in BOTH {
        let origin = ManualOrigin::start().await;
        let gateway = gateway("").await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let mut target = origin.accept().await;
        target.request().await;
        target.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await;
        assert_eq!(client.head().await.status, 200);
        drop(target);
        let rest = client.read_to_end().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{version}");
    }
}

#[tokio::test]
async fn one_client_that_reads_nothing_holds_up_no_other() {
    let script = Script::each(|received| match received.target.as_str() {
        "/shop/large" => Reply::ok(large()),
        _ => Reply::ok("small"),
    });
    let origin = Origin::start(script).await;
    let gateway = gateway("").await;
    let _connector = Running::start(&gateway, "shop", origin.address(), Version::V3).await;
    let web = gateway.address("web");
    let mut stalled = Vec::new();
    for _ in 0..6 {
        let mut client = Wire::connect(web).await;
        client.send("GET /shop/large HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
        stalled.push(client);
    }
    for _ in 0..20 {
        assert_eq!(within("a sibling", http::get(web, "/shop/small")).await.text(), "small");
    }
    for mut client in stalled {
        assert_eq!(client.read(LARGE).await.len(), LARGE);
    }
}

#[tokio::test]
async fn a_protocol_switch_goes_through_both_versions() {
    for version in BOTH {
        let origin = Origin::start(Reply::upgrade("echo")).await;
        let gateway = gateway("").await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send("GET /shop HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
        let answer = client.head().await;
        assert_eq!((answer.status, answer.field("upgrade")), (101, Some("echo")), "{version}");
        client.send("there and back").await.expect("there and back").await;
        let bulk = vec![b'x'; 300_000];
        client.send(&bulk).await;
        assert_eq!(client.read(bulk.len()).await, bulk);
        client.half_close().await.expect_closed().await;
    }
}

#[tokio::test]
async fn an_old_connector_refuses_a_protocol_switch_cleanly() {
    let gateway = gateway("").await;
    let _raw = Raw::register(gateway.address("tunnels"), "shop").await;
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let answer = http::get_with(gateway.address("web"), "/shop", &fields).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "upgrade-refused"));
}

#[tokio::test]
async fn an_upstream_is_found_in_tunnels_with_filters_limits_and_metrics_as_any() {
    for version in BOTH {
        let origin = Origin::start(Reply::echo()).await;
        let more = "[[routes]]\nname = \"shop\"\nmatch = { path_prefix = \"/buy\" }\n\
                    filters = [{ rewrite = { strip_prefix = \"/buy\" } }]\nforward = { upstream = \"shop\" }\n\
                    [upstreams.shop]\ndiscovery = { tunnel = \"my-shop\", wait = \"300ms\" }\n";
        let gateway = Gateway::start(&document("300ms", "", more)).await;
        let web = gateway.address("web");
        let early = http::get(web, "/buy/x").await;
        assert_eq!((early.status, early.code().as_str()), (503, "tunnel-unavailable"));
        let _connector = Running::start(&gateway, "my-shop", origin.address(), version).await;
        let answer = http::get(web, "/buy/x").await;
        assert_eq!((answer.status, &answer.json()["target"]), (200, &"/x".into()), "{version}");
        let labels = ["upstream=\"shop\"", "endpoint=\"tunnel:my-shop\""];
        eventually("the attempt to be counted", async || {
            (gateway.metric("sluice_upstream_attempts_total", &labels).await >= 1.0).then_some(())
        })
        .await;
    }
}
