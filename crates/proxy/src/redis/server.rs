//! What a document says of a Redis server: one URL.
//!
//! Promise: no message and no name of it holds the password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::percent::parameter;
use crate::problem::{At, Problems};
use crate::tls::{self, Offer, Version};
use crate::value::Period;

/// How long a call may take when the URL does not say it.
const TIMEOUT: Duration = Duration::from_millis(250);

/// What makes TLS to it; none: plain.
pub(super) type Secure = Option<(Arc<ClientConfig>, ServerName<'static>)>;

/// A Redis server: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or
/// `unix:///path[?db=number]`. `?timeout=250ms` says how long a call may take, `?ca=file` (of `rediss`) who may
/// have issued its certificate.
#[derive(Clone)]
pub struct Server {
    /// As written: two servers are the same when this is.
    text: String,
    pub(super) place: Place,
    pub(super) settings: RedisConnectionInfo,
    pub(super) timeout: Duration,
    tls: Option<tls::ClientPolicy>,
}

/// Where it listens.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

impl PartialEq for Server {
    fn eq(&self, other: &Server) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.name()).finish()
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Server, String> {
        const FORM: &str = "a Redis server is written \"redis://host:6379/0\", \"rediss://host:6380\" or \"unix:///run/redis.sock\"";
        let form = || FORM.to_owned();
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        let secure = match scheme {
            "redis" | "unix" => false,
            "rediss" => true,
            _ => return Err(form()),
        };
        let plain = if secure { format!("redis://{rest}") } else { text.to_owned() };
        let info = plain.as_str().into_connection_info().map_err(|_| form())?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Place::Tcp(host.clone(), *port),
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            _ => return Err(form()),
        };
        if rest.contains('#') {
            return Err("nothing follows a `#` in it: in a password that is \"%23\"".to_owned());
        }
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        let known: &[&str] = match scheme {
            "unix" => &["timeout", "db", "user", "pass", "protocol"],
            _ => &["timeout", "ca", "protocol"],
        };
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        // Without its value, which may be a password.
        if let Some(name) =
            query.split('&').map(name).find(|name| !known.contains(&name.as_str()) && !query.is_empty())
        {
            return Err(format!("it takes no parameter `{name}`; there are {}", known.join(", ")));
        }
        let timeout = match parameter(query, "timeout") {
            None => TIMEOUT,
            Some(text) => text.parse::<Period>()?.0,
        };
        if timeout.is_zero() {
            return Err("with a timeout of zero every call would fail".to_owned());
        }
        let ca = parameter(query, "ca").map(PathBuf::from);
        if ca.is_some() && !secure {
            return Err("`ca` is for rediss:// only: nothing is encrypted here".to_owned());
        }
        let min_version = Version::Tls12;
        let tls = secure.then_some(tls::ClientPolicy {
            ca,
            sni: None,
            certificate: None,
            verify: true,
            min_version,
        });
        Ok(Server { text: text.to_owned(), place, settings: info.redis_settings().clone(), timeout, tls })
    }
}

impl Server {
    /// Reads the server a document names. `None` when a problem was added: the line may hold a password and is
    /// not shown.
    pub fn check(text: &str, at: &At, problems: &mut Problems) -> Option<Server> {
        match text.parse() {
            Ok(server) => Some(server),
            Err(message) => {
                problems.add(at, message).withhold();
                None
            }
        }
    }

    /// Where it is, for logs and metrics: "127.0.0.1:6379/0", "/run/redis.sock".
    pub fn name(&self) -> String {
        match &self.place {
            Place::Tcp(host, port) => format!("{host}:{port}/{}", self.settings.db()),
            Place::Unix(path) => path.display().to_string(),
        }
    }

    /// Reads what TLS needs. `None` when a problem was added.
    pub(super) fn load_tls(&self, at: &At, problems: &mut Problems) -> Option<Secure> {
        let Some(policy) = &self.tls else { return Some(None) };
        let Place::Tcp(host, _) = &self.place else { return Some(None) };
        let client = tls::Client::outgoing(policy, at, problems)?;
        let name = ServerName::try_from(host.clone()).map_err(|_| "no certificate can be for this host");
        let name = problems.take(at, name)?;
        Some(Some((Arc::clone(client.config(Offer::Nothing)), name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_one_url() {
        let server: Server = "redis://u:p%40s@cache.example:7000/3?timeout=50ms".parse().unwrap();
        assert_eq!(server.name(), "cache.example:7000/3");
        assert_eq!(server.timeout, Duration::from_millis(50));
        assert_eq!((server.settings.username(), server.settings.password()), (Some("u"), Some("p@s")));
        assert_eq!(format!("{server:?}"), "Server(\"cache.example:7000/3\")");
        let server: Server = "unix:///run/redis.sock?db=2".parse().unwrap();
        assert_eq!((server.name().as_str(), server.settings.db()), ("/run/redis.sock", 2));
        let server: Server = "rediss://[::1]".parse().unwrap();
        assert_eq!(server.name(), "::1:6379/0");
        assert!(server.tls.is_some());
    }

    #[test]
    fn what_is_no_server_is_said_without_its_password() {
        for text in [
            "",
            "127.0.0.1:6379",
            "http://secret@h",
            "redis://:secret@",
            "redis://:secret@h:99999",
            "redis://:secret@h/x",
            "redis://:secret@h?timeout=0s",
            "redis://:secret@h?timeout=x",
            "redis://:secret@h?ca=/a",
            "redis://:secret@h?timout=5ms",
            "redis://:secret@h?db=1",
            "rediss://:secret@h#insecure",
        ] {
            let mut problems = Problems::new();
            assert!(Server::check(text, &At::root(), &mut problems).is_none(), "{text}");
            assert!(!format!("{problems:?}").contains("secret"), "{problems:?}");
        }
    }
}
