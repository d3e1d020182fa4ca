//! The `bandwidth` filter: how fast bodies and tunnels move.
//!
//! Promise: what is too fast waits, and is never dropped; heads are not held up. On TCP routes, and after an
//! upgrade or CONNECT, the bytes of the tunnel are what moves.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Body, Request, Response};
use sluice_traffic::pace::Policy;

use super::{Carries, Filter, Flow, Loading};
use crate::bandwidth::{Both, Throttle};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::{ByteRate, ByteSize};

/// Limits how fast bodies move, and the bytes of tunnels: of TCP connections, WebSockets and CONNECT.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// From clients: "10MiB/s". Default: as fast as it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<ByteRate>,
    /// To clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<ByteRate>,
    /// How much may come at once after a pause. Default: what a tenth of a second carries, 16KiB at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<ByteSize>,
    /// For what the rates are: for each exchange (a TCP connection is one), or for all of the route together.
    /// Default "exchange".
    pub per: Per,
}

/// For what the rates are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each exchange has them for itself.
    #[default]
    Exchange,
    /// All exchanges of the route share them.
    Route,
}

/// The checked filter.
#[derive(Debug)]
pub struct Bandwidth {
    up: Option<Policy>,
    down: Option<Policy>,
    per: Per,
    /// What all share, once it is loaded.
    shared: Option<Arc<Both>>,
}

impl Filter for Bandwidth {
    type Config = Config;

    const NAME: &'static str = "bandwidth";

    fn build(config: &Config, at: &At, problems: &mut Problems) -> Option<Bandwidth> {
        if config.up.is_none() && config.down.is_none() {
            problems.add(at, "it limits nothing").hint("up = \"1MiB/s\", down = \"10MiB/s\"");
            return None;
        }
        let policy = |rate: ByteRate| Policy {
            rate: rate.0,
            burst: config.burst.map_or((rate.0 / 10).max(16 * 1024), |burst| burst.0),
        };
        let (up, down) = (config.up.map(policy), config.down.map(policy));
        Some(Bandwidth { up, down, per: config.per, shared: None })
    }

    fn carries(_config: &Config) -> Carries {
        Carries::Connections
    }

    fn load(&mut self, loading: &Loading<'_>, _at: &At, _problems: &mut Problems) {
        if self.per == Per::Route {
            self.shared = Some(loading.shared.paces.named(loading.route));
        }
    }

    async fn on_request(
        &self,
        scene: &Scene<'_>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        let rates = (self.up, self.down);
        let throttle = match &self.shared {
            Some(both) => Throttle::new(both, rates, scene.world),
            None => Throttle::new(&Both::default(), rates, scene.world),
        };
        // What is here already has cost its time; and it can be sent again on a retry.
        if let Body::Stream(_) = &request.body {
            request.body = throttle.body(std::mem::take(&mut request.body), &throttle.up);
        }
        match &mut exchange.throttle {
            // A filter before this one slows it too.
            Some(before) => before.join(throttle),
            none => *none = Some(Box::new(throttle)),
        }
        Ok(Flow::Continue)
    }

    async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
        if let Some(throttle) = &mut exchange.throttle {
            // Taken: the first filter that sees the answer slows it for all of them.
            let lanes = std::mem::take(&mut throttle.down);
            response.body = throttle.body(std::mem::take(&mut response.body), &lanes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::filter::{Shared, fixture};

    fn build(toml: &str, shared: &Shared) -> Option<Bandwidth> {
        let config: Config = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let mut built = Bandwidth::build(&config, &At::root(), &mut problems);
        assert_eq!(built.is_some(), problems.is_empty());
        if let Some(built) = &mut built {
            built.load(&fixture::loading(shared), &At::root(), &mut problems);
        }
        built
    }

    /// Whether an answer of so many bytes is held up.
    async fn slowed(filter: &Bandwidth, bytes: usize) -> bool {
        let mut exchange = fixture::exchange("/");
        let mut request = fixture::request("GET", "/");
        let stage = fixture::stage();
        filter.on_request(&stage.scene(), &mut exchange, &mut request).await.unwrap();
        let mut response = fixture::response(200);
        response.body = Body::Full(Bytes::from(vec![0; bytes]));
        filter.on_response(&mut exchange, &mut response).await.unwrap();
        assert_eq!(response.body.length(), Some(bytes as u64));
        matches!(response.body, Body::Stream(_))
    }

    #[tokio::test(flavor = "local")]
    async fn only_what_is_more_than_the_burst_is_held_up() {
        let shared = Shared::new(b"");
        let filter = build("down = '1MiB/s'\nburst = '10KiB'", &shared).unwrap();
        assert!(!slowed(&filter, 10 * 1024).await && slowed(&filter, 10 * 1024 + 1).await);
        let up = build("up = '1MiB/s'", &shared).unwrap();
        assert!(!slowed(&up, 1 << 20).await);
        assert!(build("", &shared).is_none());
    }

    #[tokio::test(flavor = "local")]
    async fn of_two_filters_both_hold_an_answer_up_once() {
        let shared = Shared::new(b"");
        let own = build("down = '1MiB/s'\nburst = '1KiB'", &shared).unwrap();
        let route = build("down = '1MiB/s'\nburst = '100KiB'\nper = 'route'", &shared).unwrap();
        let (stage, mut exchange) = (fixture::stage(), fixture::exchange("/"));
        let mut request = fixture::request("GET", "/");
        for filter in [&own, &route] {
            filter.on_request(&stage.scene(), &mut exchange, &mut request).await.unwrap();
        }
        assert_eq!(exchange.throttle.as_ref().unwrap().down.len(), 2);
        let mut response = fixture::response(200);
        response.body = Body::Full(Bytes::from(vec![0; 2048]));
        for filter in [&route, &own] {
            filter.on_response(&mut exchange, &mut response).await.unwrap();
        }
        assert!(matches!(response.body, Body::Stream(_)), "that of the exchange holds it up");
        assert!(exchange.throttle.unwrap().down.is_empty(), "the second one did not wrap it again");
    }

    #[test]
    fn the_exchanges_of_a_route_share_and_others_do_not() {
        let shared = Shared::new(b"");
        let route = "down = '1MiB/s'\nper = 'route'";
        let (one, other) = (build(route, &shared).unwrap(), build(route, &shared).unwrap());
        assert!(Arc::ptr_eq(&one.shared.unwrap(), &other.shared.unwrap()));
        assert!(build("down = '1MiB/s'", &shared).unwrap().shared.is_none());
    }
}
