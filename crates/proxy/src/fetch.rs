//! Getting a small document over HTTP or HTTPS, for the control side: key sets and the like.
//!
//! Promise: one GET, no redirect is followed, the answer is bounded in size; the caller bounds the time. Why it
//! failed is said for operators and never reaches a client.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sluice_http::h1::{self, Decoded, Decoder, Framing, Limits, Persist, Scanner};
use sluice_http::{Method, NameId, RequestHead, ResponseHead};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::problem::{At, Problems};
use crate::stream::{Socket, Stream};
use crate::tls::{self, Offer};

/// Where a document is, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
}

impl Url {
    /// Reads "https://host:port/path?query".
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Url, String> {
        let wrong = || format!("`{text}` is not a URL that can be asked: \"https://id.example/keys\"");
        let (secure, rest) = match text.split_once("://").ok_or_else(wrong)? {
            ("https", rest) => (true, rest),
            ("http", rest) => (false, rest),
            _ => return Err(wrong()),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let plain = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if authority.is_empty() || authority.contains('@') || !plain(rest) || rest.contains('#') {
            return Err(wrong());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (authority, if secure { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { secure, host, port, authority: authority.to_owned(), target: format!("{slash}{target}") })
    }

    /// Whether it is asked over TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        // What stands in the query may be a key.
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

/// Gets one document.
pub struct Fetch {
    url: Url,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Fetch {
    /// Reads what TLS needs; `None` when a problem was added.
    pub fn new(url: Url, ca: Option<&str>, at: &At, problems: &mut Problems) -> Option<Fetch> {
        if !url.secure {
            return Some(Fetch { url, tls: None });
        }
        let policy = tls::ClientPolicy {
            ca: ca.map(Into::into),
            sni: None,
            certificate: None,
            verify: true,
            min_version: tls::Version::Tls12,
        };
        let client = tls::Client::outgoing(&policy, at, problems)?;
        let name = ServerName::try_from(url.host.clone()).map_err(|_| "no certificate can be for this host");
        let name = problems.take(at, name)?;
        Some(Fetch { url, tls: Some((Arc::clone(client.config(Offer::Http1)), name)) })
    }

    /// Asks. Only 200 is an answer; at most `cap` bytes.
    ///
    /// # Errors
    /// What went wrong, for operators.
    pub async fn get(&self, cap: usize) -> Result<Vec<u8>, String> {
        let socket = TcpStream::connect((&*self.url.host, self.url.port)).await;
        let socket = Socket::Tcp(socket.map_err(|error| format!("connect: {error}"))?);
        let mut stream = match &self.tls {
            None => Stream::Plain(socket),
            Some((config, name)) => {
                let connected = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket).await;
                Stream::Client(Box::new(connected.map_err(|error| format!("TLS: {error}"))?))
            }
        };
        let mut head = RequestHead::new("GET", &self.url.target);
        head.fields.append(NameId::Host, self.url.authority.as_bytes());
        head.fields.append(NameId::UserAgent, b"sluice");
        head.fields.append(NameId::Accept, b"application/json, */*;q=0.1");
        let mut out = Vec::with_capacity(256);
        h1::request_head(&head, Framing::None, Persist::Close, &mut out);
        stream.write_all(&out).await.map_err(|error| format!("send: {error}"))?;
        let mut buffer = BytesMut::with_capacity(4096);
        let (head, framing) = read_answer(&mut stream, &mut buffer).await?;
        if head.status != 200 {
            return Err(format!("status {}", head.status));
        }
        let body = read_body(&mut stream, (&mut buffer, framing), cap + 1).await?;
        if body.len() > cap {
            return Err(format!("more than {cap} bytes"));
        }
        Ok(body)
    }
}

/// The head of the answer; interim ones before it are passed over. The caller's deadline bounds their number.
pub(crate) async fn read_answer(
    stream: &mut Stream,
    buffer: &mut BytesMut,
) -> Result<(ResponseHead, Framing), String> {
    loop {
        let head = read_head(stream, buffer).await?;
        let (head, framing) = h1::response(head, Method::Get, &Limits::default())
            .map_err(|refusal| format!("invalid answer: {refusal}"))?;
        if head.status >= 200 || head.status == 101 {
            return Ok((head, framing));
        }
    }
}

async fn read_head(stream: &mut Stream, buffer: &mut BytesMut) -> Result<Bytes, String> {
    let mut scanner = Scanner::default();
    loop {
        let found = scanner.scan(buffer, &Limits::default());
        if let Some(end) = found.map_err(|refusal| format!("invalid answer: {refusal}"))? {
            return Ok(buffer.split_to(end).freeze());
        }
        if stream.read_buf(buffer).await.map_err(|error| format!("receive: {error}"))? == 0 {
            return Err("the connection closed before an answer".into());
        }
    }
}

/// The first `cap` bytes of the body.
pub(crate) async fn read_body(
    stream: &mut Stream,
    (buffer, framing): (&mut BytesMut, Framing),
    cap: usize,
) -> Result<Vec<u8>, String> {
    let mut decoder = Decoder::new(framing, &Limits::default());
    let mut body = Vec::new();
    while body.len() < cap {
        match decoder.decode(buffer).map_err(|refusal| format!("invalid answer: {refusal}"))? {
            Decoded::Data(bytes) => body.extend_from_slice(&bytes),
            Decoded::Trailers(_) | Decoded::Done => break,
            Decoded::More => {
                let read = stream.read_buf(buffer).await.map_err(|error| format!("receive: {error}"))?;
                if read == 0 && decoder.eof() {
                    break;
                } else if read == 0 {
                    return Err("the body ended early".into());
                }
            }
        }
    }
    body.truncate(cap);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_without_its_query() {
        for (text, host, port, target, shown) in [
            ("https://id.example/keys?k=1", "id.example", 443, "/keys?k=1", "https://id.example/keys"),
            ("http://[::1]:81", "::1", 81, "/", "http://[::1]:81/"),
            ("http://[::1]", "::1", 80, "/", "http://[::1]/"),
            ("http://a?b", "a", 80, "/?b", "http://a/"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((&*url.host, url.port, &*url.target), (host, port, target), "{text}");
            assert_eq!(url.to_string(), shown);
        }
        for text in [
            "",
            "id.example",
            "ftp://a",
            "https://",
            "https://u@a/",
            "https://a:x/",
            "https://a/ b",
            "http://a#b",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
