//! HTTP/1 messages as tests see them: the exact bytes beside what they mean.
//!
//! This is a small reader of its own on purpose: a test that read the gateway's bytes with the gateway's
//! parser would share its mistakes. It takes CRLF lines only, so a sloppy answer fails a test.

use std::fmt;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The field lines of a message, in order, names as they were spelled.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The value of the first field `name` (case-insensitive).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of every field line `name`, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, value))).finish()
    }
}

/// A request an origin received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Start line and fields, with the empty line, as they came.
    pub head: Vec<u8>,
    /// The method.
    pub method: String,
    /// The request target as it came.
    pub target: String,
    /// "HTTP/1.1"
    pub version: String,
    /// The fields.
    pub fields: Fields,
    /// The body, without its chunked framing.
    pub body: Vec<u8>,
    /// The body as it came.
    pub body_on_wire: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Fields,
    /// The number of the connection it came over, from 0.
    pub connection: usize,
}

/// An answer a client received.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Start line and fields, with the empty line, as they came.
    pub head: Vec<u8>,
    /// The status code.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// "HTTP/1.1"
    pub version: String,
    /// The fields.
    pub fields: Fields,
    /// The body, without its chunked framing.
    pub body: Vec<u8>,
    /// The body as it came.
    pub body_on_wire: Vec<u8>,
    /// Trailer fields of a chunked body.
    pub trailers: Fields,
}

impl Answer {
    /// The value of the first field `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {:?}", self.text()))
    }

    /// The failure's code, from a problem+json body.
    pub fn code(&self) -> String {
        let body = self.json();
        match body["code"].as_str() {
            Some(code) => code.to_owned(),
            None => panic!("a problem without a code: {body}"),
        }
    }
}

impl Received {
    /// A request of which only the head has come.
    pub(crate) fn of(head: RawHead, connection: usize) -> Received {
        let [method, target, version] = head.start;
        Received {
            head: head.bytes,
            method,
            target,
            version,
            fields: head.fields,
            body: Vec::new(),
            body_on_wire: Vec::new(),
            trailers: Fields::default(),
            connection,
        }
    }

    /// The value of the first field `name`.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Here,
    After(usize),
    Chunked,
    AtClose,
}

/// A head as it stands on the wire.
#[derive(Debug)]
pub(crate) struct RawHead {
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: [String; 3],
    pub(crate) fields: Fields,
}

/// A body as it stands on the wire.
#[derive(Debug, Default)]
pub(crate) struct RawBody {
    pub(crate) content: Vec<u8>,
    pub(crate) on_wire: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// Why no message could be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Closed before its first byte.
    Closed,
    /// Closed or reset in the middle.
    Cut,
    /// Not HTTP/1 as we write it.
    Invalid(String),
}

/// Bytes that came and were not yet understood, before the socket they came from.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    pub(crate) from: R,
    pub(crate) buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(from: R) -> Self {
        Reader { from, buffer: Vec::new() }
    }

    /// Reads once more; false at the end or after a reset. Cancel-safe.
    pub(crate) async fn more(&mut self) -> bool {
        matches!(self.from.read_buf(&mut self.buffer).await, Ok(n) if n > 0)
    }

    pub(crate) async fn head(&mut self) -> Result<RawHead, Broken> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return Err(if self.buffer.is_empty() { Broken::Closed } else { Broken::Cut });
            }
        };
        parse_head(self.buffer.drain(..end).collect())
    }

    pub(crate) async fn body(&mut self, ends: Ends) -> Result<RawBody, Broken> {
        match ends {
            Ends::Here => Ok(RawBody::default()),
            Ends::After(length) => {
                let content = self.take(length).await?;
                Ok(RawBody { on_wire: content.clone(), content, trailers: Fields::default() })
            }
            Ends::AtClose => {
                while self.more().await {}
                let content = std::mem::take(&mut self.buffer);
                Ok(RawBody { on_wire: content.clone(), content, trailers: Fields::default() })
            }
            Ends::Chunked => self.chunked().await,
        }
    }

    pub(crate) async fn take(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.buffer.len() < length {
            if !self.more().await {
                return Err(Broken::Cut);
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                return Ok(self.buffer.drain(..at + 2).collect());
            }
            if !self.more().await {
                return Err(Broken::Cut);
            }
        }
    }

    async fn chunked(&mut self) -> Result<RawBody, Broken> {
        let mut body = RawBody::default();
        loop {
            let line = self.line().await?;
            body.on_wire.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line);
            let size = text.trim_end().split(';').next().unwrap_or("");
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| Broken::Invalid(format!("a chunk size that is none: {text:?}")))?;
            if size == 0 {
                break;
            }
            let chunk = self.take(size + 2).await?;
            if !chunk.ends_with(b"\r\n") {
                return Err(Broken::Invalid("a chunk that does not end in CRLF".into()));
            }
            body.content.extend_from_slice(&chunk[..size]);
            body.on_wire.extend_from_slice(&chunk);
        }
        loop {
            let line = self.line().await?;
            body.on_wire.extend_from_slice(&line);
            if line == b"\r\n" {
                return Ok(body);
            }
            body.trailers.0.push(parse_field(&line[..line.len() - 2])?);
        }
    }
}

/// How a request's body ends.
pub(crate) fn request_ends(fields: &Fields) -> Ends {
    framing(fields).unwrap_or(Ends::Here)
}

/// How the body of an answer to `method` ends (RFC 9112 section 6.3).
pub(crate) fn answer_ends(method: &str, status: u16, fields: &Fields) -> Ends {
    let tunnel = method == "CONNECT" && (200..300).contains(&status);
    if method == "HEAD" || status < 200 || status == 204 || status == 304 || tunnel {
        return Ends::Here;
    }
    framing(fields).unwrap_or(Ends::AtClose)
}

fn framing(fields: &Fields) -> Option<Ends> {
    if fields.all("transfer-encoding").any(|value| value.to_ascii_lowercase().contains("chunked")) {
        return Some(Ends::Chunked);
    }
    fields.get("content-length").and_then(|value| value.parse().ok()).map(Ends::After)
}

fn parse_head(bytes: Vec<u8>) -> Result<RawHead, Broken> {
    let text = bytes[..bytes.len() - 4].to_vec();
    let mut lines = split_lines(&text);
    let first = String::from_utf8_lossy(lines.next().unwrap_or(b"")).into_owned();
    let mut words = first.splitn(3, ' ').map(String::from);
    let start = [0; 3].map(|_| words.next().unwrap_or_default());
    let fields = lines.map(parse_field).collect::<Result<Vec<_>, _>>()?;
    Ok(RawHead { bytes, start, fields: Fields(fields) })
}

fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let at = find(current, b"\r\n");
        rest = at.map(|at| &current[at + 2..]);
        Some(&current[..at.unwrap_or(current.len())])
    })
}

fn parse_field(line: &[u8]) -> Result<(String, String), Broken> {
    let text = String::from_utf8_lossy(line);
    match text.split_once(':') {
        Some((name, value)) if !text.contains(['\r', '\n']) => Ok((name.into(), value.trim().into())),
        _ => Err(Broken::Invalid(format!("a field line that is none: {text:?}"))),
    }
}

pub(crate) fn find(within: &[u8], needle: &[u8]) -> Option<usize> {
    within.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_chunked_message_keeps_its_bytes_and_gives_its_content() {
        let bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3;q=1\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 9\r\n\r\nGET";
        let mut reader = Reader::new(&bytes[..]);
        let head = reader.head().await.unwrap();
        assert_eq!(head.start, ["POST", "/x", "HTTP/1.1"].map(String::from));
        assert_eq!(head.fields.get("x-a"), Some("1"));
        let body = reader.body(request_ends(&head.fields)).await.unwrap();
        assert_eq!((body.content.as_slice(), body.trailers.get("x-t")), (&b"abcde"[..], Some("9")));
        assert_eq!(body.on_wire, b"3;q=1\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 9\r\n\r\n");
        assert_eq!(reader.buffer, b"GET");
    }

    #[tokio::test]
    async fn a_cut_message_is_told_from_a_closed_connection() {
        assert_eq!(Reader::new(&b""[..]).head().await.unwrap_err(), Broken::Closed);
        assert_eq!(Reader::new(&b"GET / HT"[..]).head().await.unwrap_err(), Broken::Cut);
        let mut short = Reader::new(&b"abc"[..]);
        assert_eq!(short.body(Ends::After(4)).await.unwrap_err(), Broken::Cut);
    }

    #[test]
    fn answers_without_content_end_at_their_head() {
        let fields = Fields(vec![("Content-Length".into(), "5".into())]);
        assert_eq!(answer_ends("HEAD", 200, &fields), Ends::Here);
        assert_eq!(answer_ends("GET", 304, &fields), Ends::Here);
        assert_eq!(answer_ends("GET", 200, &fields), Ends::After(5));
        assert_eq!(answer_ends("GET", 200, &Fields::default()), Ends::AtClose);
    }
}
