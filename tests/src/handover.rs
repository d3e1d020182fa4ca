//! USR2: a new process takes over while requests go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sluice_testkit::{Gateway, Origin, Program, Reply, Signal, eventually, http};

use crate::forward::document;

pub(crate) async fn process(gateway: &Gateway) -> u64 {
    let status = http::get(gateway.admin(), "/v1/status").await.text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["process_id"].as_u64().unwrap()
}

/// Whether a process has ended; a child that nobody has waited for yet counts as ended.
pub(crate) fn has_ended(process: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z') || rest.is_empty())
}

/// Asks for the page on connections of their own until told to stop.
async fn keep_asking(
    gateway: &Gateway,
    stop: &Arc<AtomicBool>,
    asked: &Arc<AtomicUsize>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let address = gateway.address("web");
    let ask = |_| {
        let (stop, asked) = (Arc::clone(stop), Arc::clone(asked));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(http::get(address, "/").await.text(), "x");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    (0..4).map(ask).collect()
}

#[tokio::test]
async fn a_new_process_takes_over_without_a_failed_request() {
    let origin = Origin::start(Reply::ok("x")).await;
    let text = document(&[origin.address()], "affinity = { cookie = \"srv_id\" }");
    let mut gateway = Gateway::start(&text).await;
    let old = process(&gateway).await;
    let cookie = http::get(gateway.address("web"), "/").await.field("set-cookie").map(str::to_owned);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let asking = keep_asking(&gateway, &stop, &asked).await;
    gateway.signal(Signal::Usr2).await;
    eventually("the old process ends", async || has_ended(old).then_some(())).await;
    let new = process(&gateway).await;
    let before = asked.load(Ordering::Relaxed);
    eventually("requests go on", async || (asked.load(Ordering::Relaxed) > before + 20).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    for task in asking {
        task.await.unwrap();
    }
    assert_ne!(new, old);
    let again = http::get(gateway.address("web"), "/").await.field("set-cookie").map(str::to_owned);
    assert_eq!(again, cookie, "the secret that signs cookies went along");
    let ended = Program::at("/bin/sh").arguments(["-c", &format!("kill -TERM {new}")]).finish().await;
    assert_eq!(ended.code(), 0);
    gateway.wait_exit().await;
}

#[tokio::test]
async fn a_new_process_that_cannot_start_changes_nothing() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = Gateway::start(&document(&[origin.address()], "")).await;
    let old = process(&gateway).await;
    gateway.write("[listeners.web");
    gateway.signal(Signal::Usr2).await;
    eventually("it says why", async || gateway.stderr().contains("nothing was handed over").then_some(()))
        .await;
    assert_eq!(process(&gateway).await, old);
    assert_eq!(http::get(gateway.address("web"), "/").await.text(), "x");
}
