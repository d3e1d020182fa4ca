//! Documents for tests: the usual gateway with the lines a test is about.

use std::net::SocketAddr;

use sluice_testkit::Gateway;

/// What a test adds to the usual document, which forwards everything to the upstream `app`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lines<'a> {
    /// Lines of `[listeners.web]`.
    pub listener: &'a str,
    /// Lines of the route.
    pub route: &'a str,
    /// Members of the route's `forward` table.
    pub forward: &'a str,
    /// Lines of `[upstreams.app]`.
    pub upstream: &'a str,
    /// Further tables.
    pub more: &'a str,
}

impl Lines<'_> {
    /// The document.
    pub(crate) fn document(&self, endpoints: &[SocketAddr]) -> String {
        let Lines { listener, route, forward, upstream, more } = self;
        let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
        let endpoints = endpoints.join(", ");
        let comma = if forward.is_empty() { "" } else { ", " };
        let tables = format!(
            "[[routes]]\nname = \"all\"\nforward = {{ upstream = \"app\"{comma}{forward} }}\n{route}\n\n\
             [upstreams.app]\nendpoints = [{endpoints}]\n{upstream}\n\n{more}\n"
        );
        base(listener) + &tables
    }

    /// A gateway with this document.
    pub(crate) async fn start(&self, endpoints: &[SocketAddr]) -> Gateway {
        Gateway::start(&self.document(endpoints)).await
    }
}

/// A document with the listener `web` alone, and these lines in it.
pub(crate) fn base(listener: &str) -> String {
    format!(
        "[process]\nworkers = 1\nadmin = {{ address = \"127.0.0.1:0\" }}\n\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\n{listener}\n\n"
    )
}
