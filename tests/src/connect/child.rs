//! A connector of `sluice connect`, as a process.

use std::net::SocketAddr;

use sluice_testkit::{Gateway, Scratch, eventually, http, sluice};

/// A connector that runs.
pub(crate) struct Connector {
    pub(crate) process: Gateway,
    pub(crate) health: SocketAddr,
}

impl Connector {
    /// Starts it with these arguments beside `--health`.
    pub(crate) async fn launch(arguments: &[&str]) -> Connector {
        let program = sluice(["connect", "--health", "127.0.0.1:0"]).arguments(arguments);
        Connector::of(Gateway::launch(&program, Scratch::new()).await)
    }

    /// A process that has said where its health endpoint is.
    pub(crate) fn of(process: Gateway) -> Connector {
        let said = process.stdout();
        let line = said.lines().find_map(|line| line.strip_prefix("health  http://"));
        let address = line.and_then(|line| line.strip_suffix("/health")).expect("a line about health");
        Connector { process, health: address.parse().unwrap() }
    }

    /// Publishes `shop` and waits until that is so.
    pub(crate) async fn publish(gateway: SocketAddr, target: SocketAddr, version: &str) -> Connector {
        let (router, target) = (format!("ws://{gateway}"), format!("http://{target}"));
        let connector = Connector::launch(&[
            "--router",
            &router,
            "--route",
            "shop",
            "--target",
            &target,
            "--version",
            version,
        ])
        .await;
        connector.wait("up").await;
        connector
    }

    /// What its health endpoint says.
    pub(crate) async fn health(&self) -> serde_json::Value {
        http::get(self.health, "/health").await.json()
    }

    /// Waits until it has said this on standard error.
    pub(crate) async fn says(&self, text: &str) {
        eventually(text, async || self.process.stderr().contains(text).then_some(())).await;
    }

    /// Waits until its health endpoint says so.
    pub(crate) async fn wait(&self, status: &str) {
        eventually(&format!("status {status}"), async || {
            (self.health().await["status"] == status).then_some(())
        })
        .await;
    }
}
