//! Opening a tunnel: dial, announce, read the answer.

use std::fmt;
use std::io;

use bytes::BytesMut;
use sluice_http::h1::{self, Framing, Limits, Persist, Scanner};
use sluice_http::{Method, websocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::address::Address;
use super::dial::{Dial, Stream};
use super::hooks::Hooks;
use crate::registration::{Announcement, Extensions, Purpose, Unregistered, Version};

/// Why a tunnel could not be opened.
#[derive(Debug)]
pub enum OpenFailed {
    /// No connection, or it broke.
    Io(io::Error),
    /// It took too long.
    TimedOut,
    /// The gateway answered with this status.
    Status(u16),
    /// The answer is no HTTP.
    Malformed(h1::Refusal),
    /// The answer does not agree.
    Handshake(Unregistered),
}

impl fmt::Display for OpenFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenFailed::Io(error) => error.fmt(f),
            OpenFailed::TimedOut => f.write_str("the gateway took too long"),
            OpenFailed::Status(status) => write!(f, "the gateway answered {status}"),
            OpenFailed::Malformed(refusal) => write!(f, "the gateway's answer is malformed: {refusal}"),
            OpenFailed::Handshake(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for OpenFailed {}

impl From<io::Error> for OpenFailed {
    fn from(error: io::Error) -> OpenFailed {
        OpenFailed::Io(error)
    }
}

/// A tunnel before its first message.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Stream>,
    /// What came behind the answer.
    pub(super) buf: BytesMut,
    pub(super) version: Version,
    pub(super) extensions: Extensions,
}

/// Opens a tunnel, or the socket of a deregistration. The caller has a deadline.
pub(super) async fn open(
    (to, purpose): (&Address, Purpose),
    announcement: &Announcement,
    (dial, hooks): (&dyn Dial, &dyn Hooks),
    random: [u8; 16],
) -> Result<Opened, OpenFailed> {
    let mut stream = dial.dial(to).await?;
    let key = websocket::key(random);
    let mut head = announcement.request(purpose, &to.authority(), &key);
    hooks.register(to, &mut head);
    let mut out = Vec::new();
    h1::request_head(&head, Framing::None, Persist::Upgrade, &mut out);
    stream.write_all(&out).await?;
    stream.flush().await?;
    let (mut buf, mut scanner, limits) =
        (BytesMut::with_capacity(1024), Scanner::default(), Limits::default());
    let length = loop {
        if let Some(length) = scanner.scan(&buf, &limits).map_err(OpenFailed::Malformed)? {
            break length;
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    let raw = buf.split_to(length).freeze();
    let (answer, _) = h1::response(raw, Method::Get, &limits).map_err(OpenFailed::Malformed)?;
    if answer.status != 101 {
        return Err(OpenFailed::Status(answer.status));
    }
    let (version, extensions) = match purpose {
        Purpose::Register => announcement.accepted(&answer, &key).map_err(OpenFailed::Handshake)?,
        Purpose::Deregister => {
            websocket::agreed(&answer, &key).map_err(|why| OpenFailed::Handshake(why.into()))?;
            (Version::V1, Extensions::NONE)
        }
    };
    Ok(Opened { stream, buf, version, extensions })
}
