//! Frames byte by byte, and two sockets that talk.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

const STREAMED: Limits = Limits { text: 100, binary: Binary::Streamed };
const WHOLE: Limits = Limits { text: 100, binary: Binary::Whole(70_000) };

fn timing() -> Timing {
    Timing {
        pings: Pings::Every(seconds(5)),
        payload: b"ping",
        silence: seconds(20),
        silent: (1011, "No message received"),
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Decodes everything a server sent, given in pieces of this size.
fn decode(limits: Limits, bytes: &[u8], size: usize) -> (Vec<Message>, Result<(), Breach>) {
    let mut decoder = Decoder::new(Role::Client, limits);
    let (mut buf, mut found) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buf.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut buf) {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(breach) => return (found, Err(breach)),
            }
        }
    }
    (found, Ok(()))
}

fn all(limits: Limits, bytes: &[u8]) -> (Vec<Message>, Result<(), Breach>) {
    let at_once = decode(limits, bytes, usize::MAX);
    if limits != STREAMED {
        assert_eq!(decode(limits, bytes, 1), at_once);
    }
    at_once
}

fn text(text: &'static str) -> Message {
    Message::Text(Bytes::from_static(text.as_bytes()))
}

fn binary(bytes: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(bytes))
}

fn written(out: &mut Output) -> Vec<u8> {
    out.copy_to_bytes(out.remaining()).to_vec()
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    assert_eq!(all(WHOLE, b"\x81\x05Hello").0, [text("Hello")]);
    assert_eq!(all(WHOLE, b"\x01\x03Hel\x80\x02lo").0, [text("Hello")]);
    let mut decoder = Decoder::new(Role::Server, WHOLE);
    let mut buf = BytesMut::from(&b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"[..]);
    assert_eq!(decoder.decode(&mut buf), Ok(Some(text("Hello"))));
    assert_eq!(all(WHOLE, b"\x89\x05Hello").0, [Message::Ping(Bytes::from_static(b"Hello"))]);
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let (found, end) = all(WHOLE, b"\x02\x02ab\x89\x00\x00\x00\x8a\x01x\x80\x01c");
    let pong = Message::Pong(Bytes::from_static(b"x"));
    assert_eq!(found, [Message::Ping(Bytes::new()), pong, binary(b"abc")]);
    assert_eq!(end, Ok(()));
}

#[test]
fn text_need_not_be_utf8() {
    assert_eq!(all(WHOLE, b"\x81\x02a\xe9").0, [Message::Text(Bytes::from_static(b"a\xe9"))]);
}

#[test]
fn what_the_rfc_forbids_is_a_breach() {
    let long = [&b"\x81\x7e\x00\x7d"[..], &[0; 125]].concat();
    let cases: &[(&[u8], Breach)] = &[
        (b"\xc1\x00", Breach::Reserved),
        (b"\x91\x00", Breach::Reserved),
        (b"\x83\x00", Breach::UnknownOpcode),
        (b"\x8b\x00", Breach::UnknownOpcode),
        (b"\x81\x80", Breach::Masking),
        (b"\x80\x00", Breach::Fragments),
        (b"\x01\x00\x81\x00", Breach::Fragments),
        (b"\x01\x00\x02\x00", Breach::Fragments),
        (b"\x09\x00", Breach::BadControl),
        (b"\x89\x7e\x00\x7e", Breach::BadControl),
        (b"\x88\x7f", Breach::BadControl),
        (b"\x88\x01\x03", Breach::BadClose),
        (b"\x88\x02\x03\xed", Breach::BadClose),
        (&long, Breach::Length),
        (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", Breach::Length),
        (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", Breach::Length),
    ];
    for (bytes, breach) in cases {
        assert_eq!(all(WHOLE, bytes).1, Err(*breach), "{bytes:x?}");
    }
    let mut decoder = Decoder::new(Role::Server, WHOLE);
    assert_eq!(decoder.decode(&mut BytesMut::from(&b"\x81\x00"[..])), Err(Breach::Masking));
}

#[test]
fn a_message_at_its_limit_passes_and_one_byte_more_does_not() {
    let limits = Limits { text: 100, binary: Binary::Whole(120) };
    let frame = |first: u8, length: usize| [&[first, length as u8][..], &vec![b'x'; length]].concat();
    for (opcode, limit) in [(0x81, 100), (0x82, 120)] {
        assert_eq!(all(limits, &frame(opcode, limit)).1, Ok(()));
        // The header is enough to know.
        assert_eq!(all(limits, &frame(opcode, limit + 1)[..2]).1, Err(Breach::MessageTooLarge));
        let fragments = |second: usize| [frame(opcode & 0x7f, 60), frame(0x80, second)].concat();
        assert_eq!(all(limits, &fragments(limit - 60)).0.len(), 1);
        assert_eq!(all(limits, &fragments(limit - 59)).1, Err(Breach::MessageTooLarge));
    }
    let huge = b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(all(limits, huge).1, Err(Breach::MessageTooLarge));
    assert_eq!(all(STREAMED, huge).1, Ok(()));
}

#[test]
fn a_streamed_message_comes_in_the_pieces_that_arrive_without_a_copy() {
    let mut decoder = Decoder::new(Role::Client, STREAMED);
    let mut buf = BytesMut::from(&b"\x02\x05abc"[..]);
    let place = buf.as_ptr() as usize;
    let Ok(Some(Message::Binary(piece))) = decoder.decode(&mut buf) else { panic!("no piece") };
    assert_eq!((&piece[..], piece.as_ptr() as usize), (&b"abc"[..], place + 2));
    assert_eq!(decoder.decode(&mut buf), Ok(None));
    buf.extend_from_slice(b"de\x80\x01f\x81\x01t");
    let rest: Vec<_> = std::iter::from_fn(|| decoder.decode(&mut buf).unwrap()).collect();
    assert_eq!(rest, [binary(b"de"), binary(b"f"), text("t")]);
}

#[test]
fn a_frame_is_written_with_the_shortest_length() {
    for (length, header) in [
        (0, &b"\x82\x00"[..]),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (0xffff, b"\x82\x7e\xff\xff"),
        (0x1_0000, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ] {
        let mut out = Output::default();
        Encoder::new(Role::Server, 0).binary(b"", Bytes::from(vec![7; length]), &mut out);
        assert_eq!(written(&mut out), [header, &vec![7; length]].concat());
    }
}

#[test]
fn a_servers_large_payload_is_not_copied() {
    let payload = Bytes::from(vec![7; 5000]);
    let mut out = Output::default();
    Encoder::new(Role::Server, 0).binary(b"lead", payload.clone(), &mut out);
    out.put(b"behind");
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    assert_eq!(out.chunks_vectored(&mut slices), 3);
    assert_eq!((slices[1].as_ptr(), slices[1].len()), (payload.as_ptr(), 5000));
    assert_eq!((&slices[0][4..], &slices[2][..]), (&b"lead"[..], &b"behind"[..]));
}

#[test]
fn what_is_taken_whole_is_not_copied_and_leaves_nothing_behind() {
    let payload = Bytes::from(vec![7; 5000]);
    let mut out = Output::default();
    out.put(b"small");
    let (small, at) = (out.remaining(), out.chunk().as_ptr());
    assert_eq!(out.copy_to_bytes(small).as_ptr(), at);
    out.put_part(payload.clone());
    out.put(b"behind");
    assert_eq!(out.copy_to_bytes(2000).as_ptr(), payload.as_ptr());
    assert_eq!(out.copy_to_bytes(3000).as_ptr(), payload[2000..].as_ptr());
    assert_eq!(out.copy_to_bytes(3), &b"beh"[..]);
    out.put_part(payload);
    assert_eq!(out.copy_to_bytes(5).to_vec(), b"ind\x07\x07");
    assert_eq!((out.remaining(), written(&mut out)), (4998, vec![7; 4998]));
}

/// A connector's and a gateway's socket.
fn pair(limits: Limits) -> (Socket, Socket) {
    let new = |role| Socket::new(role, limits, timing(), (7, Duration::ZERO));
    (new(Role::Client), new(Role::Server))
}

/// What `to` receives of what `from` has to write.
fn pass(from: &mut Socket, to: &mut Socket, now: Duration) -> Vec<Received> {
    let mut buf = BytesMut::from(&written(from.output())[..]);
    std::iter::from_fn(|| to.receive(&mut buf, now)).collect()
}

#[test]
fn two_sockets_talk() {
    let (mut client, mut server) = pair(WHOLE);
    let now = Duration::ZERO;
    client.send_text(b"hello", now);
    client.send_binary(b"12", Bytes::from(vec![b'3'; 3000]), now);
    let received = pass(&mut client, &mut server, now);
    let expected = Bytes::from([&b"12"[..], &vec![b'3'; 3000]].concat());
    assert_eq!(received, [Received::Text(Bytes::from_static(b"hello")), Received::Binary(expected)]);
    server.send_binary(b"a", Bytes::from_static(b"b"), now);
    assert_eq!(pass(&mut server, &mut client, now), [Received::Binary(Bytes::from_static(b"ab"))]);
}

#[test]
fn a_close_is_answered_and_ends_both_once() {
    let (mut client, mut server) = pair(WHOLE);
    let now = Duration::ZERO;
    client.close(Close::NORMAL, "", now);
    client.send_text(b"late", now);
    let closed = Ended::Closed(Some(Close::new(1000, "")));
    assert_eq!(pass(&mut client, &mut server, now), [Received::Ended(closed)]);
    assert!(server.is_over() && !client.is_over());
    assert_eq!(pass(&mut server, &mut client, now), [Received::Ended(Ended::Ours)]);
    assert!(client.is_over() && client.eof().is_none() && server.eof().is_none());
    assert_eq!((client.deadline(), client.tick(seconds(100))), (None, None));
}

#[test]
fn an_unanswered_close_is_over_after_five_seconds() {
    let (mut client, _) = pair(WHOLE);
    client.finish(Close::ERROR, "x", seconds(1));
    assert_eq!(client.deadline(), Some(seconds(6)));
    assert_eq!((client.tick(seconds(5)), client.is_over()), (None, false));
    assert_eq!((client.tick(seconds(6)), client.is_over()), (None, true));
}

#[test]
fn a_dropped_connection_and_a_breach_say_so() {
    let (mut client, mut server) = pair(WHOLE);
    assert_eq!(client.eof(), Some(Received::Ended(Ended::Dropped)));
    let mut buf = BytesMut::from(&b"\xff\xff"[..]);
    let ended = server.receive(&mut buf, Duration::ZERO);
    assert_eq!(ended, Some(Received::Ended(Ended::Broken(Breach::Reserved))));
    assert_eq!(&written(server.output())[..4], b"\x88\x10\x03\xea");
}

#[test]
fn a_ping_is_answered_and_sent_when_due() {
    let (mut client, mut server) = pair(WHOLE);
    assert_eq!((client.deadline(), client.tick(seconds(4))), (Some(seconds(5)), None));
    assert_eq!(client.backlog(), 0);
    assert_eq!(client.tick(seconds(5)), None);
    assert_eq!(pass(&mut client, &mut server, seconds(5)), []);
    assert_eq!(written(server.output()), b"\x8a\x04ping");
    assert_eq!(client.deadline(), Some(seconds(10)));
}

#[test]
fn a_silent_peer_is_given_up_and_any_frame_counts() {
    let (mut client, mut server) = pair(WHOLE);
    assert_eq!(client.tick(seconds(19)), None);
    pass(&mut client, &mut server, seconds(19));
    pass(&mut server, &mut client, seconds(19));
    assert_eq!(client.tick(seconds(38)), None);
    assert_eq!(client.tick(seconds(39)), Some(Received::Ended(Ended::Silent)));
    let received = pass(&mut client, &mut server, seconds(39));
    let close = Close::new(1011, "No message received");
    assert_eq!(received, [Received::Ended(Ended::Closed(Some(close)))]);
}

#[test]
fn what_we_did_not_read_is_no_silence() {
    let (mut client, _) = pair(WHOLE);
    client.excuse(seconds(30));
    assert_eq!((client.tick(seconds(49)), client.is_over()), (None, false));
    assert_eq!(client.tick(seconds(50)), Some(Received::Ended(Ended::Silent)));
}

#[test]
fn patience_may_be_endless() {
    let timing = Timing { pings: Pings::Every(Duration::MAX), silence: Duration::MAX, ..timing() };
    let mut socket = Socket::new(Role::Server, WHOLE, timing, (0, seconds(9)));
    assert_eq!((socket.deadline(), socket.tick(seconds(1_000_000))), (Some(Duration::MAX), None));
}

#[test]
fn pings_after_silence_wait_for_it() {
    let timing = Timing { pings: Pings::AfterSilence(seconds(10)), silence: Duration::ZERO, ..timing() };
    let mut socket = Socket::new(Role::Server, WHOLE, timing, (0, Duration::ZERO));
    socket.send_text(b"x", seconds(8));
    assert_eq!(socket.deadline(), Some(seconds(18)));
    written(socket.output());
    assert_eq!((socket.tick(seconds(18)), written(socket.output())), (None, b"\x89\x04ping".to_vec()));
    assert_eq!((socket.deadline(), socket.tick(seconds(10_000))), (Some(seconds(28)), None));
}

#[test]
fn a_peer_that_pings_and_never_reads_costs_bounded_memory() {
    let (_, mut server) = pair(WHOLE);
    let ping = [&b"\x89\xfd\0\0\0\0"[..], &[0; 125]].concat();
    for _ in 0..20_000 {
        assert_eq!(server.receive(&mut BytesMut::from(&ping[..]), Duration::ZERO), None);
    }
    assert!(server.backlog() < 1024 * 1024 + 200);
}

proptest! {
    #[test]
    fn messages_survive_any_cut(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..6),
        size in 1usize..500,
    ) {
        let mut client = Socket::new(Role::Client, WHOLE, timing(), (1, Duration::ZERO));
        let mut server = Socket::new(Role::Server, WHOLE, timing(), (1, Duration::ZERO));
        for message in &messages {
            client.send_binary(b"", Bytes::from(message.clone()), Duration::ZERO);
        }
        let (bytes, mut buf, mut found) = (written(client.output()), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(size) {
            buf.extend_from_slice(piece);
            while let Some(Received::Binary(message)) = server.receive(&mut buf, Duration::ZERO) {
                found.push(message.to_vec());
            }
        }
        prop_assert_eq!(found, messages);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_alike_in_any_pieces(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert_eq!(decode(WHOLE, &bytes, 1), decode(WHOLE, &bytes, usize::MAX));
        let _ = decode(STREAMED, &bytes, 3);
    }
}
