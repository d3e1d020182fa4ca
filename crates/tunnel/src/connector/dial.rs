//! Connections to gateways and targets. TLS is the program's business: this crate takes any stream.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::address::{Address, Security};

/// A future of this thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Makes connections.
pub trait Dial {
    /// Connects, with TLS where the address says so. The caller has a deadline.
    fn dial(&self, to: &Address) -> LocalFuture<io::Result<Box<dyn Stream>>>;
}

/// Plain TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, to: &Address) -> LocalFuture<io::Result<Box<dyn Stream>>> {
        let to = to.clone();
        Box::pin(async move {
            if to.security == Security::Tls {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "this connector has no TLS"));
            }
            let stream = match to.ip {
                Some(ip) => TcpStream::connect(SocketAddr::new(ip, to.port)).await?,
                None => TcpStream::connect((&to.host[..], to.port)).await?,
            };
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
