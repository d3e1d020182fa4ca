//! Forward proxying: where clients may go, how they get there, and what happens when they do not.

mod clients;
mod dns;

use std::net::{Ipv4Addr, SocketAddr};

use sluice_testkit::{Gateway, ManualOrigin, Origin, Reply, Wire, free_port, within};

use crate::http2::client::{Client, finish, send_all};
use dns::Dns;

/// A rule that lets everybody go to loopback.
const LOOPBACK: &str = "allow = [{ networks = [\"127.0.0.0/8\"], ports = [\"1-65535\"] }]\n";

/// The document of a forward proxy with this content of its table, and more tables.
fn document(proxy: &str, more: &str) -> String {
    format!(
        "[process]\nworkers = 1\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
         [listeners.proxy]\naddress = \"127.0.0.1:0\"\n\n{more}\n\
         [[routes]]\nname = \"proxy\"\n[routes.forward_proxy]\n{proxy}\n"
    )
}

async fn gateway(proxy: &str) -> Gateway {
    Gateway::start(&document(proxy, "")).await
}

fn plain(to: impl std::fmt::Display, path: &str) -> String {
    format!(
        "GET http://{to}{path} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n\r\n"
    )
}

fn connect(to: impl std::fmt::Display) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n")
}

/// Sends a request on a connection of its own; the status and the code of the failure, if there is one.
async fn outcome(gateway: &Gateway, request: &str) -> (u16, String) {
    let mut wire = Wire::connect(gateway.address("proxy")).await;
    let method = request.split(' ').next().unwrap();
    let answer = wire.send(request).await.answer_to(method).await;
    let code = if answer.status >= 400 { answer.code() } else { String::new() };
    (answer.status, code)
}

#[tokio::test]
async fn a_plain_request_goes_on_as_the_destination_knows_it() {
    let origin = Origin::start(Reply::ok("body").field("X-Answer", "1")).await;
    let gateway = gateway(LOOPBACK).await;
    let mut wire = Wire::connect(gateway.address("proxy")).await;
    for _ in 0..2 {
        let answer = wire.send(plain(origin.address(), "/a%20b?q=1")).await.answer().await;
        assert_eq!(
            (answer.status, answer.text().as_str(), answer.field("x-answer")),
            (200, "body", Some("1"))
        );
    }
    let seen = origin.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/a%20b?q=1"));
    assert_eq!(seen.field("host"), Some(origin.address().to_string().as_str()));
    assert_eq!(seen.field("via"), Some("1.1 sluice"));
    for name in ["proxy-authorization", "proxy-connection", "x-forwarded-for", "x-request-id", "forwarded"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!(origin.connections(), 1, "the second request takes the first one's connection");
}

#[tokio::test]
async fn what_destinations_are_told_can_be_chosen() {
    let origin = Origin::start(Reply::ok("")).await;
    for (tell, via, forwarded) in [("nothing", None, None), ("client", Some("1.1 sluice"), Some("127.0.0.1"))]
    {
        let gateway = gateway(&format!("{LOOPBACK}tell = \"{tell}\"\n")).await;
        outcome(&gateway, &plain(origin.address(), "/")).await;
        let seen = origin.last();
        assert_eq!((seen.field("via"), seen.field("x-forwarded-for")), (via, forwarded), "{tell}");
    }
}

#[tokio::test]
async fn filters_of_the_route_change_what_passes() {
    let origin = Origin::start(Reply::ok("").field("X-Secret", "1")).await;
    let document = document(LOOPBACK, "").replace(
        "[routes.forward_proxy]",
        "filters = [{ headers = { request = { set = { X-Seen = \"yes\" } }, response = { remove = [\"X-Secret\"] } } }]\n\
         [routes.forward_proxy]",
    );
    let gateway = Gateway::start(&document).await;
    let mut wire = Wire::connect(gateway.address("proxy")).await;
    let answer = wire.send(plain(origin.address(), "/")).await.answer().await;
    assert_eq!((answer.status, answer.field("x-secret")), (200, None));
    assert_eq!(origin.last().field("x-seen"), Some("yes"));
}

#[tokio::test]
async fn without_rules_loopback_and_private_addresses_are_denied() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway("").await;
    let port = origin.address().port();
    for request in [
        plain(origin.address(), "/"),
        plain(format!("localhost:{port}"), "/"),
        plain(format!("[::ffff:127.0.0.1]:{port}"), "/"),
        plain(format!("[::ffff:7f00:1]:{port}"), "/"),
        connect("127.0.0.1:443"),
        connect("localhost:443"),
        connect("a.localhost.:443"),
        connect("[::1]:443"),
        connect("10.0.0.1:443"),
        connect("169.254.169.254:443"),
        connect("[64:ff9b::127.0.0.1]:443"),
        connect("0.0.0.0:443"),
        connect("1.1.1.1:25"),
    ] {
        let denied = (403, "destination-denied".to_owned());
        assert_eq!(outcome(&gateway, &request).await, denied, "{request}");
    }
    // Other spellings of an address are names, and there are no such names.
    for host in ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"] {
        assert_eq!(outcome(&gateway, &connect(format!("{host}:443"))).await.1, "dns-failed", "{host}");
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_request_without_a_destination_is_refused_and_does_not_loop() {
    let gateway = gateway(LOOPBACK).await;
    let host = gateway.address("proxy");
    let origin_form = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let https = format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for request in [origin_form, https] {
        assert_eq!(outcome(&gateway, &request).await, (400, "not-proxied".to_owned()), "{request}");
    }
    // Through itself: absolute form becomes origin form, which it refuses.
    assert_eq!(outcome(&gateway, &plain(host, "/")).await.0, 400);
}

#[tokio::test]
async fn names_are_looked_up_and_their_addresses_checked() {
    let origin = Origin::start(Reply::ok("found")).await;
    let SocketAddr::V4(site) = origin.address() else { panic!("{}", origin.address()) };
    let (site, port) = (*site.ip(), site.port());
    let dns = Dns::start(&[
        ("site.test", &[site]),
        ("mixed.test", &[Ipv4Addr::new(10, 0, 0, 1), site]),
        ("rebound.test", &[Ipv4Addr::new(10, 0, 0, 1)]),
        ("denied.test", &[site]),
    ])
    .await;
    let rules = format!("deny = [{{ hosts = [\"denied.test\"] }}]\n{LOOPBACK}");
    let gateway = Gateway::start(&document(&rules, &dns.table())).await;
    for (host, status, code) in [
        ("site.test", 200, ""),
        ("SITE.test.", 200, ""),
        ("mixed.test", 200, ""),
        ("rebound.test", 403, "destination-denied"),
        ("denied.test", 403, "destination-denied"),
        ("gone.test", 502, "dns-failed"),
        ("silent.test", 504, "dns-timeout"),
    ] {
        let found = outcome(&gateway, &plain(format!("{host}:{port}"), "/")).await;
        assert_eq!(found, (status, code.to_owned()), "{host}");
    }
    let asked = dns.asked();
    assert!(!asked.contains(&"denied.test".to_owned()), "{asked:?}");
    // One question for each family; that there is no IPv6 address is not kept, as nothing says for how long.
    assert_eq!(asked.iter().filter(|name| *name == "site.test").count(), 3, "{asked:?}");
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_both_ends() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(LOOPBACK).await;
    let mut client = Wire::connect(gateway.address("proxy")).await;
    // The first bytes of the tunnel come with the request.
    client.send(format!("{}early", connect(origin.address()))).await;
    let mut server = origin.accept().await;
    let answer = client.head().await;
    assert_eq!(
        (answer.status, answer.field("content-length"), answer.field("transfer-encoding")),
        (200, None, None)
    );
    server.expect("early").await.send("first").await;
    client.expect("first").await.send("last").await.half_close().await;
    server.expect("last").await.expect_closed().await;
    server.send("after the client's end").await.half_close().await;
    client.expect("after the client's end").await.expect_closed().await;
}

#[tokio::test]
async fn a_server_may_speak_first_and_a_break_is_passed_on() {
    let origin = ManualOrigin::start().await;
    let gateway = gateway(LOOPBACK).await;
    let mut client = Wire::connect(gateway.address("proxy")).await;
    client.send(connect(origin.address())).await;
    let mut server = origin.accept().await;
    server.send("220 hello\r\n").await;
    assert_eq!(client.head().await.status, 200);
    client.expect("220 hello\r\n").await;
    server.reset();
    assert!(client.try_read_to_end().await.is_err());
}

#[tokio::test]
async fn a_failed_dial_is_an_answer_and_the_connection_goes_on() {
    let origin = Origin::start(Reply::ok("still here")).await;
    let gateway = gateway(LOOPBACK).await;
    let mut wire = Wire::connect(gateway.address("proxy")).await;
    let nobody = format!("127.0.0.1:{}", free_port());
    for request in [connect(&nobody), plain(&nobody, "/")] {
        let answer = wire.send(&request).await.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "connect-failed"), "{request}");
    }
    let answer = wire.send(plain(origin.address(), "/")).await.answer().await;
    assert_eq!(answer.text(), "still here");
}

#[tokio::test]
async fn connect_is_only_for_routes_that_proxy() {
    let origin = Origin::start(Reply::ok("")).await;
    let document = format!(
        "{}[[routes]]\nname = \"more specific\"\nmatch = {{ path_prefix = \"/\", hosts = [\"127.0.0.1\"] }}\n\
         respond = {{ status = 204 }}\n",
        document(LOOPBACK, "")
    );
    let gateway = Gateway::start(&document).await;
    assert_eq!(outcome(&gateway, &connect(origin.address())).await.0, 200);
    let ordinary = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    assert_eq!(outcome(&gateway, ordinary).await.0, 204);
    let (reloaded, _) = document.split_once("[[routes]]\nname = \"proxy\"").unwrap();
    let alone = format!("{reloaded}[[routes]]\nname = \"site\"\nrespond = {{ status = 204 }}\n");
    gateway.reload(&alone).await;
    assert_eq!(outcome(&gateway, &connect(origin.address())).await, (405, "method-not-allowed".to_owned()));
}

fn parent(address: SocketAddr, more: &str) -> String {
    format!("parent = {{ address = \"{address}\"{more} }}\n")
}

#[tokio::test]
async fn a_parent_is_asked_with_our_credentials_and_its_first_bytes_are_kept() {
    let origin = ManualOrigin::start().await;
    let rules = parent(origin.address(), ", authorization = { user = \"u\", password = \"p\" }");
    let gateway = gateway(&format!("allow = [{{ hosts = [\"*.test\"] }}]\n{rules}")).await;
    let mut client = Wire::connect(gateway.address("proxy")).await;
    client.send(connect("far.test:443")).await;
    let mut server = origin.accept().await;
    let asked = server.request_head().await;
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("CONNECT", "far.test:443"));
    assert_eq!(asked.field("proxy-authorization"), Some("Basic dTpw"));
    server.send("HTTP/1.1 200 Connection established\r\n\r\nhello").await;
    assert_eq!(client.head().await.status, 200);
    client.expect("hello").await.send("hi").await;
    server.expect("hi").await;
    let mut client = Wire::connect(gateway.address("proxy")).await;
    client.send(connect("far.test:443")).await;
    let mut server = origin.accept().await;
    server.request_head().await;
    server
        .send("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "parent-refused"));
    assert_eq!(answer.field("proxy-authenticate"), None);
}

#[tokio::test]
async fn two_gateways_make_a_chain() {
    let origin = Origin::start(Reply::ok("far")).await;
    let far = gateway(LOOPBACK).await;
    let near = gateway(&format!("{LOOPBACK}{}", parent(far.address("proxy"), ", resolve = true"))).await;
    let mut wire = Wire::connect(near.address("proxy")).await;
    let answer = wire.send(plain(origin.address(), "/x")).await.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "far"));
    assert_eq!(origin.last().fields.all("via").collect::<Vec<_>>().join(", "), "1.1 sluice, 1.1 sluice");
    wire.send(connect(origin.address())).await;
    assert_eq!(wire.head().await.status, 200);
    let answer = wire.send("GET /inner HTTP/1.1\r\nHost: x\r\n\r\n").await.answer().await;
    assert_eq!((answer.text().as_str(), origin.last().target.as_str()), ("far", "/inner"));
    let denied = outcome(&near, &connect("10.0.0.1:443")).await;
    assert_eq!(denied, (403, "destination-denied".to_owned()));
}

#[tokio::test]
async fn http2_clients_get_requests_and_tunnels() {
    let origin = Origin::start(Reply::ok("over HTTP/2")).await;
    let site = ManualOrigin::start().await;
    let gateway = gateway(LOOPBACK).await;
    let mut client = Client::connect(gateway.address("proxy")).await;
    let uri = format!("http://{}/page", origin.address());
    let (answer, _) = client.begin(http::Request::get(uri).body(()).unwrap(), true).await;
    let answer = finish(answer).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "over HTTP/2"));
    assert_eq!(origin.last().field("host"), Some(origin.address().to_string().as_str()));
    let connect = |to: String| http::Request::connect(to).body(()).unwrap();
    let (answer, mut up) = client.begin(connect(site.address().to_string()), false).await;
    let mut server = site.accept().await;
    let mut down = within("the tunnel", answer).await.unwrap().into_body();
    send_all(&mut up, "to the server".into(), None).await;
    server.expect("to the server").await.send("to the client").await.half_close().await;
    let piece = within("bytes", down.data()).await.unwrap().unwrap();
    assert_eq!(piece, "to the client");
    // The end may come with an empty frame.
    while let Some(piece) = within("the end", down.data()).await {
        assert!(piece.unwrap().is_empty());
    }
    let (answer, _) = client.begin(connect("10.0.0.1:443".to_owned()), true).await;
    assert_eq!(finish(answer).await.status, 403);
    let https = http::Request::get("https://127.0.0.1/").body(()).unwrap();
    let (answer, _) = client.begin(https, true).await;
    assert_eq!(finish(answer).await.status, 400);
}
