//! A client that speaks TLS below the bytes of a [`Wire`].

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ALL_VERSIONS, ClientConfig, ClientConnection, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Authority, Leaf, provider};
use crate::deadline::within;
use crate::wire::Wire;

/// How a client connects; its connections share their session tickets.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// It believes only what this authority signed.
    pub fn trusting(authority: &Authority) -> Client {
        Client::speaking(ALL_VERSIONS, authority)
    }

    /// The same, with these versions only: `&[&rustls::version::TLS12]`.
    pub fn speaking(versions: &[&'static SupportedProtocolVersion], authority: &Authority) -> Client {
        let config =
            ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let config = config.with_root_certificates(authority.roots()).with_no_client_auth();
        Client { config: Arc::new(config) }
    }

    /// Shows this certificate when the server asks for one.
    pub fn presenting(mut self, leaf: &Leaf) -> Client {
        let key = CertifiedKey::from_der(vec![leaf.der()], leaf.key_der(), &provider()).unwrap();
        let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(key));
        Arc::make_mut(&mut self.config).client_auth_cert_resolver = resolver;
        self
    }

    /// Offers these protocols (ALPN), the one it likes best first: `["h2", "http/1.1"]`.
    pub fn offering(mut self, protocols: &[&str]) -> Client {
        let protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec());
        Arc::make_mut(&mut self.config).alpn_protocols = protocols.collect();
        self
    }

    /// For libraries that make connections themselves.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// A connection to `address` whose server must be `name`, a host name (which is sent) or an address.
    pub async fn connect(&self, address: SocketAddr, name: &str) -> Wire<TlsStream<TcpStream>> {
        let connected = self.try_connect(address, name).await;
        connected.unwrap_or_else(|error| panic!("no TLS with {name} at {address}: {error}"))
    }

    /// As [`Client::connect`]; an error when the handshake fails. With TLS 1.3 a server that refuses our
    /// certificate says so only after it: the first read fails.
    pub async fn try_connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> std::io::Result<Wire<TlsStream<TcpStream>>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = within("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(self.config.clone());
        Ok(Wire::through(within("a handshake", connector.connect(name, stream)).await?))
    }
}

impl Wire<TlsStream<TcpStream>> {
    /// What the handshake gave: `alpn_protocol`, `protocol_version`, `handshake_kind`, `peer_certificates`.
    pub fn session(&self) -> &ClientConnection {
        self.stream().get_ref().1
    }
}
