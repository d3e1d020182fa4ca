//! Everything of TLS that a document asks for, with the files as they are now.
//!
//! Promise: a problem for every file that cannot be used, and nothing changed; what did not change is the one
//! that runs, so that its sessions can still be resumed.

use std::collections::HashMap;
use std::sync::Arc;

use super::certificate::Certificate;
use super::client::{Client, System};
use super::config::{CertificatePolicy, ClientPolicy, ServerPolicy};
use super::files::day;
use super::server::Server;
use crate::problem::{At, Problems};

/// What a document asks for, by name.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// The certificates.
    pub certificates: Vec<(&'a str, &'a CertificatePolicy)>,
    /// The listeners with TLS.
    pub listeners: Vec<(&'a str, &'a ServerPolicy)>,
    /// The upstreams with TLS.
    pub upstreams: Vec<(&'a str, &'a ClientPolicy)>,
}

/// What was loaded, by name.
#[derive(Default)]
pub struct Loaded {
    servers: HashMap<String, Arc<Server>>,
    clients: HashMap<String, Arc<Client>>,
    cautions: Vec<String>,
}

/// A certificate is spoken of when it ends within so many seconds: two weeks.
const SOON: i64 = 14 * 86_400;

impl Loaded {
    /// Reads all files that are asked for; `now` is Unix time in seconds, `before` what runs.
    pub fn load(wanted: &Wanted<'_>, before: Option<&Loaded>, now: i64, problems: &mut Problems) -> Loaded {
        let mut loaded = Loaded::default();
        let mut certificates = HashMap::new();
        for (name, policy) in &wanted.certificates {
            let at = At::root().key("certificates").key(*name);
            let Some(certificate) = Certificate::load(policy, now, &at, problems) else { continue };
            if certificate.not_after() - now < SOON {
                let (file, day) = (policy.chain.display(), day(certificate.not_after()));
                loaded.cautions.push(format!("the certificate in `{file}` expires on {day}"));
            }
            certificates.insert(*name, Arc::new(certificate));
        }
        for (name, policy) in &wanted.listeners {
            let at = At::root().key("listeners").key(*name).key("tls");
            let named = policy.certificates.iter().map(|name| certificates.get(name.as_str()).cloned());
            // What is missing has its problem already; the files about clients are looked at all the same.
            let named = named.collect::<Option<Vec<_>>>().unwrap_or_default();
            let running = before.and_then(|before| before.server(name));
            if let Some(server) = Server::load(policy, named, (running, now), &at, problems) {
                loaded.servers.insert((*name).to_owned(), server);
            }
        }
        let mut system = System::default();
        for (name, policy) in &wanted.upstreams {
            let at = At::root().key("upstreams").key(*name).key("tls");
            let shown = policy.certificate.as_ref().and_then(|name| certificates.get(name.as_str()));
            let running = before.and_then(|before| before.client(name));
            let shown = shown.map(|certificate| &**certificate);
            if let Some(client) = Client::load(policy, shown, (running, &mut system), &at, problems) {
                loaded.clients.insert((*name).to_owned(), client);
            }
            if !policy.verify {
                loaded.cautions.push(format!(
                    "endpoints of upstream `{name}` need not prove who they are (verify = false): whoever is in \
                     between can read and change everything"
                ));
            }
        }
        loaded
    }

    /// TLS of a listener; None: it speaks plainly.
    pub fn server(&self, listener: &str) -> Option<&Arc<Server>> {
        self.servers.get(listener)
    }

    /// TLS to the endpoints of an upstream; None: they are spoken to plainly.
    pub fn client(&self, upstream: &str) -> Option<&Arc<Client>> {
        self.clients.get(upstream)
    }

    /// What is no problem yet, or no mistake for certain: a sentence each, for the operator.
    pub fn cautions(&self) -> &[String] {
        &self.cautions
    }
}
