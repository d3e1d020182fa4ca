//! What people write for a connector; the doc comments are the manual.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_proxy::value::Period;

use crate::cli::ConnectArgs;

/// A connector: which services it publishes, and through which gateways.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// The gateways that services are published through: "wss://gateway.example:9070". Default: each service
    /// names its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routers: Vec<String>,
    /// Whether every address that a gateway's name has is a gateway of its own. They are looked up again each
    /// minute. Default false: a name is one gateway.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) each_address: bool,
    /// TLS to the gateways. Default: the authorities this machine trusts, no certificate of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Tls>,
    /// Fields of each registration, such as a token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// A name that people see at the gateway. Default "sluice-connector".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) component: Option<String>,
    /// Where the health endpoint listens, "127.0.0.1:9001". Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<String>,
    /// How long running requests may take to finish after TERM. Default "30s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drain_timeout: Option<Period>,
    /// The services, by name.
    pub(crate) services: BTreeMap<String, Service>,
}

/// A service that is published.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Where the service is: "http://localhost:5000" or "https://...".
    pub(crate) target: String,
    /// What is spoken with the target. Default "auto" with TLS, "http1" without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<TargetProtocol>,
    /// The first segment of the paths it answers at the gateway; "*" for all that nobody else does. Default: the
    /// service's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// The host it answers for. Default "*", every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    /// Gateways instead of those above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) routers: Vec<String>,
    /// Fields of each registration, beside those above.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// TLS to an https target. Default: the authorities this machine trusts, no certificate of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target_tls: Option<Tls>,
    /// Tunnels that are kept open to each gateway: idle ones in version 1.0, where a request uses one up, all in
    /// 3.0, where one carries many. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<u16>,
    /// Versions of the tunnels, the preferred one first. Default ["3.0", "1.0"].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) versions: Vec<TunnelVersion>,
}

/// A version of the tunnels.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum TunnelVersion {
    /// One request per tunnel.
    #[serde(rename = "1.0")]
    #[value(name = "1.0")]
    V1,
    /// Many requests per tunnel.
    #[serde(rename = "3.0")]
    #[value(name = "3.0")]
    V3,
}

/// What is spoken with a target; the words are those of the gateway's upstreams.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TargetProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, and nothing else: without TLS the target must know that (h2c with prior knowledge).
    Http2,
    /// What TLS agrees on (ALPN): HTTP/2 if the target speaks it, else HTTP/1.1. Needs TLS.
    Auto,
}

/// TLS to a server: it must prove who it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// File with the authorities that may have issued its certificate (PEM). Default: those this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    /// The name that it is asked for and must prove. Default: the host of its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sni: Option<String>,
    /// File with the certificate that it is shown when it asks for one (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chain: Option<String>,
    /// File with that certificate's private key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Document {
    /// The document that a command line stands for.
    ///
    /// # Errors
    /// A sentence about an argument that has no place in a document.
    pub(crate) fn of_arguments(args: &ConnectArgs) -> Result<Document, String> {
        let ConnectArgs { gateways, service, .. } = args;
        let mut headers = BTreeMap::new();
        for header in &gateways.headers {
            // The value may be a secret.
            let (name, value) = header.split_once(':').ok_or("--header: write \"Name: value\"")?;
            headers.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        let tls = Tls {
            ca: gateways.ca.clone(),
            sni: None,
            chain: gateways.cert.clone(),
            key: gateways.key.clone(),
        };
        let drain_timeout = args.drain_timeout.as_ref().map(|text| text.parse::<Period>()).transpose()?;
        let route = service.route.clone().unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_name = !route.is_empty() && route.bytes().all(is_plain);
        let name = if is_name { route.clone() } else { "service".to_owned() };
        let published = Service {
            target: service.target.clone().unwrap_or_default(),
            protocol: service.target_protocol,
            route: (!is_name).then_some(route),
            domain: service.domain.clone(),
            target_tls: service.target_ca.clone().map(|ca| Tls { ca: Some(ca), ..Tls::default() }),
            window: service.window,
            versions: service.versions.clone(),
            ..Service::default()
        };
        Ok(Document {
            routers: gateways.routers.clone(),
            each_address: gateways.each_address,
            tls: (tls != Tls::default()).then_some(tls),
            headers,
            component: gateways.component.clone(),
            health: args.health.clone(),
            drain_timeout,
            services: BTreeMap::from([(name, published)]),
        })
    }
}
