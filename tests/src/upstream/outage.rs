//! An endpoint dies under load and comes back: what it costs, and for how long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_testkit::{Gateway, Load, LoadTask, Origin, Reply, Signal, Wire, eventually, http, own_loopback};
use tokio::task::JoinHandle;

use super::{App, Client, endpoint, lettered, share};

/// A process that answers with its letter, at `address`.
async fn process(letter: &str, address: &str) -> Gateway {
    Gateway::start(&format!(
        "[process]\nworkers = 1\n[listeners.web]\naddress = \"{address}\"\n[[routes]]\nname = \"all\"\n\
         match = {{ path_prefix = \"/\" }}\nrespond = {{ body = \"{letter}\" }}\n"
    ))
    .await
}

/// Three processes, and a gateway before them.
async fn three(upstream: &str) -> ([Gateway; 3], Gateway) {
    let own = || format!("{}:0", own_loopback());
    let processes = [process("A", &own()).await, process("B", &own()).await, process("C", &own()).await];
    let endpoints = processes.each_ref().map(|process| format!("\"{}\"", process.address("web")));
    let gateway = App::with(endpoints).upstream(upstream).start().await;
    (processes, gateway)
}

async fn kill(process: &mut Gateway) {
    process.signal(Signal::Kill).await;
    process.wait_exit().await;
}

/// Waits until a load has had so many more answers.
async fn wait_load(load: &LoadTask, more: usize) {
    let before = load.answered();
    eventually("answers", async || (load.answered() >= before + more).then_some(())).await;
}

/// POST requests without a pause, over so many connections.
struct Posts {
    stopped: Arc<AtomicBool>,
    right: Arc<AtomicUsize>,
    wrong: Arc<AtomicUsize>,
    lanes: Vec<JoinHandle<()>>,
}

impl Posts {
    fn start(address: SocketAddr, connections: usize) -> Posts {
        let (stopped, right, wrong) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let lane = || lane(address, Arc::clone(&stopped), [&right, &wrong].map(Arc::clone));
        let lanes = (0..connections).map(|_| tokio::spawn(lane())).collect();
        Posts { stopped, right, wrong, lanes }
    }

    async fn wait_more(&self, count: usize) {
        let before = self.right.load(Ordering::Relaxed);
        eventually("more answers", async || {
            (self.right.load(Ordering::Relaxed) >= before + count).then_some(())
        })
        .await;
    }

    fn wrong(&self) -> usize {
        self.wrong.load(Ordering::Relaxed)
    }

    async fn finish(self) {
        self.stopped.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await.unwrap();
        }
    }
}

async fn lane(address: SocketAddr, stopped: Arc<AtomicBool>, [right, wrong]: [Arc<AtomicUsize>; 2]) {
    let mut wire = Wire::connect(address).await;
    while !stopped.load(Ordering::Relaxed) {
        wire.send(http::request_bytes(address, "POST", "/", &[], b"order")).await;
        let count = if wire.answer().await.status == 200 { &right } else { &wrong };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn r5_a_killed_endpoint_costs_idempotent_requests_nothing() {
    let (mut processes, gateway) = three("").await;
    let load = Load { connections: 6, requests: usize::MAX, ..Load::default() };
    let load = load.start(gateway.address("web"));
    for at in [0, 1, 2, 0, 1, 2] {
        let address = processes[at].address("web").to_string();
        wait_load(&load, 100).await;
        kill(&mut processes[at]).await;
        wait_load(&load, 200).await;
        processes[at] = process(&super::letter(at), &address).await;
    }
    load.finish().await.assert_clean();
}

#[tokio::test]
async fn r5_a_killed_endpoint_costs_each_connection_at_most_one_request_and_later_ones_nothing() {
    let (mut processes, gateway) = three("").await;
    let posts = Posts::start(gateway.address("web"), 6);
    posts.wait_more(200).await;
    kill(&mut processes[1]).await;
    posts.wait_more(200).await;
    let lost = posts.wrong();
    assert!(lost <= 6, "{lost} requests were lost on 6 connections");
    posts.wait_more(300).await;
    assert_eq!(posts.wrong(), lost, "none after");
    posts.finish().await;
}

#[tokio::test]
async fn a_killed_endpoint_is_back_within_one_health_interval() {
    let (mut processes, gateway) = three("health = { tcp = { every = \"1s\", rise = 1, fall = 1 } }").await;
    let load = Load { connections: 3, requests: usize::MAX, ..Load::default() };
    let load = load.start(gateway.address("web"));
    let address = processes[2].address("web").to_string();
    let of_it = format!("endpoint=\"{address}\"");
    let tried = async || gateway.metric("sluice_upstream_attempts_total", &[&of_it]).await;
    kill(&mut processes[2]).await;
    eventually("the check's verdict", async || gateway.stderr().contains("state=unhealthy").then_some(()))
        .await;
    // Those that were under way when it was given.
    wait_load(&load, 50).await;
    let before = tried().await;
    wait_load(&load, 200).await;
    assert_eq!(tried().await, before, "it is left alone");
    processes[2] = process("C", &address).await;
    let returned = Instant::now();
    eventually("traffic for it", async || (tried().await > before).then_some(())).await;
    // The interval, the tenth by which checks are spread, and time for a busy machine.
    assert!(returned.elapsed() < Duration::from_millis(2_100), "{:?}", returned.elapsed());
    load.finish().await.assert_clean();
}

#[tokio::test]
async fn all_endpoints_die_and_return() {
    let (mut processes, gateway) = three("ejection = { for = \"100ms\" }").await;
    let addresses = processes.each_ref().map(|process| process.address("web").to_string());
    let mut client = Client::of(&gateway).await;
    assert_eq!(client.letters(3).await, "ABC");
    for process in &mut processes {
        kill(process).await;
    }
    for _ in 0..20 {
        let answer = client.get("/", &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "connect-failed"));
    }
    processes[1] = process("B", &addresses[1]).await;
    eventually("the first that is back", async || {
        let answer = client.get("/", &[]).await;
        (answer.status == 200 && answer.text() == "B").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_restarts_between_two_checks_is_back_with_the_next_one() {
    let (mut processes, gateway) = three("health = { tcp = { every = \"1s\", fall = 9 } }").await;
    let address = processes[2].address("web").to_string();
    let of_it = format!("endpoint=\"{address}\"");
    let tried = async || gateway.metric("sluice_upstream_attempts_total", &[&of_it]).await;
    eventually("the first checks", async || {
        (gateway.stderr().matches("state=healthy").count() == 3).then_some(())
    })
    .await;
    let mut client = Client::of(&gateway).await;
    kill(&mut processes[2]).await;
    // Traffic finds out and leaves it alone, for thirty seconds by default; its checks never fail often enough.
    let left_alone = client.letters(60).await;
    assert_eq!(share(&left_alone, 'C'), 0);
    let before = tried().await;
    processes[2] = process("C", &address).await;
    let returned = Instant::now();
    eventually("its return", async || (client.letters(3).await.contains('C')).then_some(())).await;
    assert!(returned.elapsed() < Duration::from_millis(2_100), "{:?}", returned.elapsed());
    assert!(tried().await > before);
    assert!(!gateway.stderr().contains("state=unhealthy"), "{}", gateway.stderr());
}

#[tokio::test]
async fn r11_a_weight_that_changes_keeps_the_turn_of_the_others() {
    let origins = lettered::<3>().await;
    let app = |weight: u32| {
        let last = endpoint(&origins[2], &format!("weight = {weight}"));
        App::with([endpoint(&origins[0], ""), endpoint(&origins[1], ""), last])
    };
    // C A B C and again; after C A it is B's turn, and a balancer that starts anew would say A.
    for (before, expected) in [(2, "B"), (6, "B")] {
        let gateway = app(2).start().await;
        let mut client = Client::of(&gateway).await;
        assert!("CABCCABC".starts_with(&client.letters(before).await));
        app(1).replace(&gateway).await;
        assert_eq!(client.letters(1).await, expected, "after {before} requests");
    }
}

#[tokio::test]
async fn reloads_and_an_outage_at_the_same_time_lose_nothing() {
    let mut origins = lettered::<3>().await;
    let documents: Vec<String> = (1..=3_u32)
        .map(|weight| {
            let last = endpoint(&origins[2], &format!("weight = {weight}"));
            App::with([endpoint(&origins[0], ""), endpoint(&origins[1], ""), last]).text()
        })
        .collect();
    let gateway = Gateway::start(&documents[0]).await;
    let load = Load { connections: 4, requests: usize::MAX, ..Load::default() };
    let load = load.start(gateway.address("web"));
    for turn in 0..12 {
        match turn % 4 {
            1 => origins[0].stop().await,
            3 => origins[0].start_again().await,
            _ => {}
        }
        assert_eq!(gateway.reload(&documents[turn % 3]).await.status, 200);
        wait_load(&load, 30).await;
    }
    load.finish().await.assert_clean();
}

mod with_peers {
    use super::*;
    use sluice_testkit::Peer;

    #[tokio::test]
    async fn r5_a_killed_nginx_costs_no_request_that_can_be_repeated() {
        let mut nginx = Peer::nginx("location / { return 200 \"x\"; }").await;
        let origin = Origin::start(Reply::ok("x")).await;
        let endpoints = [nginx.address(), origin.address()].map(|address| format!("\"{address}\""));
        let gateway = App::with(endpoints).start().await;
        let load = Load { connections: 4, requests: usize::MAX, body: Some("x".into()), ..Load::default() };
        let load = load.start(gateway.address("web"));
        wait_load(&load, 200).await;
        nginx.kill().await;
        wait_load(&load, 300).await;
        load.finish().await.assert_clean();
    }
}
