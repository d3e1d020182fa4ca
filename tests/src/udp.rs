//! UDP listeners: the datagrams of one client are a flow to one endpoint.

use std::net::SocketAddr;

use sluice_testkit::{Gateway, Signal, eventually, free_port, within};
use tokio::net::UdpSocket;

use crate::tcp::{Tcp, log_line};

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// A gateway with one UDP listener `db`.
async fn start(lines: Tcp<'_>, endpoints: &[&UdpSocket]) -> Gateway {
    Gateway::start(&document(lines, endpoints)).await
}

fn document(lines: Tcp<'_>, endpoints: &[&UdpSocket]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|socket| socket.local_addr().unwrap()).collect();
    lines.document(&endpoints).replace("protocol = \"tcp\"", "protocol = \"udp\"")
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, from) = within("a datagram", socket.recv_from(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    (buffer, from)
}

/// A client of the gateway.
async fn client(gateway: &Gateway) -> UdpSocket {
    let address = gateway.address("db");
    let any: SocketAddr = if address.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }.parse().unwrap();
    let client = UdpSocket::bind(any).await.unwrap();
    client.connect(address).await.unwrap();
    client
}

/// One question and its answer; gives the flow's address as the endpoint sees it.
async fn ask(client: &UdpSocket, endpoint: &UdpSocket, question: &[u8]) -> SocketAddr {
    client.send(question).await.unwrap();
    let (seen, flow) = receive(endpoint).await;
    assert_eq!(seen, question);
    endpoint.send_to(&[b"re: ", question].concat(), flow).await.unwrap();
    assert_eq!(receive(client).await.0, [b"re: ", question].concat());
    flow
}

#[tokio::test]
async fn each_client_has_a_flow_of_its_own() {
    let endpoint = socket().await;
    let gateway = start(Tcp::default(), &[&endpoint]).await;
    let (one, other) = (client(&gateway).await, client(&gateway).await);
    let flow = ask(&one, &endpoint, b"a").await;
    assert_ne!(ask(&other, &endpoint, b"b").await, flow);
    for size in [0, 1, 1_400, 9_000, 60_000] {
        assert_eq!(ask(&one, &endpoint, &vec![7; size]).await, flow);
    }
    // The endpoint may go on speaking unasked.
    for word in [b"x", b"y"] {
        endpoint.send_to(word, flow).await.unwrap();
        assert_eq!(receive(&one).await.0, word);
    }
}

#[tokio::test]
async fn flows_spread_and_ipv6_is_spoken() {
    let endpoints = [UdpSocket::bind("[::1]:0").await.unwrap(), UdpSocket::bind("[::1]:0").await.unwrap()];
    let lines = Tcp { listener: "address = \"[::1]:0\"", ..Tcp::default() };
    let gateway = start(lines, &[&endpoints[0], &endpoints[1]]).await;
    let (one, other) = (client(&gateway).await, client(&gateway).await);
    one.send(b"1").await.unwrap();
    assert_eq!(receive(&endpoints[0]).await.0, b"1");
    other.send(b"2").await.unwrap();
    assert_eq!(receive(&endpoints[1]).await.0, b"2");
}

#[tokio::test]
async fn an_idle_flow_ends_and_leaves_a_line() {
    let endpoint = socket().await;
    let lines = Tcp {
        listener: "timeouts.idle = \"200ms\"",
        more: "[access_log]\npath = \"access.log\"\n",
        ..Tcp::default()
    };
    let gateway = start(lines, &[&endpoint]).await;
    let one = client(&gateway).await;
    let flow = ask(&one, &endpoint, b"abc").await;
    let line = log_line(&gateway).await;
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(3), Some(7)));
    assert_eq!((line["outcome"].as_str(), line["upstream"].as_str()), (Some("completed"), Some("db")));
    assert_eq!(gateway.metric("sluice_listener_connections_active", &[]).await, 0.0);
    assert_ne!(ask(&one, &endpoint, b"abc").await, flow, "a new flow");
}

#[tokio::test]
async fn beyond_the_limit_new_clients_are_dropped_and_counted() {
    let endpoint = socket().await;
    let lines = Tcp { listener: "limits = { connections = 1, datagram = \"100B\" }", ..Tcp::default() };
    let gateway = start(lines, &[&endpoint]).await;
    let (one, other) = (client(&gateway).await, client(&gateway).await);
    ask(&one, &endpoint, b"a").await;
    other.send(b"b").await.unwrap();
    one.send(&[1; 101]).await.unwrap();
    eventually("two drops", async || {
        let dropped = gateway.metric("sluice_listener_datagrams_dropped_total", &[]).await;
        (dropped == 2.0).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("sluice_failures_total", &["code=\"overloaded\""]).await, 1.0);
    ask(&one, &endpoint, b"c").await;
}

#[tokio::test]
async fn a_reload_keeps_flows() {
    let (old, new) = (socket().await, socket().await);
    let gateway = start(Tcp::default(), &[&old]).await;
    let one = client(&gateway).await;
    let flow = ask(&one, &old, b"a").await;
    assert_eq!(gateway.reload(&document(Tcp::default(), &[&new])).await.status, 200);
    assert_eq!(ask(&one, &old, b"b").await, flow);
    ask(&client(&gateway).await, &new, b"c").await;
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_fails_its_flow() {
    let endpoint = socket().await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let text = Tcp::default().document(&[nobody, endpoint.local_addr().unwrap()]);
    let gateway = Gateway::start(&text.replace("\"tcp\"", "\"udp\"")).await;
    let one = client(&gateway).await;
    eventually("a datagram at the other endpoint", async || {
        one.send(b"again").await.unwrap();
        let mut buffer = [0; 16];
        let wait = std::time::Duration::from_millis(20);
        tokio::time::timeout(wait, endpoint.recv_from(&mut buffer)).await.ok().map(|_| ())
    })
    .await;
    assert!(gateway.metric("sluice_failures_total", &["code=\"connect-failed\""]).await >= 1.0);
}

#[tokio::test]
async fn the_first_datagram_carries_the_client() {
    let endpoint = socket().await;
    let gateway = start(Tcp { upstream: "proxy_protocol = \"v2\"", ..Tcp::default() }, &[&endpoint]).await;
    let one = client(&gateway).await;
    one.send(b"first").await.unwrap();
    let (first, _) = receive(&endpoint).await;
    assert_eq!(first[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c");
    assert_eq!(first[24..26], one.local_addr().unwrap().port().to_be_bytes());
    assert_eq!(&first[28..], b"first");
    one.send(b"second").await.unwrap();
    assert_eq!(receive(&endpoint).await.0, b"second");
}

#[tokio::test]
async fn a_drain_serves_flows_that_go_on_and_begins_none() {
    let endpoint = socket().await;
    let mut gateway = start(Tcp { process: "drain_timeout = \"20s\"", ..Tcp::default() }, &[&endpoint]).await;
    let one = client(&gateway).await;
    let flow = ask(&one, &endpoint, b"a").await;
    gateway.signal(Signal::Term).await;
    eventually("the drain begins", async || gateway.stderr().contains("draining").then_some(())).await;
    assert_eq!(ask(&one, &endpoint, b"b").await, flow);
    client(&gateway).await.send(b"too late").await.unwrap();
    assert!(gateway.wait_exit().await.success(), "it waits for the idle time of flows, then ends");
    assert!(endpoint.try_recv(&mut [0; 16]).is_err());
}

#[tokio::test]
async fn a_route_and_a_listener_let_in_by_address() {
    let endpoint = socket().await;
    for (listener, filters) in [
        ("", "filters = [{ ip_access = { allow = [\"127.0.0.2\"] } }]\n"),
        ("ip_access = { allow = [\"127.0.0.2\"] }", ""),
    ] {
        let text = document(Tcp { listener, ..Tcp::default() }, &[&endpoint]);
        let gateway = Gateway::start(&text.replace("forward = {", &format!("{filters}forward = {{"))).await;
        client(&gateway).await.send(b"refused").await.unwrap();
        eventually("a refusal", async || {
            let refused = gateway.metric("sluice_failures_total", &["code=\"forbidden\""]).await;
            (refused == 1.0).then_some(())
        })
        .await;
        let allowed = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        allowed.connect(gateway.address("db")).await.unwrap();
        ask(&allowed, &endpoint, b"let in").await;
        assert!(endpoint.try_recv(&mut [0; 16]).is_err(), "what was refused never came");
    }
}
