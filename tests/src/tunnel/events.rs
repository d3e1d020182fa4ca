//! What watchers are told of exchanges through tunnels, seen in the lines that `trace` writes.

use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Wire, eventually, http};
use sluice_tunnel::registration::Version;

use super::connector::Running;
use super::document;
use super::raw::{Raw, TEXT};

const BOTH: [Version; 2] = [Version::V1, Version::V3];

fn traced(interest: &str) -> String {
    document("300ms", "", &format!("[tunnels]\ntrace = \"{interest}\"\n"))
}

/// The steps of the exchange with this id, without their fields, once it has ended.
async fn steps(gateway: &Gateway, id: &str) -> Vec<String> {
    let lines = lines(gateway, id).await;
    let message = |line: &String| {
        let message = line.split("tunnel exchange: ").nth(1)?.split(" request_id=").next()?;
        Some(message.trim_matches('"').to_owned())
    };
    lines.iter().filter_map(message).collect()
}

async fn lines(gateway: &Gateway, id: &str) -> Vec<String> {
    let about = |line: &&str| line.contains("tunnel exchange: ") && line.contains(id);
    eventually(&format!("the end of {id}"), async || {
        let said = gateway.stderr();
        let lines: Vec<String> = said.lines().filter(about).map(str::to_owned).collect();
        lines.iter().any(|line| line.contains("exchange: ended")).then_some(lines)
    })
    .await
}

fn id(answer: &sluice_testkit::Answer) -> String {
    answer.field("x-request-id").unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

#[tokio::test]
async fn every_step_is_told_in_order_and_the_end_once_and_last() {
    for version in BOTH {
        let origin = Origin::start(Reply::ok("answer")).await;
        let gateway = Gateway::start(&traced("content")).await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let web = gateway.address("web");
        let answer = http::get(web, "/shop/x?secret=y").await;
        assert_eq!(answer.text(), "answer");
        let told = steps(&gateway, &id_of(&gateway, "/shop/x").await).await;
        assert_eq!(
            told,
            [
                "tunnel taken",
                "head sent",
                "request sent",
                "head received",
                "responding",
                "received",
                "answer received",
                "ended"
            ],
            "{version}"
        );
        http::post(web, "/shop/upload", "content").await;
        let id = id_of(&gateway, "/shop/upload").await;
        let told = steps(&gateway, &id).await;
        let before: Vec<&str> = told.iter().map(String::as_str).take(5).collect();
        assert_eq!(before, ["tunnel taken", "head sent", "sending", "sent", "request sent"], "{version}");
        assert_eq!(told.iter().filter(|step| *step == "ended").count(), 1);
        let lines = lines(&gateway, &id).await;
        let (sending, ended) = (&lines[2], &lines[lines.len() - 1]);
        assert!(sending.contains("bytes=7") && !gateway.stderr().contains("secret"), "{sending}");
        for part in ["tunnel=tunnel:shop", "outcome=completed", "status=200", "bytes_in=7", "bytes_out=6"] {
            assert!(ended.contains(part), "{part} in {ended}");
        }
    }
}

/// The id of the exchange that took a tunnel for this path.
async fn id_of(gateway: &Gateway, path: &str) -> String {
    let wanted = format!("path={path} ");
    eventually(&wanted, async || {
        let said = gateway.stderr();
        let line = said.lines().find(|line| line.contains(&wanted))?;
        Some(line.split("request_id=").nth(1)?.split(' ').next()?.to_owned())
    })
    .await
}

#[tokio::test]
async fn without_interest_in_content_there_is_none_and_without_a_watcher_nothing() {
    let origin = Origin::start(Reply::ok("answer")).await;
    let gateway = Gateway::start(&traced("steps")).await;
    let _connector = Running::start(&gateway, "shop", origin.address(), Version::V3).await;
    let web = gateway.address("web");
    http::post(web, "/shop/1", "content").await;
    let told = steps(&gateway, &id_of(&gateway, "/shop/1").await).await;
    assert!(!told.iter().any(|step| ["sending", "sent", "received"].contains(&step.as_str())), "{told:?}");
    assert_eq!(gateway.reload(&document("300ms", "", "")).await.status, 200);
    assert_eq!(http::post(web, "/shop/2", "content").await.status, 200);
    assert_eq!(gateway.reload(&traced("steps")).await.status, 200);
    http::post(web, "/shop/3", "content").await;
    id_of(&gateway, "/shop/3").await;
    assert!(!gateway.stderr().contains("path=/shop/2"), "{}", gateway.stderr());
}

#[tokio::test]
async fn an_exchange_without_a_tunnel_is_told_of_too() {
    let gateway = Gateway::start(&traced("steps")).await;
    let web = gateway.address("web");
    let unknown = http::get(web, "/nobody").await;
    assert_eq!(steps(&gateway, &id(&unknown)).await, ["no tunnel", "ended"]);
    let _busy = Raw::register(gateway.address("tunnels"), "shop").await;
    let mut first = Wire::connect(web).await;
    first.send("GET /shop HTTP/1.1\r\nHost: a\r\n\r\n").await;
    id_of(&gateway, "/shop").await;
    let waited = http::get(web, "/shop").await;
    assert_eq!((waited.status, waited.code().as_str()), (503, "tunnel-unavailable"));
    let lines = lines(&gateway, &id(&waited)).await;
    assert!(lines[1].contains("outcome=tunnel-unavailable") && lines[1].contains("status=503"), "{lines:?}");
}

#[tokio::test]
async fn a_failure_half_way_and_a_client_that_leaves_end_it_once() {
    for version in BOTH {
        let origin = ManualOrigin::start().await;
        let gateway = Gateway::start(&traced("content")).await;
        let _connector = Running::start(&gateway, "shop", origin.address(), version).await;
        let web = gateway.address("web");
        for (path, who) in [("/shop/target", "target"), ("/shop/client", "client")] {
            let mut client = Wire::connect(web).await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
            let mut target = origin.accept().await;
            target.request().await;
            target.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await;
            assert_eq!(client.head().await.status, 200);
            client.expect("4\r\npart\r\n").await;
            match who {
                "target" => drop(target),
                _ => drop(client),
            }
            let id = id_of(&gateway, path).await;
            let told = steps(&gateway, &id).await;
            assert_eq!(told.last().map(String::as_str), Some("ended"), "{version} {told:?}");
            assert_eq!(told.iter().filter(|step| *step == "ended").count(), 1, "{version} {told:?}");
            assert!(!told.iter().any(|step| step == "answer received"), "{version} {told:?}");
            let lines = lines(&gateway, &id).await;
            let outcome = if who == "target" { "upstream-incomplete" } else { "client-gone" };
            assert!(lines[lines.len() - 1].contains(outcome), "{version}: {lines:?}");
        }
    }
}

#[tokio::test]
async fn a_tunnel_that_refuses_is_told_with_the_answer_that_its_client_gets() {
    let gateway = Gateway::start(&traced("steps")).await;
    let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
    let serve = async {
        raw.text().await;
        raw.close(1011).await;
    };
    let (answer, ()) = tokio::join!(http::get(gateway.address("web"), "/shop"), serve);
    assert_eq!(answer.status, 502);
    let told = steps(&gateway, &id(&answer)).await;
    assert_eq!(told, ["tunnel taken", "head sent", "request sent", "responding", "ended"]);
    // An answer without content has no content.
    let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
    let serve = async {
        raw.text().await;
        raw.send(TEXT, "HTTP/1.1 204 No Content\nX-A: b\n").await.close(1000).await;
    };
    let (answer, ()) = tokio::join!(http::get(gateway.address("web"), "/shop/none"), serve);
    assert_eq!(answer.status, 204);
    let told = steps(&gateway, &id_of(&gateway, "/shop/none").await).await;
    assert_eq!(told[3..], ["head received", "answer received", "responding", "ended"]);
}
