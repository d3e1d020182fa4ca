//! Connections of a connector, with our TLS where an address says so.

use std::io;
use std::sync::Arc;

use sluice_proxy::tls::{Client, Offer};
use sluice_tunnel::connector::{Address, Dial, LocalFuture, Security, Stream, Tcp};
use tokio_rustls::TlsConnector;

/// Dials in plain, and with TLS when there is a client of it.
pub(super) struct Dialler {
    tls: Option<Arc<Client>>,
}

impl Dialler {
    pub(super) fn new(tls: Option<Arc<Client>>) -> Dialler {
        Dialler { tls }
    }
}

impl Dial for Dialler {
    fn dial(&self, to: &Address) -> LocalFuture<io::Result<Box<dyn Stream>>> {
        if to.security == Security::Plain {
            return Tcp.dial(to);
        }
        let Some(tls) = self.tls.clone() else { return Tcp.dial(to) };
        let plain = Tcp.dial(&Address { security: Security::Plain, ..to.clone() });
        let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
        let endpoint = format!("{host}:{}", to.port);
        Box::pin(async move {
            let name = tls.server_name(&endpoint).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("no certificate can be for {endpoint}"))
            })?;
            let stream = plain.await?;
            let secured =
                TlsConnector::from(Arc::clone(tls.config(Offer::Http1))).connect(name, stream).await;
            let secured = secured.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?;
            Ok(Box::new(secured) as Box<dyn Stream>)
        })
    }
}
