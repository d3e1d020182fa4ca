//! The connection of a health check.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::address::Address;
use crate::stream::{Socket, Stream};

/// How an endpoint is spoken to.
#[derive(Clone)]
pub(super) struct Line {
    /// Sent first: a PROXY header, or nothing.
    pub(super) header: Vec<u8>,
    /// TLS, and the name the endpoint must prove.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What HTTP checks speak.
    pub(super) over: Over,
}

/// What an HTTP check speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

impl Line {
    /// Connects. The error says what was wrong, for operators.
    pub(super) async fn dial(&self, address: &Address) -> Result<Stream, String> {
        let socket = self.connect(address).await?;
        let Some((config, name)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let connector = TlsConnector::from(Arc::clone(config));
        let stream = connector.connect(name.clone(), socket).await;
        stream.map(|stream| Stream::Client(Box::new(stream))).map_err(|error| format!("TLS: {error}"))
    }

    /// Connects, without TLS.
    pub(super) async fn connect(&self, address: &Address) -> Result<Socket, String> {
        let connected = match address {
            Address::Inet(address) => TcpStream::connect(address).await.map(Socket::Tcp),
            Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
        };
        let mut socket = connected.map_err(|error| format!("connect: {error}"))?;
        socket.write_all(&self.header).await.map_err(|error| format!("send: {error}"))?;
        Ok(socket)
    }

    /// What requests on it say.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
