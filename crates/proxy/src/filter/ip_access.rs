//! The `ip_access` filter: who may come in, by address.
//!
//! Promise: the address is the trusted one (a peer's own word counts only when it is a trusted proxy); a lookup
//! is two binary searches whatever the length of the lists; what two lists both name goes as the document says.

use std::net::IpAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::Request;

use super::{Carries, Filter, Flow, Loading};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::network_list::List;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::Network;

/// Lets in by the client's address: the peer's, or what a trusted proxy said (`trusted_proxies` of the
/// listener). Others get 403. With a list of who is allowed, everybody else is denied; without one, everybody
/// who is not denied is allowed. `precedence` says what happens when there are both.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who is allowed: addresses and networks, "192.0.2.7", "10.0.0.0/8", "2001:db8::/32".
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Network>,
    /// Who is denied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Network>,
    /// A file with more of who is allowed: an address or network on each line. An empty one allows nobody. A
    /// relative name starts where the gateway was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_file: Option<String>,
    /// A file with more of who is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_file: Option<String>,
    /// Which list counts for an address that both name, and what becomes of one that neither names. Default
    /// "deny".
    pub precedence: Precedence,
}

/// Which list counts for an address that both name.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Precedence {
    /// Who is denied is denied, though the other list allows it: `deny` holds exceptions from `allow`. Where
    /// there is an `allow`, an address that neither names is denied.
    #[default]
    Deny,
    /// Who is allowed is allowed, though the other list denies it: `allow` holds exceptions from `deny`. Where
    /// there is a `deny`, an address that neither names is allowed.
    Allow,
}

/// The checked filter.
#[derive(Debug)]
pub struct IpAccess {
    allow: List,
    deny: List,
    others: Others,
    precedence: Precedence,
}

/// What becomes of an address that no list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    Allowed,
    Denied,
}

impl Filter for IpAccess {
    type Config = Config;

    const NAME: &'static str = "ip_access";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<IpAccess> {
        let found = problems.iter().count();
        for (key, file) in [("allow_file", &config.allow_file), ("deny_file", &config.deny_file)] {
            if file.as_deref() == Some("") {
                problems.add(&at.key(key), "the name of the file is empty");
            }
        }
        let allows = !config.allow.is_empty() || config.allow_file.is_some();
        let denies = !config.deny.is_empty() || config.deny_file.is_some();
        if !allows && !denies {
            problems.add(at, "it allows everybody").hint("give it `allow` or `deny`, or leave it out");
        }
        (problems.iter().count() == found).then(|| IpAccess {
            allow: List::new(&config.allow, config.allow_file.as_ref()),
            deny: List::new(&config.deny, config.deny_file.as_ref()),
            others: match config.precedence {
                Precedence::Deny if allows => Others::Denied,
                Precedence::Allow if !denies => Others::Denied,
                _ => Others::Allowed,
            },
            precedence: config.precedence,
        })
    }

    fn files(config: &Config) -> Vec<PathBuf> {
        config.allow_file.iter().chain(&config.deny_file).map(PathBuf::from).collect()
    }

    fn carries(_config: &Config) -> Carries {
        Carries::Flows
    }

    fn load(&mut self, _loading: &Loading<'_>, at: &At, problems: &mut Problems) {
        self.read(at, problems);
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        exchange: &mut Exchange,
        _request: &mut Request,
    ) -> Result<Flow, Failure> {
        match self.permits(exchange.client.address) {
            true => Ok(Flow::Continue),
            false => Err(Failure::Forbidden),
        }
    }
}

impl IpAccess {
    /// Reads its files.
    pub fn read(&mut self, at: &At, problems: &mut Problems) {
        self.allow.load(&at.key("allow_file"), problems);
        self.deny.load(&at.key("deny_file"), problems);
    }

    /// Whether a client with this address may come in. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn permits(&self, address: IpAddr) -> bool {
        match (self.allow.names(address), self.deny.names(address)) {
            (true, true) => self.precedence == Precedence::Allow,
            (true, false) => true,
            (false, true) => false,
            (false, false) => self.others == Others::Allowed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Shared, fixture};
    use crate::line_file::tests::TextFile;

    fn build(toml: &str) -> Result<IpAccess, Vec<String>> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let at = At::root().key("ip_access");
        let mut built = IpAccess::build(&config, &at, &mut problems);
        if let Some(built) = &mut built {
            built.load(&fixture::loading(&Shared::new(b"")), &at, &mut problems);
        }
        let told = || problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect();
        built.filter(|_| problems.is_empty()).ok_or_else(told)
    }

    fn permitted(toml: &str, addresses: &[&str]) -> Vec<bool> {
        let filter = build(toml).unwrap();
        addresses.iter().map(|address| filter.permits(address.parse().unwrap())).collect()
    }

    #[test]
    fn only_who_is_listed_is_allowed_and_who_is_denied_is_not() {
        let toml =
            "allow = ['10.0.0.0/8', '2001:db8::/32', '192.0.2.7']\ndeny = ['10.9.9.9', '2001:db8:1::/48']";
        let addresses = [
            "10.1.2.3",
            "10.9.9.9",
            "10.9.9.8",
            "11.0.0.0",
            "9.255.255.255",
            "192.0.2.7",
            "192.0.2.8",
            "2001:db8::1",
            "2001:db8:1::1",
            "2001:db9::",
            "::1",
        ];
        let expected = [true, false, true, false, false, true, false, true, false, false, false];
        assert_eq!(permitted(toml, &addresses), expected);
    }

    #[test]
    fn without_an_allow_list_everybody_else_is_allowed() {
        let addresses = ["10.9.9.9", "10.9.9.8", "::1", "2001:db8::1"];
        assert_eq!(permitted("deny = ['10.9.9.9', '2001:db8::/32']", &addresses), [false, true, true, false]);
    }

    #[test]
    fn precedence_says_which_list_counts() {
        let lists = "allow = ['10.1.0.0/16']\ndeny = ['10.0.0.0/8']\n";
        let addresses = ["10.1.2.3", "10.2.2.3", "11.0.0.1"];
        assert_eq!(permitted(lists, &addresses), [false, false, false]);
        let toml = format!("{lists}precedence = 'allow'");
        assert_eq!(permitted(&toml, &addresses), [true, false, true]);
        let one_list = "precedence = 'allow'\nallow = ['10.1.0.0/16']";
        assert_eq!(permitted(one_list, &addresses), [true, false, false]);
        let one_list = "precedence = 'allow'\ndeny = ['10.1.0.0/16']";
        assert_eq!(permitted(one_list, &addresses), [false, true, true]);
    }

    #[test]
    fn mapped_addresses_count_as_ipv4_on_both_sides() {
        let addresses = ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:11.1.2.3", "::10.1.2.3"];
        for allow in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            let toml = format!("allow = ['{allow}']");
            assert_eq!(permitted(&toml, &addresses), [true, true, false, false], "{allow}");
        }
        assert_eq!(permitted("deny = ['::/0']", &["::1", "10.0.0.1"]), [false, true]);
        assert_eq!(permitted("deny = ['0.0.0.0/0']", &["::1", "255.255.255.255"]), [true, false]);
    }

    #[test]
    fn files_add_to_the_lists_and_wrong_lines_are_named() {
        let file = TextFile::new("networks", b"# ours\n192.0.2.0/24  # office\n2001:db8::1\n");
        let toml = format!("allow = ['10.0.0.1']\nallow_file = '{}'", file.0.display());
        let addresses = ["10.0.0.1", "192.0.2.200", "2001:db8::1", "2001:db8::2"];
        assert_eq!(permitted(&toml, &addresses), [true, true, true, false]);
        let config: Config = toml_edit::de::from_str(&toml).unwrap();
        assert_eq!(IpAccess::files(&config), std::slice::from_ref(&file.0));

        let empty = TextFile::new("no-networks", b"# nobody\n");
        assert_eq!(permitted(&format!("allow_file = '{}'", empty.0.display()), &["10.0.0.1"]), [false]);

        let wrong = TextFile::new("wrong-networks", b"10.0.0.1\n10.0.0.300\n");
        let problems = build(&format!("deny_file = '{}'", wrong.0.display())).unwrap_err();
        let told = format!("ip_access.deny_file: {}:2: `10.0.0.300` is not an address", wrong.0.display());
        assert!(problems.len() == 1 && problems[0].starts_with(&told), "{problems:?}");
    }

    #[test]
    fn a_filter_that_says_nothing_is_refused() {
        assert_eq!(build("").unwrap_err(), ["ip_access: it allows everybody"]);
        assert_eq!(
            build("allow_file = ''").unwrap_err(),
            ["ip_access.allow_file: the name of the file is empty"]
        );
    }

    #[tokio::test(flavor = "local")]
    async fn the_trusted_address_decides() {
        let filter = build("allow = ['10.0.0.1']").unwrap();
        let mut exchange = fixture::exchange("/");
        let mut request = fixture::request("GET", "/");
        let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
        assert!(matches!(flow, Err(Failure::Forbidden)), "{flow:?}");
        exchange.client.address = "10.0.0.1".parse().unwrap();
        let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
        assert!(matches!(flow, Ok(Flow::Continue)), "{flow:?}");
    }
}
