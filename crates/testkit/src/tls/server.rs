//! A server that ends TLS before an origin in the clear, and remembers what the clients showed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{Authority, Leaf, provider};
use crate::peer::own_loopback;

/// What one handshake showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It succeeded.
    Done {
        /// The name that the client asked for (SNI).
        name: Option<String>,
        /// The protocol that was agreed on (ALPN).
        protocol: Option<String>,
        /// The client's certificate.
        certificate: Option<CertificateDer<'static>>,
    },
    /// It failed, and why.
    Failed(String),
}

/// A server's configuration: this certificate, and clients need none. ALPN is the field `alpn_protocols`.
pub fn server_config(leaf: &Leaf) -> ServerConfig {
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    config.with_no_client_auth().with_single_cert(vec![leaf.der()], leaf.key_der()).unwrap()
}

/// The same for clients with a certificate that `clients` signed; others are refused.
pub fn server_config_for_clients(leaf: &Leaf, clients: &Authority) -> ServerConfig {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), provider());
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    config
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![leaf.der()], leaf.key_der())
        .unwrap()
}

/// A TLS server; what comes through it goes to an origin in the clear. Dropping it ends its connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handshakes: Arc<Mutex<Vec<Handshake>>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts it on a loopback address of its own, before `origin`.
    pub async fn before(origin: SocketAddr, config: ServerConfig) -> Server {
        let listener = TcpListener::bind((own_loopback(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let handshakes = Arc::<Mutex<Vec<Handshake>>>::default();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accepting = tokio::spawn(accept(listener, (acceptor, origin), handshakes.clone()));
        Server { address, handshakes, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handshakes that have ended so far.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.handshakes.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    (acceptor, origin): (TlsAcceptor, SocketAddr),
    seen: Arc<Mutex<Vec<Handshake>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Those that have ended need not be kept.
        while connections.try_join_next().is_some() {}
        let (acceptor, seen) = (acceptor.clone(), seen.clone());
        connections.spawn(async move {
            let accepted = acceptor.accept(stream).await;
            let handshake = match &accepted {
                Ok(stream) => {
                    let session = stream.get_ref().1;
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    Handshake::Done {
                        name: session.server_name().map(String::from),
                        protocol: session.alpn_protocol().map(text),
                        certificate: session.peer_certificates().and_then(|chain| chain.first().cloned()),
                    }
                }
                Err(error) => Handshake::Failed(error.to_string()),
            };
            seen.lock().unwrap().push(handshake);
            if let (Ok(mut outer), Ok(mut inner)) = (accepted, TcpStream::connect(origin).await) {
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            }
        });
    }
}
