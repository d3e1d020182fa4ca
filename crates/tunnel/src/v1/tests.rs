//! Each row of the errors, sizes and cancellations of 1.0, byte by byte.

use bytes::{Buf, BytesMut};
use sluice_http::{NameId, RequestHead, ResponseHead};

use super::*;
use crate::event::{Answer, Call, Fault, Unsendable};
use crate::registration::Extensions;
use crate::text::Content;
use crate::websocket::{Received, Role};

const NOW: Duration = Duration::ZERO;

fn gateway() -> Gateway {
    Gateway::new(Settings::gateway(), (1, NOW))
}

fn connector() -> Connector {
    Connector::new(Settings::connector(), (1, NOW))
}

fn get() -> RequestHead {
    let mut head = RequestHead::new("GET", "/x");
    head.fields.append(NameId::Host, b"a");
    head
}

fn written(socket: &mut Socket) -> Vec<u8> {
    let out = socket.output();
    out.copy_to_bytes(out.remaining()).to_vec()
}

/// An event in a word or two.
fn said(answer: &Answer) -> String {
    match answer {
        Answer::Head(_, head) => format!("head {}", head.status),
        Answer::Data(_, bytes) => format!("data {}", bytes.escape_ascii()),
        Answer::Trailers(..) => "trailers".to_owned(),
        Answer::End(_) => "end".to_owned(),
        Answer::Failed(_, fault) => format!("{fault:?} {}", fault.status()),
        Answer::Resumed(_) => "resumed".to_owned(),
        Answer::Closed(ended) => match ended {
            Ended::Closed(Some(close)) => format!("closed {}", close.code),
            other => format!("{other:?}"),
        },
    }
}

fn asked(call: &Call) -> String {
    match call {
        Call::Request(_, head, content) => format!("{} {} {content:?}", head.method_text(), head.target()),
        Call::Data(_, bytes) => format!("data {}", bytes.escape_ascii()),
        Call::Trailers(..) => "trailers".to_owned(),
        Call::End(_) => "end".to_owned(),
        Call::Cancelled(_, cancel) => format!("{cancel:?}"),
        Call::Resumed(_) => "resumed".to_owned(),
        Call::Closed(Ended::Closed(Some(close))) => format!("closed {}", close.code),
        Call::Closed(other) => format!("{other:?}"),
    }
}

/// The frames of a connector: masked with zeroes.
fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = match length {
        ..126 => vec![opcode, 0x80 | length as u8],
        _ => [&[opcode, 0xfe][..], &(length as u16).to_be_bytes()].concat(),
    };
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    client_frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// What a gateway that has sent a GET makes of these bytes and then, maybe, of the end of the connection.
fn answered(frames: &[Vec<u8>], eof: bool) -> Vec<String> {
    let mut gateway = gateway();
    gateway.request(&get(), Content::None, NOW).unwrap();
    let mut buf = BytesMut::from(&frames.concat()[..]);
    let mut found: Vec<_> = std::iter::from_fn(|| gateway.receive(&mut buf, NOW)).collect();
    if eof && let Some(received) = gateway.socket().eof() {
        gateway.take(received, NOW);
        found.extend(std::iter::from_fn(|| gateway.receive(&mut buf, NOW)));
    }
    found.iter().map(said).collect()
}

fn head() -> Vec<u8> {
    client_frame(0x81, b"HTTP/1.1 200 OK\na:b\n")
}

#[test]
fn a_request_is_one_text_message_with_its_marker() {
    let mut gateway = gateway();
    gateway.request(&get(), Content::None, NOW).unwrap();
    gateway.data(Bytes::from_static(b"none"), NOW);
    gateway.end(NOW);
    assert_eq!(written(gateway.socket()), b"\x81\x1aGET /x HTTP/1.1\nHost:a\n\n_2".to_vec());
    assert_eq!(gateway.request(&get(), Content::None, NOW), Err(Unsendable::NotOpen));
}

#[test]
fn content_is_binary_messages_of_at_most_8_kib_and_a_lone_marker() {
    let mut gateway = gateway();
    gateway.request(&get(), Content::Unknown, NOW).unwrap();
    written(gateway.socket());
    gateway.data(Bytes::from(vec![b'x'; 8193]), NOW);
    gateway.end(NOW);
    gateway.end(NOW);
    let expected = [&b"\x82\x7e\x20\x00"[..], &[b'x'; 8192], b"\x82\x01x\x81\x02_3"].concat();
    assert_eq!(written(gateway.socket()), expected);
}

#[test]
fn a_head_at_the_limit_of_messages_passes_and_one_byte_more_is_refused() {
    let request = |length: usize| {
        let mut head = get();
        head.fields.append(NameId::UserAgent, &vec![b'x'; length]);
        gateway().request(&head, Content::None, NOW)
    };
    let rest = 26 + "User-Agent:\n".len();
    assert!(request(16 * 1024 - rest).is_ok());
    assert_eq!(request(16 * 1024 - rest + 1), Err(Unsendable::TooLarge));
}

#[test]
fn the_end_of_a_tunnel_is_read_so_that_the_client_can_tell() {
    let data = || client_frame(0x82, b"ab");
    let length =
        |length: &str| client_frame(0x81, format!("HTTP/1.1 200 OK\nContent-Length:{length}\n").as_bytes());
    type Case = (Vec<Vec<u8>>, bool, Vec<&'static str>);
    let cases: Vec<Case> = vec![
        (
            vec![head(), data(), close_frame(1000, "")],
            false,
            vec!["head 200", "data ab", "end", "closed 1000"],
        ),
        (vec![head(), close_frame(1000, "Proxy complete")], false, vec!["head 200", "end", "closed 1000"]),
        (
            vec![length("2"), data(), close_frame(1000, "")],
            false,
            vec!["head 200", "data ab", "end", "closed 1000"],
        ),
        (vec![close_frame(1000, "")], false, vec!["NoAnswer 502", "closed 1000"]),
        (
            vec![close_frame(1011, "java.net.ConnectException")],
            false,
            vec!["ConnectorFailed 502", "closed 1011"],
        ),
        (vec![close_frame(1008, "")], false, vec!["Refused 400", "closed 1008"]),
        (vec![close_frame(1001, "")], false, vec!["GoneAway 502", "closed 1001"]),
        (vec![close_frame(1009, "")], false, vec!["GoneAway 502", "closed 1009"]),
        (vec![client_frame(0x88, b"")], false, vec!["GoneAway 502", "Closed(None)"]),
        (vec![], true, vec!["Dropped 502", "Dropped"]),
        (vec![client_frame(0x81, b"nonsense")], false, vec!["BadHead 502", "Ours"]),
        (vec![client_frame(0x81, b"HTTP/1.1 101 X\n")], false, vec!["BadHead 502", "Ours"]),
        (vec![data()], false, vec!["Broken 502", "Broken(Unexpected)"]),
        (vec![head(), close_frame(1011, "")], false, vec!["head 200", "ConnectorFailed 502", "closed 1011"]),
        (vec![head(), close_frame(1001, "")], false, vec!["head 200", "GoneAway 502", "closed 1001"]),
        (vec![head(), data()], true, vec!["head 200", "data ab", "Dropped 502", "Dropped"]),
        (vec![head(), head()], false, vec!["head 200", "Broken 502", "Broken(Unexpected)"]),
        (
            vec![length("3"), data(), close_frame(1000, "")],
            false,
            vec!["head 200", "data ab", "WrongLength 502", "closed 1000"],
        ),
        (vec![length("1"), data()], false, vec!["head 200", "WrongLength 502", "Ours"]),
        (vec![head(), vec![0xff, 0xff]], false, vec!["head 200", "Broken 502", "Broken(Reserved)"]),
    ];
    for (frames, eof, expected) in cases {
        assert_eq!(answered(&frames, eof), expected, "{}", frames.concat().escape_ascii());
    }
}

#[test]
fn a_malformed_head_closes_the_tunnel_with_1011() {
    let mut gateway = gateway();
    gateway.request(&get(), Content::None, NOW).unwrap();
    written(gateway.socket());
    let mut buf = BytesMut::from(&client_frame(0x81, b"nonsense")[..]);
    while gateway.receive(&mut buf, NOW).is_some() {}
    assert_eq!(written(gateway.socket()), b"\x88\x09\x03\xf3ERRORED");
}

#[test]
fn an_answers_head_may_be_fragmented_and_has_a_limit() {
    let parts =
        [client_frame(0x01, b"HTTP/1.1 200"), client_frame(0x80, b" OK\na:b\n"), close_frame(1000, "")];
    assert_eq!(answered(&parts, false), ["head 200", "end", "closed 1000"]);
    let fragments = |last: usize| {
        let first = client_frame(0x01, &[b"HTTP/1.1 200 OK\na:", &[b'x'; 40_000][..]].concat());
        answered(&[first, client_frame(0x80, &vec![b'x'; last])], false)
    };
    let room = 65_536 - 40_018;
    assert_eq!(fragments(room), ["head 200"]);
    assert_eq!(fragments(room + 1), ["Broken 502", "Broken(MessageTooLarge)"]);
}

#[test]
fn content_may_be_in_fragments() {
    let parts = [
        head(),
        client_frame(0x02, b"ab"),
        client_frame(0x00, b"cd"),
        client_frame(0x80, b""),
        close_frame(1000, ""),
    ];
    assert_eq!(answered(&parts, false), ["head 200", "data ab", "data cd", "end", "closed 1000"]);
}

#[test]
fn an_answer_without_content_drops_what_comes() {
    let not_modified = client_frame(0x81, b"HTTP/1.1 304 Not Modified\nContent-Length:9\n");
    let parts = [not_modified, client_frame(0x82, b"x"), close_frame(1000, "")];
    assert_eq!(answered(&parts, false), ["head 304", "end", "closed 1000"]);
}

#[test]
fn a_silent_tunnel_is_a_timeout_before_and_after_the_head() {
    for (frames, expected) in
        [(vec![], vec!["Silent 504", "Silent"]), (head(), vec!["head 200", "Silent 504", "Silent"])]
    {
        let mut gateway = gateway();
        gateway.request(&get(), Content::None, NOW).unwrap();
        let mut buf = BytesMut::from(&frames[..]);
        let mut found: Vec<_> = std::iter::from_fn(|| gateway.receive(&mut buf, NOW)).collect();
        written(gateway.socket());
        let late = Duration::from_secs(60);
        let received = gateway.socket().tick(late).unwrap();
        gateway.take(received, late);
        found.extend(std::iter::from_fn(|| gateway.receive(&mut buf, late)));
        assert_eq!(found.iter().map(said).collect::<Vec<_>>(), expected);
        assert_eq!(written(gateway.socket()), b"\x88\x0b\x03\xe9TIMED_OUT");
    }
}

#[test]
fn a_client_that_goes_closes_the_tunnel_with_1001() {
    let mut gateway = gateway();
    gateway.request(&get(), Content::Unknown, NOW).unwrap();
    written(gateway.socket());
    gateway.give_up(NOW);
    gateway.data(Bytes::from_static(b"late"), NOW);
    assert_eq!(written(gateway.socket()), b"\x88\x0c\x03\xe9Going away");
    let mut buf = BytesMut::from(&[head(), close_frame(1000, "")].concat()[..]);
    let found: Vec<_> = std::iter::from_fn(|| gateway.receive(&mut buf, NOW)).collect();
    assert_eq!(found.iter().map(said).collect::<Vec<_>>(), ["Ours"]);
    assert!(gateway.socket().is_over());
}

#[test]
fn an_idle_tunnel_that_speaks_is_broken() {
    let mut gateway = gateway();
    let mut buf = BytesMut::from(&head()[..]);
    let found: Vec<_> = std::iter::from_fn(|| gateway.receive(&mut buf, NOW)).collect();
    assert_eq!(found.iter().map(said).collect::<Vec<_>>(), ["Broken(Unexpected)"]);
}

fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = match length {
        ..126 => vec![opcode, length as u8],
        _ => [&[opcode, 0x7e][..], &(length as u16).to_be_bytes()].concat(),
    };
    frame.extend_from_slice(payload);
    frame
}

/// What a connector makes of these frames.
fn called(connector: &mut Connector, frames: &[Vec<u8>]) -> Vec<String> {
    let mut buf = BytesMut::from(&frames.concat()[..]);
    std::iter::from_fn(|| connector.receive(&mut buf, NOW)).map(|call| asked(&call)).collect()
}

/// What a connector wrote, as a gateway's decoder reads it.
fn wrote(connector: &mut Connector) -> Vec<Received> {
    let mut server =
        Socket::new(Role::Server, limits(&Settings::gateway()), Settings::gateway().timing, (0, NOW));
    let mut buf = BytesMut::from(&written(connector.socket())[..]);
    std::iter::from_fn(|| server.receive(&mut buf, NOW)).collect()
}

fn closed(code: u16, reason: &str) -> Received {
    Received::Ended(Ended::Closed(Some(Close::new(code, reason))))
}

#[test]
fn a_connector_answers_and_closes_with_1000() {
    let mut connector = connector();
    let frames = [
        server_frame(0x81, b"POST /x HTTP/1.1\nContent-Length:3\n\n_1"),
        server_frame(0x82, b"abc"),
        server_frame(0x81, b"_3"),
    ];
    assert_eq!(called(&mut connector, &frames), ["POST /x Length(3)", "data abc", "end"]);
    let mut head = ResponseHead::new(200);
    head.fields.append(NameId::ContentType, b"text/plain");
    connector.respond(&head, NOW).unwrap();
    connector.data(Bytes::from_static(b"answer"), NOW);
    connector.end(NOW);
    let text = Bytes::from_static(b"HTTP/1.1 200 OK\nContent-Type:text/plain\n");
    let answer = Received::Binary(Bytes::from_static(b"answer"));
    assert_eq!(wrote(&mut connector), [Received::Text(text), answer, closed(1000, "")]);
    assert_eq!(called(&mut connector, &[server_frame(0x88, b"\x03\xe8")]), ["Ours"]);
}

#[test]
fn a_connector_without_an_answer_closes_with_1011() {
    let mut connector = connector();
    called(&mut connector, &[server_frame(0x81, b"GET / HTTP/1.1\n\n_2")]);
    connector.fail(&"target refused ".repeat(20), NOW);
    let reason = "target refused ".repeat(20)[..123].to_owned();
    assert_eq!(wrote(&mut connector), [closed(1011, &reason)]);
    assert_eq!(connector.respond(&ResponseHead::new(200), NOW), Err(Unsendable::NotOpen));
}

#[test]
fn a_connector_gives_the_call_up_when_the_tunnel_ends() {
    let request = || server_frame(0x81, b"POST / HTTP/1.1\n\n_1");
    let start = "POST / Unknown".to_owned();
    for (frame, expected) in [
        (server_frame(0x88, b"\x03\xe9Going away"), ["ClientGone", "closed 1001"]),
        (server_frame(0x88, b"\x03\xf3"), ["Closed", "closed 1011"]),
        (server_frame(0x81, b"text"), ["Broken", "Broken(Unexpected)"]),
        (vec![0xff], ["", ""]),
    ] {
        let mut connector = connector();
        let found = called(&mut connector, &[request(), frame]);
        let expected: Vec<_> =
            expected.iter().filter(|it| !it.is_empty()).map(|it| (*it).to_owned()).collect();
        assert_eq!(found, [vec![start.clone()], expected].concat());
    }
    let mut connector = connector();
    called(&mut connector, &[request()]);
    let received = connector.socket().eof().unwrap();
    connector.take(received, NOW);
    assert_eq!(called(&mut connector, &[]), ["Dropped", "Dropped"]);
}

#[test]
fn a_silent_gateway_is_closed_with_1011() {
    let mut connector = connector();
    called(&mut connector, &[server_frame(0x81, b"GET / HTTP/1.1\n\n_2")]);
    let late = Duration::from_secs(20);
    let received = connector.socket().tick(late).unwrap();
    connector.take(received, late);
    assert_eq!(called(&mut connector, &[]), ["Silent", "Silent"]);
    assert_eq!(wrote(&mut connector), [closed(1011, "No message received from router socket")]);
}

#[test]
fn a_malformed_or_too_large_request_closes_the_tunnel() {
    let mut malformed = connector();
    assert_eq!(called(&mut malformed, &[server_frame(0x81, b"nonsense")]), ["Ours"]);
    assert_eq!(wrote(&mut malformed), [closed(1011, "malformed request head")]);
    let sized = |size: usize| {
        let text = [b"GET / HTTP/1.1\na:", &vec![b'x'; size - 21][..], b"\n\n_2"].concat();
        let (first, second) = text.split_at(size / 2);
        let mut connector = connector();
        let found = called(&mut connector, &[server_frame(0x01, first), server_frame(0x80, second)]);
        (found, connector)
    };
    assert_eq!(sized(65_536).0, ["GET / None", "end"]);
    let (found, mut large) = sized(65_537);
    assert_eq!(found, ["Broken(MessageTooLarge)"]);
    assert_eq!(wrote(&mut large), [closed(1009, "protocol error")]);
}

#[test]
fn an_upload_of_the_wrong_length_is_given_up() {
    let request = || server_frame(0x81, b"POST / HTTP/1.1\nContent-Length:2\n\n_1");
    let start = "POST / Length(2)";
    let found = called(&mut connector(), &[request(), server_frame(0x82, b"a"), server_frame(0x81, b"_3")]);
    assert_eq!(found, [start, "data a", "WrongLength", "Ours"]);
    let found = called(&mut connector(), &[request(), server_frame(0x82, b"abc")]);
    assert_eq!(found, [start, "WrongLength", "Ours"]);
    let found =
        called(&mut connector(), &[server_frame(0x81, b"GET / HTTP/1.1\n\n_2"), server_frame(0x82, b"a")]);
    assert_eq!(found, ["GET / None", "end", "Broken", "Broken(Unexpected)"]);
    let empty = server_frame(0x81, b"POST / HTTP/1.1\nContent-Length:0\n\n_1");
    let found = called(&mut connector(), &[empty, server_frame(0x81, b"_3")]);
    assert_eq!(found, ["POST / Length(0)", "end"]);
}

/// Passes everything on, both ways, until nothing moves; says what each heard.
fn converse(gateway: &mut Gateway, connector: &mut Connector) -> (Vec<String>, Vec<String>) {
    let (mut answers, mut calls) = (Vec::new(), Vec::new());
    let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
    loop {
        down.extend_from_slice(&written(gateway.socket()));
        up.extend_from_slice(&written(connector.socket()));
        let before = (answers.len(), calls.len());
        calls.extend(std::iter::from_fn(|| connector.receive(&mut down, NOW)).map(|call| asked(&call)));
        answers.extend(std::iter::from_fn(|| gateway.receive(&mut up, NOW)).map(|answer| said(&answer)));
        if before == (answers.len(), calls.len()) {
            return (answers, calls);
        }
    }
}

fn pair(extensions: Extensions) -> (Gateway, Connector) {
    (
        Gateway::new(Settings { extensions, ..Settings::gateway() }, (1, NOW)),
        Connector::new(Settings { extensions, ..Settings::connector() }, (2, NOW)),
    )
}

#[test]
fn an_upgrade_carries_bytes_both_ways_until_both_have_ended() {
    let (mut gateway, mut connector) = pair(Extensions::ALL);
    let mut head = get();
    head.fields.append(NameId::Connection, b"Upgrade");
    head.fields.append(NameId::Upgrade, b"websocket");
    gateway.request(&head, Content::None, NOW).unwrap();
    assert_eq!(converse(&mut gateway, &mut connector).1, ["GET /x Unknown"]);
    let mut switched = ResponseHead::new(101);
    switched.fields.append(NameId::Connection, b"Upgrade");
    switched.fields.append(NameId::Upgrade, b"websocket");
    connector.respond(&switched, NOW).unwrap();
    connector.data(Bytes::from_static(b"down"), NOW);
    gateway.data(Bytes::from_static(b"up"), NOW);
    connector.end(NOW);
    let (answers, calls) = converse(&mut gateway, &mut connector);
    assert_eq!(
        (answers, calls),
        (vec!["head 101".into(), "data down".into(), "end".into()], vec!["data up".to_owned()])
    );
    gateway.data(Bytes::from_static(b"more"), NOW);
    gateway.end(NOW);
    let (answers, calls) = converse(&mut gateway, &mut connector);
    assert_eq!(
        (answers, calls),
        (vec!["closed 1000".to_owned()], vec!["data more".into(), "end".into(), "Ours".into()])
    );
}

#[test]
fn an_upgrade_stays_here_when_the_peer_does_not_know_it() {
    let (mut gateway, mut connector) = pair(Extensions::NONE);
    let mut head = get();
    head.fields.append(NameId::Connection, b"Upgrade");
    head.fields.append(NameId::Upgrade, b"websocket");
    gateway.request(&head, Content::None, NOW).unwrap();
    assert_eq!(converse(&mut gateway, &mut connector).1, ["GET /x None", "end"]);
}

#[test]
fn a_fault_is_named_by_what_happened() {
    assert_eq!(Fault::of(&Ended::Silent).status(), 504);
    assert_eq!(Fault::of(&Ended::Dropped).code(), "tunnel-dropped");
}
