//! Another proxy behind this one: which destinations go through it, and how a tunnel is asked of it.
//!
//! Promise: sans-I/O. Its credentials go to it and to nobody else. What it sends behind its answer belongs to
//! the tunnel; an answer that cannot be read, or says anything but 2xx, opens none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::h1::{self, Framing, Limits, Persist, Scanner};
use sluice_http::{Method, NameId, RequestHead};

use super::rules::{Pattern, canonical, patterns};
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::resolve::literal;

/// Another proxy, which destinations are reached through.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens, "proxy.example:3128". The rules do not apply to it.
    pub address: String,
    /// Credentials it asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Credentials>,
    /// Destinations that go through it, written as in a rule. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Destinations that do not, even if they are among `hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Whether names are looked up here too, so that rules see their addresses; the parent looks them up
    /// again. Default false: only names and addresses that the client wrote are checked, and no rule may have
    /// `networks`.
    #[serde(default)]
    pub resolve: bool,
}

/// A user and a password (RFC 7617).
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user; it holds no colon.
    pub user: String,
    /// The password; better "${file:...}" than the password itself.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A parent proxy, checked.
#[derive(Clone)]
pub struct Parent {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether names are looked up before they go to it.
    pub resolves_here: bool,
    authorization: Option<Box<[u8]>>,
    hosts: Vec<Pattern>,
    except: Vec<Pattern>,
}

impl Config {
    /// Checks it; it stands at `at`.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Parent> {
        let address = self.address.rsplit_once(':').and_then(|(host, port)| {
            let is_host = !matches!(Pattern::parse(host), Err(_) | Ok(Pattern::Any | Pattern::Below(_)));
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            is_host.then(|| (host.to_owned(), port))
        });
        if address.is_none() {
            problems
                .add(&at.key("address"), format!("`{}` is not a host with a port", self.address))
                .hint("write \"proxy.example:3128\"");
        }
        if self.authorization.as_ref().is_some_and(|credentials| credentials.user.contains(':')) {
            problems.add(&at.key("authorization").key("user"), "a user holds no colon");
        }
        let hosts = patterns(&self.hosts, &at.key("hosts"), problems);
        let except = patterns(&self.except, &at.key("except"), problems);
        let (host, port) = address?;
        let authorization = self.authorization.as_ref().map(|Credentials { user, password }| {
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes().into()
        });
        Some(Parent { host, port, resolves_here: self.resolve, authorization, hosts, except })
    }
}

impl Parent {
    /// Whether a destination goes through it.
    pub fn takes(&self, host: &str) -> bool {
        let (name, address) = (canonical(host), literal(host));
        let any = |list: &[Pattern]| list.iter().any(|pattern| pattern.matches(&name, address));
        (self.hosts.is_empty() || any(&self.hosts)) && !any(&self.except)
    }

    /// Gives a request for it our credentials. What the client wrote for us does not go there.
    pub fn authorize(&self, head: &mut RequestHead) {
        head.fields.remove(NameId::ProxyAuthorization);
        if let Some(value) = &self.authorization {
            head.fields.append(NameId::ProxyAuthorization, value);
        }
    }

    /// The request that asks it for a tunnel to `authority`, "host:port".
    pub fn connect(&self, authority: &str) -> Vec<u8> {
        let mut head = RequestHead::new("CONNECT", authority);
        head.fields.append(NameId::Host, authority.as_bytes());
        self.authorize(&mut head);
        let mut text = Vec::with_capacity(256);
        h1::request_head(&head, Framing::None, Persist::KeepAlive, &mut text);
        text
    }
}

/// Reads a parent's answer to CONNECT.
#[derive(Default)]
pub struct Handshake {
    scanner: Scanner,
    interims: u8,
}

/// A parent that sends more interim answers than this has nothing to say.
const MAX_INTERIMS: u8 = 20;

impl Handshake {
    /// Looks at what has come. True once the tunnel is open: the buffer then holds the first bytes from the
    /// destination. False asks for more bytes.
    ///
    /// # Errors
    /// [`Failure::ParentRefused`] when it opens no tunnel, [`Failure::UpstreamInvalid`] when its answer breaks
    /// the grammar.
    pub fn is_open(&mut self, buffer: &mut BytesMut) -> Result<bool, Failure> {
        let limits = Limits::default();
        while let Some(end) = self.scanner.scan(buffer, &limits).map_err(|_| Failure::UpstreamInvalid)? {
            let text = buffer.split_to(end).freeze();
            self.scanner.reset();
            let (head, _) =
                h1::response(text, Method::Connect, &limits).map_err(|_| Failure::UpstreamInvalid)?;
            match head.status {
                101 => return Err(Failure::UpstreamInvalid),
                100..200 if self.interims < MAX_INTERIMS => self.interims += 1,
                200..300 => return Ok(true),
                _ => return Err(Failure::ParentRefused),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(toml: &str) -> Result<Parent, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let parent = config.check(&At::root(), &mut problems);
        let places = || problems.iter().map(|problem| problem.at.to_string()).collect();
        parent.filter(|_| problems.is_empty()).ok_or_else(places)
    }

    #[test]
    fn destinations_go_through_it_unless_excepted() {
        let parent = checked(
            "address = 'p.test:3128'\nhosts = ['*.test', '192.0.2.1']\nexcept = ['in.test', '*.in.test']",
        )
        .unwrap();
        for (host, expected) in [
            ("a.test", true),
            ("A.TEST.", true),
            ("in.test", false),
            ("b.in.test", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("test", false),
        ] {
            assert_eq!(parent.takes(host), expected, "{host}");
        }
        assert!(checked("address = '[::1]:3128'").unwrap().takes("any.example"));
    }

    #[test]
    fn a_tunnel_is_asked_for_with_our_credentials() {
        let parent = checked("address = 'p:1'\nauthorization = { user = 'u', password = 'p:w' }").unwrap();
        assert_eq!(
            String::from_utf8(parent.connect("a.test:443")).unwrap(),
            "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nProxy-Authorization: Basic dTpwOnc=\r\n\r\n"
        );
        let mut head = RequestHead::new("GET", "/");
        head.fields.append(NameId::ProxyAuthorization, b"Basic Y2xpZW50");
        checked("address = 'p:1'").unwrap().authorize(&mut head);
        assert!(!head.fields.contains(NameId::ProxyAuthorization));
    }

    #[test]
    fn secrets_stay_out_of_debug_output() {
        let credentials = Credentials { user: "u".to_owned(), password: "hidden".to_owned() };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }

    #[test]
    fn an_answer_opens_the_tunnel_byte_by_byte_and_leaves_what_follows() {
        let answer =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nVia: 1.1 p\r\nContent-Length: 3\r\n\r\nSSH";
        let (mut handshake, mut buffer, mut open) = (Handshake::default(), BytesMut::new(), false);
        for byte in answer {
            buffer.extend_from_slice(&[*byte]);
            open = open || handshake.is_open(&mut buffer).unwrap();
        }
        assert!(open);
        assert_eq!(buffer, &b"SSH"[..]);
    }

    #[test]
    fn anything_else_opens_none() {
        for (answer, expected) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Failure::ParentRefused),
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\n", Failure::ParentRefused),
            ("HTTP/1.1 503 No\r\n\r\n", Failure::ParentRefused),
            ("HTTP/1.1 302 Found\r\n\r\n", Failure::ParentRefused),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Failure::UpstreamInvalid),
            ("SSH-2.0-OpenSSH\r\n\r\n", Failure::UpstreamInvalid),
            ("HTTP/1.1 200 OK\nVia: x\n\n", Failure::UpstreamInvalid),
        ] {
            let result = Handshake::default().is_open(&mut BytesMut::from(answer));
            assert_eq!(result, Err(expected), "{answer:?}");
        }
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(40);
        assert_eq!(Handshake::default().is_open(&mut BytesMut::from(&*endless)), Err(Failure::ParentRefused));
    }

    #[test]
    fn wrong_settings_are_problems_with_a_place() {
        for (toml, place) in [
            ("address = 'p.test'", "address"),
            ("address = ':3128'", "address"),
            ("address = '*:3128'", "address"),
            ("address = 'http://p:3128'", "address"),
            ("address = 'p:0'", "address"),
            ("address = 'p:1'\nhosts = ['a b']", "hosts[0]"),
            ("address = 'p:1'\nexcept = ['']", "except[0]"),
            ("address = 'p:1'\nauthorization = { user = 'a:b', password = '' }", "authorization.user"),
        ] {
            assert_eq!(checked(toml).err(), Some(vec![place.to_owned()]), "{toml}");
        }
    }
}
