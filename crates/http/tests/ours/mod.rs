//! Our engine as a reader of whole files.

use bytes::BytesMut;
use sluice_http::h1::{self, Decoded, Decoder, Framing, Limits, Scanner};
use sluice_http::{Fields, Method};

use super::{Message, Reading};

/// Reads requests until the bytes end, a refusal, or a request that closes the connection.
pub(crate) fn requests(bytes: &[u8]) -> Reading {
    let (limits, mut buf, mut messages) = (Limits::default(), BytesMut::from(bytes), Vec::new());
    while !buf.is_empty() {
        let Ok(Some(len)) = Scanner::default().scan(&buf, &limits) else {
            return Reading { messages, is_clean: false };
        };
        let Ok((head, framing)) = h1::request(buf.split_to(len).freeze(), &limits) else {
            return Reading { messages, is_clean: false };
        };
        let Some((body, trailers)) = body(framing, &mut buf, &limits) else {
            return Reading { messages, is_clean: false };
        };
        messages.push(Message {
            start: format!("{} {}", head.method_text(), head.target()),
            version: head.version.text(),
            fields: sorted(&head.fields),
            length: length(framing),
            body,
            trailers,
        });
        // Behind CONNECT comes whatever the tunnel carries.
        if head.method == Method::Connect || !h1::keep_alive(head.version, &head.fields) {
            break;
        }
    }
    Reading { messages, is_clean: true }
}

/// Reads interim responses and the final one; what follows it is not looked at.
pub(crate) fn response(method: &str, bytes: &[u8]) -> Reading {
    let (limits, mut buf) = (Limits::default(), BytesMut::from(bytes));
    while let Ok(Some(len)) = Scanner::default().scan(&buf, &limits) {
        let raw = buf.split_to(len).freeze();
        let Ok((head, framing)) = h1::response(raw, Method::of(method.as_bytes()), &limits) else { break };
        if matches!(head.status, 100 | 102..=199) {
            continue;
        }
        let Some((body, trailers)) = body(framing, &mut buf, &limits) else { break };
        let message = Message {
            start: format!("{} {}", head.status, String::from_utf8_lossy(head.reason())),
            version: head.version.text(),
            fields: sorted(&head.fields),
            length: length(framing),
            body,
            trailers,
        };
        return Reading { messages: vec![message], is_clean: true };
    }
    Reading { messages: Vec::new(), is_clean: false }
}

type Lines = Vec<(String, Vec<u8>)>;

fn body(framing: Framing, buf: &mut BytesMut, limits: &Limits) -> Option<(Vec<u8>, Lines)> {
    let mut decoder = Decoder::new(framing, limits);
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    loop {
        match decoder.decode(buf).ok()? {
            Decoded::Data(piece) => data.extend(piece),
            Decoded::Trailers(fields) => trailers = sorted(&fields),
            Decoded::Done => return Some((data, trailers)),
            Decoded::More if decoder.eof() => return Some((data, trailers)),
            Decoded::More => return None,
        }
    }
}

fn length(framing: Framing) -> Option<u64> {
    match framing {
        Framing::None => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::Close => None,
    }
}

fn sorted(fields: &Fields) -> Lines {
    let lower = |name: &[u8]| String::from_utf8_lossy(name).to_ascii_lowercase();
    let mut lines: Lines = fields.iter().map(|(_, name, value)| (lower(name), value.to_vec())).collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines
}
