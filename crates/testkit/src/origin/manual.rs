//! An origin that a test plays itself, byte by byte, where no script says enough.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::deadline::within;
use crate::wire::Wire;

/// A port whose connections the test accepts and answers with its own hands.
#[derive(Debug)]
pub struct ManualOrigin {
    listener: TcpListener,
}

impl ManualOrigin {
    /// Starts listening on a loopback port.
    pub async fn start() -> ManualOrigin {
        ManualOrigin { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    pub async fn accept(&self) -> Wire {
        let (stream, _) = within("a connection at the origin", self.listener.accept()).await.unwrap();
        Wire::over(stream)
    }
}
