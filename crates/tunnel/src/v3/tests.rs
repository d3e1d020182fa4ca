//! Each row of 3.0's frames, streams, flow control and errors, byte by byte.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;
use sluice_http::{Fields, NameId, RequestHead, ResponseHead};

use super::frame::{self, Frame, Last, Part};
use super::*;
use crate::event::{Answer, Call, StreamId, Unsendable};
use crate::registration::Extensions;
use crate::settings::Settings;
use crate::text::Content;
use crate::websocket::{Binary, Close, Decoder, Ended, Limits, Message, Role, Socket};

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

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Head(id, head) => format!("{} head {}", id.0, head.status),
        Answer::Data(id, bytes) => format!("{} data {}", id.0, shown(bytes)),
        Answer::Trailers(id, fields) => format!("{} trailers {}", id.0, fields.len()),
        Answer::End(id) => format!("{} end", id.0),
        Answer::Failed(id, fault) => format!("{} {fault:?}", id.0),
        Answer::Resumed(id) => format!("{} resumed", id.0),
        Answer::Closed(ended) => closed(ended),
    }
}

fn asked(call: &Call) -> String {
    match call {
        Call::Request(id, head, content) => format!("{} {} {content:?}", id.0, head.target()),
        Call::Data(id, bytes) => format!("{} data {}", id.0, shown(bytes)),
        Call::Trailers(id, fields) => format!("{} trailers {}", id.0, fields.len()),
        Call::End(id) => format!("{} end", id.0),
        Call::Cancelled(id, cancel) => format!("{} {cancel:?}", id.0),
        Call::Resumed(id) => format!("{} resumed", id.0),
        Call::Closed(ended) => closed(ended),
    }
}

fn closed(ended: &Ended) -> String {
    match ended {
        Ended::Closed(Some(close)) => format!("closed {}", close.code),
        other => format!("{other:?}"),
    }
}

fn shown(bytes: &Bytes) -> String {
    if bytes.len() > 20 { bytes.len().to_string() } else { bytes.escape_ascii().to_string() }
}

/// What a socket wants to write.
fn written(socket: &mut Socket) -> Vec<u8> {
    let out = socket.output();
    out.copy_to_bytes(out.remaining()).to_vec()
}

/// The frames in what a side wrote.
fn frames(socket: &mut Socket, reader: Role) -> Vec<Frame> {
    let limits = Limits { text: 0, binary: Binary::Whole(1 << 20) };
    let (mut decoder, mut buf) = (Decoder::new(reader, limits), BytesMut::from(&written(socket)[..]));
    let mut found = Vec::new();
    while let Some(message) = decoder.decode(&mut buf).unwrap() {
        if let Message::Binary(bytes) = message {
            found.push(frame::read(bytes).unwrap());
        }
    }
    found
}

/// A binary message in one frame, from a connector (masked with zeroes) or a gateway.
fn message(sender: Role, payload: &[u8]) -> Vec<u8> {
    let mask: &[u8] = if sender == Role::Client { &[0; 4] } else { &[] };
    let bit = if sender == Role::Client { 0x80 } else { 0 };
    let header = match payload.len() {
        length @ ..126 => vec![0x82, bit | length as u8],
        length @ 126..0x1_0000 => [&[0x82, bit | 126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[0x82, bit | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&header, mask, payload].concat()
}

fn to_gateway(gateway: &mut Gateway, payloads: &[Vec<u8>]) -> Vec<String> {
    let bytes: Vec<u8> = payloads.iter().flat_map(|payload| message(Role::Client, payload)).collect();
    let mut buf = BytesMut::from(&bytes[..]);
    std::iter::from_fn(|| gateway.receive(&mut buf, NOW)).map(|answer| said(&answer)).collect()
}

fn to_connector(connector: &mut Connector, payloads: &[Vec<u8>]) -> Vec<String> {
    let bytes: Vec<u8> = payloads.iter().flat_map(|payload| message(Role::Server, payload)).collect();
    let mut buf = BytesMut::from(&bytes[..]);
    std::iter::from_fn(|| connector.receive(&mut buf, NOW)).map(|call| asked(&call)).collect()
}

fn head(id: i32, text: &str) -> Vec<u8> {
    [&frame::head(id, Last::No, Part::Final)[..], text.as_bytes()].concat()
}

fn data(id: i32, bytes: &[u8], last: Last) -> Vec<u8> {
    [&frame::data(id, last)[..], bytes].concat()
}

/// A gateway with so many GETs sent, and nothing to write.
fn asking(count: usize) -> Gateway {
    let mut gateway = gateway();
    for _ in 0..count {
        gateway.request(&get(), Content::None, NOW).unwrap();
    }
    written(gateway.socket());
    gateway
}

#[test]
fn a_gateway_numbers_its_streams_and_a_get_is_one_frame() {
    let mut gateway = gateway();
    gateway.request(&get(), Content::None, NOW).unwrap();
    let second = gateway.request(&get(), Content::Length(2), NOW).unwrap();
    gateway.data(second, Bytes::from_static(b"ab"), NOW);
    gateway.end(second, NOW);
    gateway.end(second, NOW);
    gateway.data(second, Bytes::from_static(b"late"), NOW);
    let text = Bytes::from_static(b"GET /x HTTP/1.1\nHost:a\n\n");
    let with_length = Bytes::from_static(b"GET /x HTTP/1.1\nHost:a\nContent-Length:2\n\n");
    assert_eq!(
        frames(gateway.socket(), Role::Client),
        [
            Frame::Head(1, text, Last::Yes, Part::Final),
            Frame::Head(2, with_length, Last::No, Part::Final),
            Frame::Data(2, Bytes::from_static(b"ab"), Last::No),
            Frame::Data(2, Bytes::new(), Last::Yes),
        ]
    );
}

#[test]
fn an_answer_ends_with_any_of_its_frames() {
    let ok = "HTTP/1.1 200 OK\na:b\n";
    let both = [&frame::head(1, Last::Yes, Part::Final)[..], ok.as_bytes()].concat();
    assert_eq!(to_gateway(&mut asking(1), &[both]), ["1 head 200", "1 end"]);
    let found = to_gateway(&mut asking(1), &[head(1, ok), data(1, b"ab", Last::No), data(1, b"", Last::Yes)]);
    assert_eq!(found, ["1 head 200", "1 data ab", "1 end"]);
    let mut gateway = asking(1);
    let found =
        to_gateway(&mut gateway, &[head(1, ok), data(1, b"ab", Last::Yes), data(1, b"late", Last::No)]);
    assert_eq!(
        (found, gateway.count()),
        (vec!["1 head 200".into(), "1 data ab".into(), "1 end".to_owned()], 0)
    );
}

#[test]
fn a_long_head_is_split_at_16000_and_read_whole() {
    let mut gateway = Gateway::new(Settings { head_sent: 60_000, ..Settings::gateway() }, (1, NOW));
    let mut long = get();
    long.fields.append(NameId::UserAgent, &[b'x'; 40_000]);
    gateway.request(&long, Content::None, NOW).unwrap();
    let sent = written(gateway.socket());
    let mut connector = connector();
    let mut buf = BytesMut::from(&sent[..]);
    let Some(Call::Request(_, found, Content::None)) = connector.receive(&mut buf, NOW) else {
        panic!("no request")
    };
    assert_eq!(found.fields.get(NameId::UserAgent).unwrap().len(), 40_000);
    assert!(matches!(connector.receive(&mut buf, NOW), Some(Call::End(_))));
    // The flag for the end stands on every part of a request's head, and on the last of an answer's.
    assert_eq!(&sent[4..10], b"\x01\x01\0\0\0\x01");
    let mut answer = ResponseHead::new(200);
    answer.fields.append(NameId::Server, &[b'x'; 20_000]);
    written(connector.socket());
    connector.respond(StreamId(1), &answer, NOW).unwrap();
    let sizes: Vec<_> = frames(connector.socket(), Role::Server)
        .into_iter()
        .map(|frame| match frame {
            Frame::Head(1, text, last, part) => (text.len(), last, part),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [(16_000, Last::No, Part::First), (4024, Last::No, Part::Final)]);
}

#[test]
fn a_head_larger_than_allowed_ends_its_stream_alone() {
    let mut gateway = asking(2);
    let part = || [&frame::head(1, Last::No, Part::First)[..], &[b'x'; 16_000]].concat();
    let found = to_gateway(
        &mut gateway,
        &[part(), part(), part(), part(), part(), part(), head(2, "HTTP/1.1 200 OK\n")],
    );
    assert_eq!(found, ["1 BadHead", "2 head 200"]);
    let mut large = get();
    large.fields.append(NameId::UserAgent, &[b'x'; 16_400]);
    assert_eq!(gateway.request(&large, Content::None, NOW), Err(Unsendable::TooLarge));
}

#[test]
fn unknown_types_and_streams_and_text_are_ignored() {
    let mut gateway = asking(1);
    let found = to_gateway(
        &mut gateway,
        &[
            b"\x02\0\0\0\0\x01".to_vec(),
            head(7, "HTTP/1.1 200 OK\n"),
            data(7, b"x", Last::Yes),
            frame::reset(7, 1, "x"),
            frame::window(7, 100),
            head(1, "HTTP/1.1 200 OK\n"),
        ],
    );
    assert_eq!(found, ["1 head 200"]);
    let mut connector = connector();
    let frames = [
        data(1, b"x", Last::Yes),
        frame::reset(1, 1, "x"),
        frame::window(1, 9),
        head(-1, "GET / HTTP/1.1\n\n"),
    ];
    assert_eq!(to_connector(&mut connector, &frames), Vec::<String>::new());
    assert_eq!(connector.count(), 0);
    assert!(connector.receive(&mut BytesMut::from(&b"\x81\x02hi"[..]), NOW).is_none());
    assert_eq!(written(connector.socket()), b"");
}

#[test]
fn a_message_at_the_limit_passes_and_one_byte_more_ends_the_tunnel() {
    let sized = |size: usize| {
        let mut connector = connector();
        let request = head(1, "POST / HTTP/1.1\n\n");
        to_connector(&mut connector, &[request, data(1, &vec![b'x'; size - 6], Last::No)])
    };
    assert_eq!(sized(65_536), ["1 / Unknown", "1 data 65530"]);
    assert_eq!(sized(65_537), ["1 / Unknown", "1 Broken", "Broken(MessageTooLarge)"]);
}

#[test]
fn a_fragmented_message_is_joined() {
    let mut connector = connector();
    let mut buf = BytesMut::from(&b"\x02\x08\x01\x05\0\0\0\x01GE\x80\x0fT / HTTP/1.1\nA:"[..]);
    assert!(matches!(connector.receive(&mut buf, NOW), Some(Call::Request(..))));
}

#[test]
fn a_short_frame_ends_the_tunnel() {
    let found = to_gateway(&mut asking(2), &[b"\0\0\0".to_vec()]);
    assert_eq!(found, ["1 Broken", "2 Broken", "Broken(BadFrame)"]);
}

#[test]
fn the_end_flag_counts_only_when_the_head_is_complete() {
    let mut connector = connector();
    let first = [&frame::head(1, Last::Yes, Part::First)[..], b"GET / HT"].concat();
    assert_eq!(to_connector(&mut connector, &[first]), Vec::<String>::new());
    let second = [&frame::head(1, Last::Yes, Part::Final)[..], b"TP/1.1\n\n"].concat();
    assert_eq!(to_connector(&mut connector, &[second]), ["1 / None", "1 end"]);
}

#[test]
fn a_connector_answers_with_head_data_and_an_empty_end() {
    let mut connector = connector();
    to_connector(&mut connector, &[head(1, "POST / HTTP/1.1\n\n"), data(1, b"ab", Last::Yes)]);
    let mut answer = ResponseHead::new(200);
    answer.fields.append(NameId::Server, b"x");
    connector.respond(StreamId(1), &answer, NOW).unwrap();
    connector.data(StreamId(1), Bytes::from(vec![b'y'; 16_385]), NOW);
    connector.end(StreamId(1), NOW);
    connector.data(StreamId(1), Bytes::from_static(b"late"), NOW);
    let text = Bytes::from_static(b"HTTP/1.1 200 OK\nServer:x\n");
    assert_eq!(
        frames(connector.socket(), Role::Server),
        [
            Frame::Head(1, text, Last::No, Part::Final),
            Frame::Data(1, Bytes::from(vec![b'y'; 16_384]), Last::No),
            Frame::Data(1, Bytes::from_static(b"y"), Last::No),
            Frame::Data(1, Bytes::new(), Last::Yes),
        ]
    );
    assert_eq!(connector.respond(StreamId(1), &answer, NOW), Err(Unsendable::NotOpen));
}

#[test]
fn without_acknowledgements_a_sender_stops_and_only_its_stream() {
    let mut gateway = gateway();
    let first = gateway.request(&get(), Content::Unknown, NOW).unwrap();
    let second = gateway.request(&get(), Content::Unknown, NOW).unwrap();
    let mut sent = 0;
    while gateway.may_send(first) {
        gateway.data(first, Bytes::from(vec![0; 8192]), NOW);
        sent += 8192;
    }
    // The head counts too.
    assert_eq!(sent, 65_536);
    assert!(gateway.may_send(second));
    // 24 bytes of head.
    let acknowledge = |gateway: &mut Gateway, count| to_gateway(gateway, &[frame::window(1, count)]);
    assert_eq!(acknowledge(&mut gateway, 65_536 + 24 - 16_384), Vec::<String>::new());
    assert!(!gateway.may_send(first));
    assert_eq!(acknowledge(&mut gateway, 1), ["1 resumed"]);
    assert!(gateway.may_send(first));
}

#[test]
fn what_was_consumed_is_acknowledged_so_that_a_sender_never_stays_stopped() {
    let mut connector = connector();
    to_connector(&mut connector, &[head(1, "POST / HTTP/1.1\n\n")]);
    let mut acknowledged = 0;
    for _ in 0..20 {
        to_connector(&mut connector, &[data(1, &[0; 1000], Last::No)]);
        connector.consumed(StreamId(1), 1000, NOW);
        for frame in frames(connector.socket(), Role::Server) {
            let Frame::Window(1, count) = frame else { panic!("{frame:?}") };
            acknowledged += count;
        }
    }
    let left = 20_017 - acknowledged;
    assert!(left < 8192, "{left}");
}

#[test]
fn what_waits_is_not_acknowledged_and_bounded() {
    let mut gateway = asking(2);
    to_gateway(&mut gateway, &[head(1, "HTTP/1.1 200 OK\n"), head(2, "HTTP/1.1 200 OK\n")]);
    let piece = || data(1, &[0; 16_384], Last::No);
    for _ in 0..16 {
        assert_eq!(to_gateway(&mut gateway, &[piece()]), ["1 data 16384"]);
    }
    assert_eq!(frames(gateway.socket(), Role::Client), []);
    assert_eq!(to_gateway(&mut gateway, &[piece()]), ["1 Overrun"]);
    assert!(matches!(frames(gateway.socket(), Role::Client)[..], [Frame::Reset(1, 1011, _)]));
    assert_eq!(to_gateway(&mut gateway, &[piece(), data(2, b"x", Last::Yes)]), ["2 data x", "2 end"]);
}

#[test]
fn a_client_that_goes_resets_its_stream_with_1() {
    let mut gateway = asking(2);
    gateway.reset(StreamId(1), "Client early closed", NOW);
    let expected = Frame::Reset(1, 1, Bytes::from_static(b"Client early closed"));
    assert_eq!(frames(gateway.socket(), Role::Client), [expected]);
    // The connector's own RST, and what was on its way, mean nothing now.
    let late = [frame::reset(1, 1011, "x"), head(1, "HTTP/1.1 200 OK\n"), head(2, "HTTP/1.1 204 \n")];
    assert_eq!(to_gateway(&mut gateway, &late), ["2 head 204"]);
    assert_eq!(frames(gateway.socket(), Role::Client), []);
}

#[test]
fn a_reset_is_a_fault_before_and_after_the_head_and_never_answered() {
    let mut gateway = asking(2);
    assert_eq!(
        to_gateway(&mut gateway, &[frame::reset(1, 1011, "no"), frame::reset(1, 1011, "again")]),
        ["1 ConnectorFailed"]
    );
    let found = to_gateway(
        &mut gateway,
        &[head(2, "HTTP/1.1 200 OK\n"), data(2, b"x", Last::No), frame::reset(2, 1011, "x")],
    );
    assert_eq!(found, ["2 head 200", "2 data x", "2 ConnectorFailed"]);
    assert_eq!(frames(gateway.socket(), Role::Client), []);
    let mut connector = connector();
    let frames_in =
        [head(1, "POST / HTTP/1.1\n\n"), frame::reset(1, 1, "Client early closed"), frame::reset(1, 1, "x")];
    assert_eq!(to_connector(&mut connector, &frames_in), ["1 / Unknown", "1 ClientGone"]);
    assert_eq!(frames(connector.socket(), Role::Server), []);
}

#[test]
fn a_connector_says_why_there_is_no_answer() {
    let mut connector = connector();
    to_connector(&mut connector, &[head(1, "POST / HTTP/1.1\n\n")]);
    connector.fail(StreamId(1), "target request failed: refused", NOW);
    let expected = Frame::Reset(1, 1011, Bytes::from_static(b"target request failed: refused"));
    assert_eq!(frames(connector.socket(), Role::Server), [expected]);
    // Late frames do not open it again.
    assert_eq!(
        to_connector(&mut connector, &[data(1, b"x", Last::Yes), head(1, "GET / HTTP/1.1\n\n")]),
        Vec::<String>::new()
    );
}

#[test]
fn the_end_of_a_tunnel_fails_every_stream() {
    let end = |code: u16| {
        let mut gateway = asking(2);
        to_gateway(&mut gateway, &[head(1, "HTTP/1.1 200 OK\n")]);
        let bytes = [&b"\x88\x82\0\0\0\0"[..], &code.to_be_bytes()].concat();
        let mut buf = BytesMut::from(&bytes[..]);
        std::iter::from_fn(|| gateway.receive(&mut buf, NOW)).map(|answer| said(&answer)).collect::<Vec<_>>()
    };
    assert_eq!(end(1000), ["1 GoneAway", "2 GoneAway", "closed 1000"]);
    assert_eq!(end(1001), ["1 GoneAway", "2 GoneAway", "closed 1001"]);
    assert_eq!(end(1011), ["1 ConnectorFailed", "2 ConnectorFailed", "closed 1011"]);
    assert_eq!(end(1008), ["1 Refused", "2 Refused", "closed 1008"]);
    let mut gateway = asking(1);
    let received = gateway.socket().eof().unwrap();
    gateway.take(received, NOW);
    assert_eq!(to_gateway(&mut gateway, &[]), ["1 Dropped", "Dropped"]);
    let mut gateway = asking(1);
    let late = Duration::from_secs(60);
    let received = gateway.socket().tick(late).unwrap();
    gateway.take(received, late);
    assert_eq!(to_gateway(&mut gateway, &[]), ["1 Silent", "Silent"]);
    assert_eq!(written(gateway.socket()), b"\x88\x0b\x03\xe9TIMED_OUT");
}

#[test]
fn a_malformed_answer_ends_its_stream_alone() {
    let mut gateway = asking(4);
    let found = to_gateway(
        &mut gateway,
        &[
            head(1, "nonsense"),
            data(2, b"early", Last::No),
            head(3, "HTTP/1.1 200 OK\n"),
            head(3, "HTTP/1.1 200 OK\n"),
            head(4, "HTTP/1.1 200 OK\nContent-Length:3\n"),
            data(4, b"ab", Last::Yes),
        ],
    );
    assert_eq!(
        found,
        ["1 BadHead", "2 Broken", "3 head 200", "3 Broken", "4 head 200", "4 data ab", "4 WrongLength"]
    );
    let ids: Vec<_> = frames(gateway.socket(), Role::Client)
        .iter()
        .map(|frame| if let Frame::Reset(id, ..) = frame { *id } else { 0 })
        .collect();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn a_malformed_request_is_reset_and_nobody_here_hears_of_it() {
    let mut connector = connector();
    assert_eq!(
        to_connector(&mut connector, &[head(1, "nonsense"), head(2, "GET / HTTP/1.1\n\n")]),
        ["2 / Unknown"]
    );
    let expected = Frame::Reset(1, 1011, Bytes::from_static(b"malformed request head"));
    assert_eq!(frames(connector.socket(), Role::Server), [expected]);
}

#[test]
fn an_upload_of_the_wrong_length_is_given_up() {
    let request = |id| head(id, "POST / HTTP/1.1\nContent-Length:2\n\n");
    let mut connector = connector();
    let found = to_connector(
        &mut connector,
        &[request(1), data(1, b"a", Last::Yes), request(2), data(2, b"abc", Last::No)],
    );
    assert_eq!(found, ["1 / Length(2)", "1 data a", "1 WrongLength", "2 / Length(2)", "2 WrongLength"]);
}

#[test]
fn an_answer_to_head_has_a_length_and_no_content() {
    let mut gateway = gateway();
    let mut request = get();
    request.set_method("HEAD");
    gateway.request(&request, Content::None, NOW).unwrap();
    let frames =
        [head(1, "HTTP/1.1 200 OK\nContent-Length:9\n"), data(1, b"drop", Last::No), data(1, b"", Last::Yes)];
    assert_eq!(to_gateway(&mut gateway, &frames), ["1 head 200", "1 end"]);
}

#[test]
fn streams_are_limited_on_both_ends() {
    let few = |settings: Settings| Settings { streams: 1, ..settings };
    let mut gateway = Gateway::new(few(Settings::gateway()), (1, NOW));
    gateway.request(&get(), Content::None, NOW).unwrap();
    assert_eq!(gateway.request(&get(), Content::None, NOW), Err(Unsendable::NotOpen));
    let mut connector = Connector::new(few(Settings::connector()), (1, NOW));
    let found = to_connector(&mut connector, &[head(1, "GET / HTTP/1.1\n\n"), head(2, "GET / HTTP/1.1\n\n")]);
    assert_eq!(found, ["1 / Unknown"]);
    assert!(matches!(frames(connector.socket(), Role::Server)[..], [Frame::Reset(2, 1011, _)]));
}

#[test]
fn a_connector_closes_its_idle_tunnel_and_not_a_busy_one() {
    let mut connector = connector();
    to_connector(&mut connector, &[head(1, "GET / HTTP/1.1\n\n")]);
    assert!(!connector.close_if_idle(NOW));
    connector.respond(StreamId(1), &ResponseHead::new(200), NOW).unwrap();
    connector.end(StreamId(1), NOW);
    assert!(connector.close_if_idle(NOW));
    assert_eq!(to_connector(&mut connector, &[]), ["Ours"]);
    connector.close((Close::GOING_AWAY, "again"), NOW);
    assert_eq!(to_connector(&mut connector, &[]), Vec::<String>::new());
}

/// Passes everything on, both ways, until nothing moves; says what each heard.
fn converse(gateway: &mut Gateway, connector: &mut Connector) -> (Vec<String>, Vec<String>) {
    let (mut answers, mut calls) = (Vec::new(), Vec::new());
    loop {
        let mut down = BytesMut::from(&written(gateway.socket())[..]);
        let mut up = BytesMut::from(&written(connector.socket())[..]);
        if down.is_empty() && up.is_empty() {
            return (answers, calls);
        }
        calls.extend(std::iter::from_fn(|| connector.receive(&mut down, NOW)).map(|call| asked(&call)));
        answers.extend(std::iter::from_fn(|| gateway.receive(&mut up, NOW)).map(|answer| said(&answer)));
    }
}

fn pair(extensions: Extensions) -> (Gateway, Connector) {
    (
        Gateway::new(Settings { extensions, ..Settings::gateway() }, (1, NOW)),
        Connector::new(Settings { extensions, ..Settings::connector() }, (2, NOW)),
    )
}

#[test]
fn trailers_pass_both_ways_when_both_ends_know_them() {
    let mut fields = Fields::new();
    fields.append(NameId::GrpcStatus, b"0");
    for (extensions, ending) in
        [(Extensions::ALL, vec!["1 trailers 1", "1 end"]), (Extensions::NONE, vec!["1 end"])]
    {
        let (mut gateway, mut connector) = pair(extensions);
        let id = gateway.request(&get(), Content::Unknown, NOW).unwrap();
        gateway.trailers(id, &fields, NOW);
        let (_, calls) = converse(&mut gateway, &mut connector);
        assert_eq!(calls, [vec!["1 /x Unknown"], ending.clone()].concat());
        connector.respond(id, &ResponseHead::new(200), NOW).unwrap();
        connector.trailers(id, &fields, NOW);
        let (answers, _) = converse(&mut gateway, &mut connector);
        assert_eq!(answers, [vec!["1 head 200"], ending].concat());
        assert_eq!((gateway.count(), connector.count()), (0, 0));
    }
    let (mut gateway, mut connector) = pair(Extensions::ALL);
    let id = gateway.request(&get(), Content::Unknown, NOW).unwrap();
    gateway.trailers(id, &Fields::new(), NOW);
    assert_eq!(converse(&mut gateway, &mut connector).1, ["1 /x Unknown", "1 end"]);
}

#[test]
fn an_upgrade_carries_bytes_both_ways_until_both_have_ended() {
    let (mut gateway, mut connector) = pair(Extensions::ALL);
    let mut request = get();
    request.fields.append(NameId::Connection, b"Upgrade");
    request.fields.append(NameId::Upgrade, b"websocket");
    let id = gateway.request(&request, Content::None, NOW).unwrap();
    assert_eq!(converse(&mut gateway, &mut connector).1, ["1 /x Unknown"]);
    let mut switched = ResponseHead::new(101);
    switched.fields.append(NameId::Connection, b"Upgrade");
    switched.fields.append(NameId::Upgrade, b"websocket");
    connector.respond(id, &switched, NOW).unwrap();
    gateway.data(id, Bytes::from_static(b"up"), NOW);
    gateway.end(id, NOW);
    let (answers, calls) = converse(&mut gateway, &mut connector);
    assert_eq!(
        (answers, calls),
        (vec!["1 head 101".to_owned()], vec!["1 data up".to_owned(), "1 end".into()])
    );
    connector.data(id, Bytes::from_static(b"down"), NOW);
    connector.end(id, NOW);
    assert_eq!(converse(&mut gateway, &mut connector).0, ["1 data down", "1 end"]);
    assert_eq!((gateway.count(), connector.count()), (0, 0));
}

#[test]
fn a_peer_that_makes_us_answer_and_reads_nothing_is_given_up() {
    let mut connector = Connector::new(Settings { streams: 0, ..Settings::connector() }, (1, NOW));
    let (mut heard, mut id) = (Vec::new(), 0);
    while heard.is_empty() {
        id += 1;
        heard = to_connector(&mut connector, &[head(id, "GET / HTTP/1.1\n\n")]);
        assert!(connector.socket().backlog() < 5 * 1024 * 1024);
    }
    assert_eq!(heard, ["Broken(Unread)"]);
}

proptest! {
    #[test]
    fn any_frames_are_read_without_a_panic_and_leave_nothing_behind(
        payloads in proptest::collection::vec(
            (0u8..10, 0u8..8, -1i32..4, proptest::collection::vec(any::<u8>(), 0..40)), 0..30,
        ),
    ) {
        let payloads: Vec<Vec<u8>> = payloads
            .iter()
            .map(|(kind, flags, id, rest)| [&[*kind, *flags][..], &id.to_be_bytes(), rest].concat())
            .collect();
        let mut gateway = asking(2);
        to_gateway(&mut gateway, &payloads);
        let mut connector = connector();
        to_connector(&mut connector, &payloads);
        gateway.close("", NOW);
        connector.close((1001, ""), NOW);
        to_gateway(&mut gateway, &[]);
        prop_assert_eq!((gateway.count(), connector.count()), (0, 0));
    }
}
