//! The PROXY protocol: believed from trusted peers, told to endpoints.

use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Wire, eventually};

use crate::setup::Lines;
use crate::tcp::Tcp;

const TRUSTED: &str = "proxy_protocol = { from = [\"127.0.0.0/8\"], timeout = \"400ms\" }";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// Version 2: a client at 192.0.2.9:4660 that connected to 198.51.100.1:443.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x09\xc6\x33\x64\x01\x12\x34\x01\xbb";
const V1: &str = "PROXY TCP4 192.0.2.9 198.51.100.1 4660 443\r\n";

async fn start(origin: &Origin, listener: &str) -> Gateway {
    Lines { listener, ..Lines::default() }.start(&[origin.address()]).await
}

async fn wait_refused(gateway: &Gateway, reason: &str) {
    let label = format!("reason=\"{reason}\"");
    eventually(&label, async || {
        (gateway.metric("sluice_listener_refused_total", &[&label]).await > 0.0).then_some(())
    })
    .await;
}

async fn wait_failure(gateway: &Gateway, code: &str) {
    let label = format!("code=\"{code}\"");
    eventually(&label, async || {
        (gateway.metric("sluice_failures_total", &[&label]).await > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_trusted_peer_says_who_its_client_is() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = start(&origin, TRUSTED).await;
    for header in [V1.as_bytes(), V2] {
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send([header, GET.as_bytes(), GET.as_bytes()].concat()).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(origin.last().field("x-forwarded-for"), Some("192.0.2.9"));
        assert_eq!(client.answer().await.status, 200, "bytes behind the header are not lost");
        let mut client = Wire::connect(gateway.address("web")).await;
        for byte in header {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        client.send(GET).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(origin.last().field("x-forwarded-for"), Some("192.0.2.9"));
    }
}

#[tokio::test]
async fn a_header_that_is_missing_malformed_or_late_closes_the_connection() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = start(&origin, TRUSTED).await;
    for (sent, reason) in [
        (GET.as_bytes(), "proxy-header-missing"),
        (b"PROXY TCP4 1.2.3.4 999.1.1.1 1 2\r\n", "proxy-header-bad-address"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "proxy-header-bad-version"),
    ] {
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send(sent).await.expect_closed().await;
        wait_refused(&gateway, reason).await;
    }
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send(&V2[..20]).await.expect_closed().await;
    wait_failure(&gateway, "client-timeout").await;
    let mut client = Wire::connect(gateway.address("web")).await;
    client.send("PROXY TC").await.half_close().await.expect_closed().await;
    wait_failure(&gateway, "client-gone").await;
    assert_eq!(origin.bytes(), 0);
}

#[tokio::test]
async fn a_header_from_anybody_else_is_garbage() {
    let origin = Origin::start(Reply::ok("x")).await;
    for listener in ["", "proxy_protocol = { from = [\"192.0.2.0/24\"] }"] {
        let gateway = start(&origin, listener).await;
        for header in [V1.as_bytes(), V2] {
            let mut client = Wire::connect(gateway.address("web")).await;
            client.send([header, GET.as_bytes()].concat()).await;
            assert_eq!(client.answer().await.status, 400);
        }
        let mut client = Wire::connect(gateway.address("web")).await;
        assert_eq!(client.send(GET).await.answer().await.status, 200);
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_header_may_be_left_to_the_peer() {
    let origin = Origin::start(Reply::ok("x")).await;
    let listener = "proxy_protocol = { from = [\"127.0.0.1\"], required = false, timeout = \"200ms\" }";
    let gateway = start(&origin, listener).await;
    for (header, client_address) in [(V1, "192.0.2.9"), ("", "127.0.0.1")] {
        let mut client = Wire::connect(gateway.address("web")).await;
        client.send(format!("{header}{GET}")).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(origin.last().field("x-forwarded-for"), Some(client_address));
    }
    let manual = ManualOrigin::start().await;
    let gateway = Tcp { listener, ..Tcp::default() }.start(&[manual.address()]).await;
    let mut client = Wire::connect(gateway.address("db")).await;
    // A client that waits for the server's first word gets it after the header's time.
    let mut endpoint = manual.accept().await;
    endpoint.send("hello").await;
    client.expect("hello").await;
}

#[tokio::test]
async fn a_tcp_listener_takes_the_header_off_and_knows_the_client() {
    let (inside, outside) = (ManualOrigin::start().await, ManualOrigin::start().await);
    let more = format!(
        "[[routes]]\nname = \"known\"\nmatch = {{ listeners = [\"db\"], source = [\"192.0.2.9\"] }}\n\
         forward = {{ upstream = \"known\" }}\n\n\
         [upstreams.known]\nendpoints = [\"{}\"]\nproxy_protocol = \"v1\"\n",
        inside.address()
    );
    let lines = Tcp { listener: TRUSTED, more: &more, ..Tcp::default() };
    let gateway = lines.start(&[outside.address()]).await;
    let mut client = Wire::connect(gateway.address("db")).await;
    client.send([V2, b"hello"].concat()).await;
    let mut endpoint = inside.accept().await;
    let port = gateway.address("db").port();
    endpoint.expect(format!("PROXY TCP4 192.0.2.9 127.0.0.1 4660 {port}\r\nhello")).await;
}

#[tokio::test]
async fn endpoints_are_told_the_client_before_anything_else() {
    let origin = ManualOrigin::start().await;
    let lines = Lines { upstream: "proxy_protocol = \"v1\"", ..Lines::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("web")).await;
    let (from, to) = (client.local_address(), gateway.address("web"));
    let line = format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
    for _ in 0..2 {
        client.send(GET).await;
        // Each request has a connection of its own: the header speaks for one client.
        let mut endpoint = origin.accept().await;
        endpoint.expect(&line).await;
        endpoint.request_head().await;
        endpoint.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").await;
        assert_eq!(client.answer().await.text(), "x");
        endpoint.expect_closed().await;
    }
    let lines = Tcp { upstream: "proxy_protocol = \"v2\"", ..Tcp::default() };
    let gateway = lines.start(&[origin.address()]).await;
    let mut client = Wire::connect(gateway.address("db")).await;
    let mut endpoint = origin.accept().await;
    let header = endpoint.read(28).await;
    assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(header[24..26], client.local_address().port().to_be_bytes());
    endpoint.send("first word").await;
    client.expect("first word").await;
}

#[tokio::test]
async fn health_checks_name_nobody() {
    let origin = ManualOrigin::start().await;
    for (version, header) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")] {
        let upstream =
            format!("proxy_protocol = \"{version}\"\nhealth = {{ http = {{ path = \"/well\" }} }}");
        let _gateway = Lines { upstream: &upstream, ..Lines::default() }.start(&[origin.address()]).await;
        let mut check = origin.accept().await;
        assert_eq!(check.read(header.len()).await, header);
        assert_eq!(check.request_head().await.target, "/well");
    }
}
