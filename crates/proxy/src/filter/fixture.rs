//! Plain values that tests of filters and actions run on.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use sluice_http::{Body, FieldName, Fields, Request, RequestHead, Response, ResponseHead};
use sluice_traffic::breaker::Change;

use super::{Known, Loading, Shared};
use crate::circuit::Circuit;
use crate::consumer::{self, Consumers};
use crate::exchange::{Client, Exchange};
use crate::facts::Scheme;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::token::Directories;
use crate::upstream::live::Live;
use crate::upstream::{Events, Upstream};
use crate::world::{Clock, World};

/// A worker's world without upstreams.
pub(crate) struct Stage {
    world: Rc<World>,
    events: Rc<dyn Events>,
}

struct Nobody;

impl Events for Nobody {
    fn shed(&self, _: &Arc<Live>) {}

    fn breaker_changed(&self, _: &Upstream, _: usize, _: Change) {}

    fn circuit_changed(&self, _: &Circuit, _: Change) {}
}

/// A stage. Must be called on a `LocalRuntime`: `#[tokio::test(flavor = "local")]`.
pub(crate) fn stage() -> Stage {
    // One clock for all: what a filter counted on one stage is earlier on the next.
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::start);
    Stage { world: World::new(*CLOCK, 1), events: Rc::new(Nobody) }
}

impl Stage {
    /// What filters see of it.
    pub(crate) fn scene(&self) -> Scene<'_> {
        Scene { world: &self.world, upstreams: &[], interim: &|_| {}, events: &self.events }
    }
}

/// What a filter of route "shop" is loaded with where nobody is known.
pub(crate) fn loading(shared: &Shared) -> Loading<'_> {
    static NOBODY: LazyLock<Arc<Consumers>> = LazyLock::new(Arc::default);
    // A document of its own each time; a test has a few.
    let seen = Box::leak(Box::default());
    Loading { shared, route: "shop", upstream: None, consumers: &NOBODY, seen }
}

/// What else stands in a document with these consumers alone.
pub(crate) fn known(consumers: &Arc<Consumers>) -> Known<'_> {
    static NONE: Directories = Directories::new();
    Known { consumers, upstreams: &[], directories: &NONE }
}

/// The consumers of a table in TOML.
pub(crate) fn consumers(toml: &str) -> Arc<Consumers> {
    let mut problems = Problems::new();
    let table = toml_edit::de::from_str(toml).unwrap();
    let consumers = consumer::check(&table, &At::root(), &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    consumers
}

/// An exchange of route "shop" from 192.0.2.7:4711 with request id "r-1" and this normalised path.
#[allow(clippy::disallowed_methods, reason = "an Instant can only be made from the clock; no test reads it")]
pub(crate) fn exchange(path: &str) -> Exchange {
    let peer = "192.0.2.7:4711".parse().unwrap();
    let client = Client { peer, address: peer.ip(), scheme: Scheme::Http, listener: "web".into(), tls: None };
    let mut exchange = Exchange::begin(client, "r-1".to_owned(), Instant::now());
    exchange.path = path.to_owned();
    exchange.route = "shop".into();
    exchange
}

/// A request for host "shop.example" without a body.
pub(crate) fn request(method: &str, target: &str) -> Request {
    let mut head = RequestHead::new(method, target);
    head.fields.append(sluice_http::NameId::Host, b"shop.example");
    Request { head, body: Body::Empty }
}

/// A response without fields and body.
pub(crate) fn response(status: u16) -> Response {
    Response { head: ResponseHead::new(status), body: Body::Empty }
}

/// A checked field name.
pub(crate) fn name(text: &str) -> FieldName {
    FieldName::new(text).unwrap()
}

/// The values of all field lines of a name.
pub(crate) fn values(fields: &Fields, of: &str) -> Vec<String> {
    fields.get_all(&name(of)).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}
