//! Connections to endpoints: how many, how long they are kept, and who waits for one.

use std::time::{Duration, Instant};

use sluice_testkit::{Answer, Gateway, Load, Origin, Reply, eventually, http};

use super::{App, Client, endpoint, lettered, share};

async fn get(gateway: &Gateway) -> Answer {
    http::get(gateway.address("web"), "/").await
}

/// An origin that holds its answers, a gateway with this pool, and a client whose request is held.
async fn occupied(pool: &str) -> (Origin, Gateway, Client) {
    let origin = Origin::start(Reply::ok("x").held()).await;
    let gateway = App::of([&origin]).upstream(&format!("pool = {{ {pool} }}")).start().await;
    let mut client = Client::of(&gateway).await;
    client.send("/").await;
    origin.wait_held(1).await;
    (origin, gateway, client)
}

fn overloaded(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
}

#[tokio::test]
async fn requests_over_the_limit_wait_in_the_queue_and_one_more_is_refused() {
    let (origin, gateway, mut first) =
        occupied("max_connections = 1, queue = 1, queue_timeout = \"60s\"").await;
    let mut second = Client::of(&gateway).await;
    second.send("/").await;
    // The second is in the queue once a third finds no room in it.
    eventually("a full queue", async || {
        let mut third = Client::of(&gateway).await;
        third.send("/").await;
        tokio::select! {
            answer = third.wire.answer() => { overloaded(&answer); Some(()) }
            answer = second.wire.answer() => panic!("the second was in the queue first: {answer:?}"),
        }
    })
    .await;
    assert_eq!((origin.count(), origin.connections()), (1, 1));
    origin.release();
    assert_eq!(first.wire.answer().await.status, 200);
    origin.wait_count(2).await;
    origin.wait_held(1).await;
    origin.release();
    assert_eq!(second.wire.answer().await.status, 200);
}

#[tokio::test]
async fn who_waits_too_long_is_refused() {
    let (origin, gateway, mut first) = occupied("max_connections = 1, queue_timeout = \"100ms\"").await;
    let began = Instant::now();
    overloaded(&get(&gateway).await);
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(origin.count(), 1);
    origin.set_script(Reply::ok("y"));
    origin.release();
    assert_eq!(first.wire.answer().await.text(), "x");
    assert_eq!(get(&gateway).await.text(), "y");
}

#[tokio::test]
async fn a_queue_of_zero_refuses_at_once() {
    let (_origin, gateway, _first) =
        occupied("max_connections = 1, queue = 0, queue_timeout = \"60s\"").await;
    for _ in 0..3 {
        overloaded(&get(&gateway).await);
    }
}

#[tokio::test]
async fn who_leaves_the_queue_makes_room_in_it() {
    let (origin, gateway, mut first) =
        occupied("max_connections = 1, queue = 1, queue_timeout = \"60s\"").await;
    for _ in 0..5 {
        let mut waiting = Client::of(&gateway).await;
        waiting.send("/").await;
        waiting.wire.reset();
    }
    origin.set_script(Reply::ok("y"));
    let mut second = Client::of(&gateway).await;
    eventually("room in the queue", async || {
        second.send("/").await;
        tokio::select! {
            answer = second.wire.answer() => { overloaded(&answer); None }
            // In the queue: the answer will not come before the first one's. A refusal comes at once, which on a
            // machine that does much else is still less than this.
            () = tokio::time::sleep(Duration::from_secs(1)) => Some(()),
        }
    })
    .await;
    origin.release();
    assert_eq!(first.wire.answer().await.text(), "x");
    assert_eq!(second.wire.answer().await.text(), "y");
}

#[tokio::test]
async fn a_load_over_the_limit_is_served_over_as_many_connections_as_allowed() {
    let origin = Origin::start(Reply::ok("x")).await;
    let app = App::of([&origin]).upstream("pool = { max_connections = 2, queue_timeout = \"60s\" }");
    for workers in [1, 2] {
        let text = app.text().replace("workers = 1", &format!("workers = {workers}"));
        let gateway = Gateway::start(&text).await;
        let load = Load { connections: 8, requests: 400, body: Some("x".into()), ..Load::default() };
        let load = load.start(gateway.address("web"));
        let mut most = 0;
        eventually("the load", async || {
            most = most.max(origin.open());
            (load.answered() == 400).then_some(())
        })
        .await;
        load.finish().await.assert_clean();
        // One that is being closed and its successor may be seen together.
        assert!((1..=4).contains(&most), "{workers} workers: {most} connections at a time");
    }
}

#[tokio::test]
async fn r16_places_come_back_from_requests_that_were_given_up() {
    let origin = Origin::start(Reply::never()).await;
    let gateway =
        App::of([&origin]).upstream("pool = { max_connections = 2, queue_timeout = \"60s\" }").start().await;
    for sent in 1..=10 {
        let mut client = Client::of(&gateway).await;
        client.send("/").await;
        origin.wait_count(sent).await;
        client.wire.reset();
    }
    origin.set_script(Reply::ok("0123456789").cut_after(50));
    for _ in 0..10 {
        let mut client = Client::of(&gateway).await;
        client.send("/").await;
        client.wire.read_to_end().await;
    }
    origin.set_script(Reply::ok("x"));
    let load = Load { connections: 4, requests: 40, ..Load::default() };
    load.run(gateway.address("web")).await.assert_clean();
}

#[tokio::test]
async fn r16_load_counts_return_to_zero_after_requests_that_were_given_up() {
    let origins = lettered::<2>().await;
    let app = |state: &str| {
        App::with([endpoint(&origins[0], ""), endpoint(&origins[1], &format!("state = \"{state}\""))])
            .upstream("balance = \"least_requests\"")
    };
    let gateway = app("disabled").start().await;
    // The client leaves before the head, in the body; the endpoint leaves in the body.
    let whole = Reply::ok(vec![b'x'; 300_000]);
    for reply in [Reply::never(), whole, Reply::chunked(["a", "b"]).cut_after(70)] {
        origins[0].set_script(reply.clone());
        let before = origins[0].count();
        for sent in 1..=30 {
            let mut client = Client::of(&gateway).await;
            client.send("/").await;
            origins[0].wait_count(before + sent).await;
            client.wire.reset();
        }
    }
    eventually("no open connection", async || {
        (gateway.metric("sluice_listener_connections_active", &[]).await == 0.0).then_some(())
    })
    .await;
    // What was left over at the first would send everything to the second.
    origins[0].set_script(Reply::ok("A"));
    app("enabled").replace(&gateway).await;
    let letters = Client::of(&gateway).await.letters(60).await;
    assert!((15..=45).contains(&share(&letters, 'A')), "{letters}");
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = App::of([&origin]).upstream("pool = { idle_timeout = \"100ms\" }").start().await;
    for round in 1..=2 {
        assert_eq!(get(&gateway).await.status, 200);
        origin.wait_open(0).await;
        assert_eq!(origin.connections(), round);
    }
    eventually("an empty pool", async || {
        (gateway.metric("sluice_pool_idle_connections", &[]).await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_allowed() {
    for (max_idle, kept) in [(0, 0), (1, 1), (2, 2)] {
        let origin = Origin::start(Reply::ok("x").held()).await;
        let gateway =
            App::of([&origin]).upstream(&format!("pool = {{ max_idle = {max_idle} }}")).start().await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = Client::of(&gateway).await;
            client.send("/").await;
            clients.push(client);
        }
        origin.wait_held(3).await;
        origin.release();
        for client in &mut clients {
            assert_eq!(client.wire.answer().await.status, 200);
        }
        origin.wait_open(kept).await;
    }
}

#[tokio::test]
async fn connections_that_the_endpoint_closes_without_a_word_cost_nothing() {
    let origin = Origin::start(Reply::ok("x").cut_after(usize::MAX)).await;
    let gateway = App::of([&origin]).start().await;
    let mut client = Client::of(&gateway).await;
    for turn in 0..30 {
        assert_eq!(client.get("/", &[]).await.status, 200, "GET {turn}");
    }
    for turn in 0..30 {
        // It is closed by now; a request that cannot be repeated must not go out over it.
        origin.wait_open(0).await;
        assert_eq!(client.post("x").await.status, 200, "POST {turn}");
    }
    assert_eq!(origin.count(), 60, "and nothing was sent twice");
}

#[tokio::test]
async fn an_endpoint_that_says_close_is_taken_at_its_word() {
    let origin = Origin::start(Reply::ok("x").close()).await;
    let gateway = App::of([&origin]).start().await;
    let mut client = Client::of(&gateway).await;
    for _ in 0..10 {
        assert_eq!(client.post("x").await.status, 200);
    }
    assert_eq!((origin.count(), origin.connections()), (10, 10));
}

#[tokio::test]
async fn bytes_after_an_answer_spoil_a_connection() {
    let stuffed = Reply::raw(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    );
    let origin = Origin::start(stuffed.then(Reply::ok("good"))).await;
    let gateway = App::of([&origin]).start().await;
    let mut client = Client::of(&gateway).await;
    assert_eq!(client.get("/", &[]).await.text(), "x");
    assert_eq!(client.get("/", &[]).await.text(), "good");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn r11_pools_of_the_others_survive_a_change_of_one_endpoint() {
    let origins = lettered::<3>().await;
    let app = |weight: u32| {
        let last = endpoint(&origins[2], &format!("weight = {weight}"));
        App::with([endpoint(&origins[0], ""), endpoint(&origins[1], ""), last])
    };
    let gateway = app(1).start().await;
    let mut client = Client::of(&gateway).await;
    client.letters(12).await;
    for weight in [4, 2, 1] {
        app(weight).replace(&gateway).await;
        client.letters(12).await;
    }
    assert_eq!(origins.each_ref().map(Origin::connections), [1, 1, 1]);
    // One that is taken out loses its connections; the others keep theirs.
    App::of(&origins[..2]).replace(&gateway).await;
    origins[2].wait_open(0).await;
    client.letters(12).await;
    assert_eq!(origins.each_ref().map(Origin::connections), [1, 1, 1]);
}
