//! The connection of a health check.

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::stream::Socket;

/// Connects, and sends `header` first: a PROXY header, or nothing. The error says what was wrong, for
/// operators.
pub(super) async fn dial(address: &Address, header: &[u8]) -> Result<Socket, String> {
    let connected = match address {
        Address::Inet(address) => TcpStream::connect(address).await.map(Socket::Tcp),
        Address::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
    };
    let mut socket = connected.map_err(|error| format!("connect: {error}"))?;
    socket.write_all(header).await.map_err(|error| format!("send: {error}"))?;
    Ok(socket)
}
