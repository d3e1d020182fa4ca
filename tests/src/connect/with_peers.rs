//! Connectors and routers that we did not write.

use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use sluice_testkit::{
    Gateway, ManualOrigin, Origin, Program, Reply, Scratch, Script, Signal, Wire, eventually, http,
};

use super::child::Connector;
use super::{VERSIONS, document};

/// What `cargo xtask test` has made for us.
fn made(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(3).unwrap().join("peers").join(name);
    assert!(path.exists(), "{} is missing: `cargo xtask test` makes it", path.display());
    path
}

/// A connector that we did not write: crank4py-connector of PyPI, which speaks 1.0.
const CONNECTOR: &str = "
import sys, time
from crank4py_connector import Config, create_and_start_connector
create_and_start_connector(Config(sys.argv[2], 'shop', [sys.argv[1]], component_name='python'))
print('ready')
time.sleep(600)
";

#[tokio::test]
async fn the_connector_of_pypi_is_served() {
    let echo = Script::each(|request| Reply::ok(request.body.clone()).field("X-Target", &request.target));
    let origin = Origin::start(echo).await;
    let gateway = Gateway::start(&document(0, "")).await;
    let modules = made("python");
    let router = format!("ws://{}", gateway.address("tunnels"));
    let target = format!("http://{}", origin.address());
    let python = Program::at("/usr/bin/python3")
        .arguments(["-u", "-c", CONNECTOR, &router, &target])
        .environment("PYTHONPATH", &modules.display().to_string());
    let _connector = Gateway::launch(&python, Scratch::new()).await;
    let body: Vec<u8> = (0..300_000).map(|n| (n % 251) as u8).collect();
    eventually("its registration", async || {
        (http::get(gateway.address("web"), "/shop/").await.status == 200).then_some(())
    })
    .await;
    for turn in 0..5 {
        let answer = http::get(gateway.address("web"), &format!("/shop/a?turn={turn}")).await;
        assert_eq!(answer.field("x-target"), Some(&*format!("/shop/a?turn={turn}")));
        let answer = http::post(gateway.address("web"), "/shop/up", &body).await;
        assert_eq!((answer.status, Sha256::digest(&answer.body)), (200, Sha256::digest(&body)));
    }
}

/// The router of crates.io's scr-axum-cranker-router.
async fn router() -> Gateway {
    Gateway::launch(&Program::at(made("scr-router/debug/scr-router")), Scratch::new()).await
}

#[tokio::test]
async fn the_router_of_crates_io_takes_our_connector_in_both_versions() {
    let echo = Script::each(|request| Reply::ok(request.body.clone()).field("X-Target", &request.target));
    let origin = Origin::start(echo).await;
    let body: Vec<u8> = (0..1_000_000).map(|n| (n % 251) as u8).collect();
    for version in VERSIONS {
        let router = router().await;
        let web = router.address("web");
        let mut connector = Connector::publish(router.address("tunnels"), origin.address(), version).await;
        connector.says(&format!("version={version}")).await;
        for turn in 0..5 {
            let answer = http::get(web, &format!("/shop/a%20b?turn={turn}")).await;
            assert_eq!(
                (answer.status, answer.field("x-target")),
                (200, Some(&*format!("/shop/a%20b?turn={turn}")))
            );
            let answer = http::post(web, "/shop/up", &body).await;
            assert_eq!(
                (answer.status, Sha256::digest(&answer.body)),
                (200, Sha256::digest(&body)),
                "{version}"
            );
        }
        let (first, second) =
            tokio::join!(http::post(web, "/shop/1", "one"), http::post(web, "/shop/2", "two"));
        assert_eq!((first.text(), second.text()), ("one".into(), "two".into()));
        // It knows no extension: the wish to change the protocol stays at it.
        let fields = [("Connection", "Upgrade"), ("Upgrade", "echo")];
        assert_eq!(http::get_with(web, "/shop/", &fields).await.status, 200);
        assert_eq!(origin.last().field("upgrade"), None, "{version}");
        let health = connector.health().await;
        assert_eq!(health["services"]["shop"]["requests"]["target_failed"], 0, "{health:#}");
        connector.process.signal(Signal::Term).await;
        let status = connector.process.wait_exit().await;
        assert!(status.success(), "{version}: {status}\n{}", connector.process.stderr());
    }
}

#[tokio::test]
async fn streams_and_aborts_pass_the_router_of_crates_io() {
    for version in VERSIONS {
        let (router, origin) = (router().await, ManualOrigin::start().await);
        let connector = Connector::publish(router.address("tunnels"), origin.address(), version).await;
        let begun = async || {
            let mut client = Wire::connect(router.address("web")).await;
            client.send("GET /shop/events HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut target = origin.accept().await;
            target.request().await;
            target.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
            assert_eq!(client.head().await.status, 200);
            for tick in 0..5 {
                target.send(format!("data: {tick}\n\n")).await;
                client.expect(format!("9\r\ndata: {tick}\n\n\r\n")).await;
            }
            (client, target)
        };
        let (client, mut target) = begun().await;
        drop(client);
        target.expect_closed().await;
        let (mut client, target) = begun().await;
        target.reset();
        let rest = client.try_read_to_end().await.unwrap_or_default();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{version}: it looks complete");
        eventually("no running request", async || {
            (connector.health().await["services"]["shop"]["requests"]["running"] == 0).then_some(())
        })
        .await;
    }
}
