//! Malformed requests: each gets its status and a problem with a code, its connection is closed, and not one
//! byte of it reaches an endpoint.

use sluice_testkit::{Origin, Reply, Wire};

use crate::forward::gateway;

const HOST: &str = "Host: a\r\n";

/// A request, what it is, and the status it must get.
struct Bad {
    what: &'static str,
    bytes: String,
    status: u16,
}

fn bad(what: &'static str, status: u16, bytes: impl Into<String>) -> Bad {
    Bad { what, bytes: bytes.into(), status }
}

fn start_lines() -> Vec<Bad> {
    vec![
        bad("no target", 400, "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("two spaces", 400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a space in the target", 400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a tab for a space", 400, "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a space before the method", 400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a method with a slash", 400, "G/T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a target without a slash", 400, "GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a control byte in the target", 400, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("no version", 400, "GET /\r\nHost: a\r\n\r\n"),
        bad("version 2", 505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        bad("version 1.2", 505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        bad("lines end in LF", 400, "GET / HTTP/1.1\nHost: a\n\n"),
        bad("the start line ends in LF", 400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        bad("a long target", 414, format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9_000))),
        bad("TLS on a plain port", 400, "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\r\n\r\n"),
    ]
}

fn fields() -> Vec<Bad> {
    let with = |line: &str| format!("GET / HTTP/1.1\r\n{HOST}{line}\r\n\r\n");
    vec![
        bad("no Host", 400, "GET / HTTP/1.1\r\n\r\n"),
        bad("two Hosts", 400, with("Host: b")),
        bad("two equal Hosts", 400, with("Host: a")),
        bad("a Host with a path", 400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        bad("a Host with a space", 400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        bad("a Host with a user", 400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        bad("a Host with a bad port", 400, "GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n"),
        bad("a Host that differs from the target's", 400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        bad("a space before the colon", 400, with("X-A : 1")),
        bad("no colon", 400, with("X-A")),
        bad("no name", 400, with(": 1")),
        bad("a name with a space", 400, with("X A: 1")),
        bad("a name with a bracket", 400, with("X(A): 1")),
        bad("a folded line", 400, with("X-A: 1\r\n  2")),
        bad("a first line that is folded", 400, format!("GET / HTTP/1.1\r\n {HOST}\r\n")),
        bad("a zero byte in a value", 400, with("X-A: a\0b")),
        bad("a control byte in a value", 400, with("X-A: a\x01b")),
        bad("DEL in a value", 400, with("X-A: a\x7fb")),
        bad("a bare CR in a value", 400, with("X-A: a\rb")),
        bad("a bare LF in a value", 400, with("X-A: a\nX-B: b")),
        bad("a long line", 431, with(&format!("X-A: {}", "x".repeat(9_000)))),
        bad("a large head", 431, with(&format!("X-A: {0}\r\nX-B: {0}\r\nX-C: {0}", "x".repeat(7_000)))),
        bad("many fields", 431, with(&"X-A: 1\r\n".repeat(200))),
    ]
}

fn framing() -> Vec<Bad> {
    let with = |lines: &str| format!("POST / HTTP/1.1\r\n{HOST}{lines}\r\n\r\n");
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        bad("length and encoding", 400, with("Content-Length: 5\r\nTransfer-Encoding: chunked") + smuggled),
        bad("encoding and length", 400, with("Transfer-Encoding: chunked\r\nContent-Length: 5") + smuggled),
        bad("two lengths", 400, with("Content-Length: 5\r\nContent-Length: 6") + "hello!"),
        bad("a list of lengths", 400, with("Content-Length: 5, 6") + "hello!"),
        bad("a length with a sign", 400, with("Content-Length: +5") + "hello"),
        bad("a negative length", 400, with("Content-Length: -5") + "hello"),
        bad("a length in hexadecimal", 400, with("Content-Length: 0x5") + "hello"),
        bad("an empty length", 400, with("Content-Length: ")),
        bad("a length of letters", 400, with("Content-Length: five")),
        bad("a length beyond 64 bits", 400, with("Content-Length: 99999999999999999999")),
        bad("an unknown coding", 501, with("Transfer-Encoding: gzip")),
        bad("a coding before chunked", 501, with("Transfer-Encoding: gzip, chunked") + smuggled),
        bad("chunked is not last", 400, with("Transfer-Encoding: chunked, identity") + smuggled),
        bad("chunked twice", 400, with("Transfer-Encoding: chunked, chunked") + smuggled),
        bad(
            "chunked in two fields",
            400,
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") + smuggled,
        ),
        bad("a coding in disguise", 501, with("Transfer-Encoding: xchunked") + smuggled),
        bad("an empty encoding", 400, with("Transfer-Encoding: ")),
        bad(
            "chunks in HTTP/1.0",
            400,
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned() + smuggled,
        ),
    ]
}

fn chunks() -> Vec<Bad> {
    let with = |body: &str| format!("POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n{body}");
    vec![
        bad("no size", 400, with("\r\nabc\r\n0\r\n\r\n")),
        bad("a size with a sign", 400, with("+3\r\nabc\r\n0\r\n\r\n")),
        bad("a size with a prefix", 400, with("0x3\r\nabc\r\n0\r\n\r\n")),
        bad("a size of letters", 400, with("xyz\r\nabc\r\n0\r\n\r\n")),
        bad("a size of 17 digits", 400, with("00000000000000003\r\nabc\r\n0\r\n\r\n")),
        bad("a size line that ends in LF", 400, with("3\nabc\r\n0\r\n\r\n")),
        bad("a space before the size", 400, with(" 3\r\nabc\r\n0\r\n\r\n")),
        bad("a chunk longer than its size", 400, with("3\r\nabcd\r\n0\r\n\r\n")),
        bad("a bare CR in an extension", 400, with("3;a\rb\r\nabc\r\n0\r\n\r\n")),
        bad("a trailer without a colon", 400, with("3\r\nabc\r\n0\r\nX\r\n\r\n")),
        bad("a trailer that frames", 400, with("3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n")),
    ]
}

/// Sends each on a connection of its own; all that went wrong, at once.
async fn wrong(requests: Vec<Bad>, may_reach_an_endpoint: bool) -> Vec<String> {
    let origin = Origin::start(Reply::ok("must not be seen")).await;
    let gateway = gateway(&[origin.address()]).await;
    let mut wrong = Vec::new();
    for Bad { what, bytes, status } in requests {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send(&bytes).await;
        match wire.try_answer_to("GET").await {
            Err(problem) => wrong.push(format!("{what}: {problem}")),
            Ok(answer) if answer.status != status => {
                wrong.push(format!("{what}: {} instead of {status}", answer.status));
            }
            Ok(answer) => {
                if answer.field("content-type") != Some("application/problem+json")
                    || answer.code().is_empty()
                {
                    wrong.push(format!("{what}: not a problem: {}", answer.text()));
                }
                if !wire.read_to_end().await.is_empty() {
                    wrong.push(format!("{what}: something followed the refusal"));
                }
            }
        }
        if !may_reach_an_endpoint && origin.bytes() > 0 {
            wrong.push(format!("{what}: {} bytes reached the endpoint", origin.bytes()));
            break;
        }
        if origin.requests().iter().any(|request| request.target.contains("smuggled")) {
            wrong.push(format!("{what}: the smuggled request reached the endpoint"));
            break;
        }
    }
    wrong
}

#[tokio::test]
async fn malformed_start_lines_are_refused() {
    assert_eq!(wrong(start_lines(), false).await, Vec::<String>::new());
}

#[tokio::test]
async fn malformed_fields_are_refused() {
    assert_eq!(wrong(fields(), false).await, Vec::<String>::new());
}

#[tokio::test]
async fn ambiguous_framing_is_refused() {
    assert_eq!(wrong(framing(), false).await, Vec::<String>::new());
}

#[tokio::test]
async fn malformed_chunks_are_refused_and_the_request_never_completes() {
    // A body streams, so its head may have gone ahead; the endpoint must not see a complete request.
    assert_eq!(wrong(chunks(), true).await, Vec::<String>::new());
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    for Bad { bytes, .. } in chunks() {
        Wire::connect(gateway.address("web")).await.send(bytes).await.read_to_end().await;
    }
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    for _ in 0..3 {
        let mut wire = Wire::connect(gateway.address("web")).await;
        wire.send("GET / HTTP/1.1\r\n\r\n").await.answer().await;
    }
    let metrics = gateway.metrics().await;
    let counted = metrics.iter().filter(|(name, _)| name.contains("host-missing")).map(|(_, value)| value);
    assert_eq!(counted.sum::<f64>(), 3.0, "{metrics:#?}");
}
