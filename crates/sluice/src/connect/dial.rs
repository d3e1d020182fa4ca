//! Connections of a connector, with our TLS where an address says so.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use sluice_proxy::tls::{Client, Offer};
use sluice_tunnel::connector::{Address, Dial, LocalFuture, Security, Stream, Tcp};
use tokio_rustls::TlsConnector;

/// Dials in plain, and with TLS when there is a client of it.
/// Clones are one dialler.
#[derive(Clone)]
pub(super) struct Dialler {
    tls: Rc<RefCell<Option<Arc<Client>>>>,
}

/// A connection, and what TLS agreed on (ALPN).
pub(super) struct Reached {
    pub(super) stream: Box<dyn Stream>,
    /// Whether that was HTTP/2.
    pub(super) agreed_http2: bool,
}

impl Dialler {
    pub(super) fn new(tls: Option<Arc<Client>>) -> Dialler {
        Dialler { tls: Rc::new(RefCell::new(tls)) }
    }

    /// Connections to come are made with this client of TLS.
    pub(super) fn renew(&self, tls: Option<Arc<Client>>) {
        self.tls.replace(tls);
    }

    /// Connects, and offers these protocols where TLS is spoken.
    pub(super) fn reach(&self, to: &Address, offer: Offer) -> LocalFuture<io::Result<Reached>> {
        let tls = self.tls.borrow().clone().filter(|_| to.security == Security::Tls);
        let Some(tls) = tls else {
            // Without a client of TLS it says so itself.
            let plain = Tcp.dial(to);
            return Box::pin(async move { Ok(Reached { stream: plain.await?, agreed_http2: false }) });
        };
        let plain = Tcp.dial(&Address { security: Security::Plain, ..to.clone() });
        let host = if to.host.contains(':') { format!("[{}]", to.host) } else { to.host.clone() };
        let endpoint = format!("{host}:{}", to.port);
        Box::pin(async move {
            let name = tls.server_name(&endpoint).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("no certificate can be for {endpoint}"))
            })?;
            let stream = plain.await?;
            let secured = TlsConnector::from(Arc::clone(tls.config(offer))).connect(name, stream).await;
            let secured = secured.map_err(|error| io::Error::new(error.kind(), format!("TLS: {error}")))?;
            let agreed_http2 = secured.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(Reached { stream: Box::new(secured), agreed_http2 })
        })
    }
}

impl Dial for Dialler {
    fn dial(&self, to: &Address) -> LocalFuture<io::Result<Box<dyn Stream>>> {
        let reaching = self.reach(to, Offer::Http1);
        Box::pin(async move { Ok(reaching.await?.stream) })
    }
}
