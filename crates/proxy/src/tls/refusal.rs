//! Why a TLS handshake with a client failed.

use std::io;

use rustls::{AlertDescription, Error};

macro_rules! refusals {
    ($($name:ident $code:literal $about:literal,)*) => {
        /// Why a TLS handshake with a client failed. The code is stable: it labels a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum TlsRefusal { $(#[doc = $about] $name,)* }

        impl TlsRefusal {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [TlsRefusal] = &[$(TlsRefusal::$name,)*];

            /// The kebab-case code that counts it.
            pub const fn code(self) -> &'static str {
                match self { $(TlsRefusal::$name => $code,)* }
            }
        }
    };
}

refusals! {
    NotTls "tls-not-tls" "The client does not speak TLS.",
    Closed "tls-closed" "The client left before the handshake was complete.",
    TimedOut "tls-timeout" "The handshake took longer than `handshake_timeout`.",
    NoCommon "tls-no-common-parameters" "No version, cipher suite or group that both sides speak.",
    NoProtocol "tls-no-common-alpn" "No application protocol that both sides speak.",
    UnknownName "tls-unknown-name" "No certificate for the name the client asked for.",
    ClientCertificate "tls-client-certificate" "The client showed no certificate, or one that is not accepted.",
    Rejected "tls-rejected-by-client" "The client did not accept our certificate, or gave up.",
    Malformed "tls-malformed" "A message that broke the rules of TLS.",
}

impl TlsRefusal {
    /// The reason behind a failed handshake.
    pub fn of(error: &io::Error) -> TlsRefusal {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            None => TlsRefusal::Closed,
            Some(Error::PeerIncompatible(_)) => TlsRefusal::NoCommon,
            Some(Error::NoApplicationProtocol) => TlsRefusal::NoProtocol,
            Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
                TlsRefusal::ClientCertificate
            }
            // What rustls says when the resolver has no certificate for the client.
            Some(Error::General(_)) => TlsRefusal::UnknownName,
            Some(Error::AlertReceived(AlertDescription::CloseNotify)) => TlsRefusal::Closed,
            Some(Error::AlertReceived(_)) => TlsRefusal::Rejected,
            Some(_) => TlsRefusal::Malformed,
        }
    }
}
