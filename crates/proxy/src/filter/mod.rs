//! Steps around a route's action: one file each, one row each.
//!
//! Promise: filters run in the order written on the way in, and in reverse on the way out for exactly those
//! that were entered: an answer that a filter, the action or a failure gave passes back through every filter
//! whose `on_request` was called, whatever it returned. Calling a filter is one match on an enum: nothing is
//! boxed, and a filter that does nothing in a phase costs nothing in it.
//!
//! To add one: a file in this folder with a type that is a [`Filter`], its `mod` line, and its row in the
//! table below.

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sluice_http::{Request, Response};

use crate::bandwidth::Paces;
use crate::circuit::Circuits;
use crate::consumer::Consumers;
use crate::credentials::Verifier;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::gates::Gates;
use crate::limit::Limits;
use crate::limit::seen::Seen;
use crate::problem::{At, Problems};
use crate::purpose::Purpose;
use crate::redis::Connections;
use crate::scene::Scene;
use crate::token::{Directories, Memory, Remotes, Revoked, Rings};

pub mod acl;
pub mod api_key;
pub mod bandwidth;
pub mod basic_auth;
pub mod body_limit;
mod challenge;
pub mod concurrency;
pub mod cors;
pub mod except;
#[cfg(test)]
pub(crate) mod fixture;
pub mod forward_auth;
pub mod grpc_web;
pub mod headers;
pub mod hmac;
pub mod ip_access;
pub mod jwt;
pub mod lookup;
pub mod query_edits;
pub mod quota;
pub mod rate_limit;
pub mod rewrite;
pub mod security_headers;

/// A step around a route's action. Built once for a snapshot and shared by all workers; the futures stay on
/// one worker and need not be `Send`.
pub trait Filter: Debug + Send + Sync + Sized {
    /// What people write under the filter's name. Its doc comments are the manual.
    type Config: DeserializeOwned + Serialize + JsonSchema + Clone + Debug;

    /// The key that names the filter in a document.
    const NAME: &'static str;

    /// Checks and compiles a configuration, which stands at `at`; `None` when it added problems. Pure: what
    /// stands in files is for [`Filter::load`].
    fn build(config: &Self::Config, at: &At, problems: &mut Problems) -> Option<Self>;

    /// Finds what it names elsewhere in the document. Called once, after [`Filter::build`]; pure as well.
    fn find(&mut self, _known: &Known<'_>, _at: &At, _problems: &mut Problems) {}

    /// The files it reads, so that a change of one can be noticed.
    fn files(_config: &Self::Config) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Reads its files and takes what it needs of the process. Called once, on the control thread, before
    /// anything runs through it.
    fn load(&mut self, _loading: &Loading<'_>, _at: &At, _problems: &mut Problems) {}

    /// What its request phase works on. One that works on connections looks at no field and no body of the
    /// request, which only stands for one then, and never answers; its response phase is not called.
    fn carries(_config: &Self::Config) -> Carries {
        Carries::Requests
    }

    /// Runs before the action. May change the request, answer in the action's place, or fail.
    fn on_request(
        &self,
        _scene: &Scene<'_>,
        _exchange: &mut Exchange,
        _request: &mut Request,
    ) -> impl Future<Output = Result<Flow, Failure>> {
        std::future::ready(Ok(Flow::Continue))
    }

    /// Runs after the action, and also for answers the gateway made itself. May change the response or fail;
    /// after a failure the filters that are left see the failure's answer.
    fn on_response(
        &self,
        _exchange: &mut Exchange,
        _response: &mut Response,
    ) -> impl Future<Output = Result<(), Failure>> {
        std::future::ready(Ok(()))
    }
}

/// What a filter can work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carries {
    /// HTTP requests.
    Requests,
    /// Connections of TCP listeners too.
    Connections,
    /// Flows of UDP listeners too: it decides at once, without waiting.
    Flows,
}

/// What else stands in a document.
pub struct Known<'a> {
    /// Whom the gateway knows.
    pub consumers: &'a Arc<Consumers>,
    /// The names of the upstreams, in the model's order.
    pub upstreams: &'a [&'a str],
    /// The directories in which tokens are issued.
    pub directories: &'a Directories,
}

/// What a filter is loaded with.
pub struct Loading<'a> {
    /// What the filters of the process share.
    pub shared: &'a Shared,
    /// The name of its route.
    pub route: &'a str,
    /// The name of the upstream that the route forwards to, if it does.
    pub upstream: Option<&'a str>,
    /// Whom the gateway knows.
    pub consumers: &'a Arc<Consumers>,
    /// The limits that were loaded before.
    pub seen: &'a Seen,
}

/// What the filters of a process share. It outlives every snapshot.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Checks passwords.
    pub verifier: Arc<Verifier>,
    /// Connections to Redis servers.
    pub redis: Arc<Connections>,
    /// What limits and quotas have counted.
    pub limits: Arc<Limits>,
    /// Key sets that others publish.
    pub key_sets: Arc<Remotes>,
    /// Tokens that were found right a moment ago.
    pub tokens: Arc<Memory>,
    /// Keys that tokens are signed with.
    pub rings: Arc<Rings>,
    /// Tokens that were taken back.
    pub revoked: Arc<Revoked>,
    /// Limits of what runs at once.
    pub gates: Arc<Gates>,
    /// Rates that exchanges share.
    pub paces: Arc<Paces>,
    /// Breakers of routes and upstreams.
    pub circuits: Arc<Circuits>,
    /// Signed requests that were there.
    pub signatures: Arc<hmac::Signatures>,
    /// What services have said of who may come in.
    pub answers: Arc<forward_auth::Answers>,
}

impl Shared {
    /// That of a process that starts; `secret` is its own.
    pub fn new(secret: &[u8]) -> Shared {
        Shared::for_purpose(Purpose::Running, secret)
    }

    /// The same, or one with which filters are loaded only to find out what is wrong with them.
    pub fn for_purpose(purpose: Purpose, secret: &[u8]) -> Shared {
        let verifier = Verifier::new(secret);
        let tokens = Arc::new(Memory::new(verifier.number(b"tokens")));
        let redis = Arc::new(Connections::new(purpose));
        let (key_sets, rings) = (Arc::new(Remotes::new(purpose)), Arc::new(Rings::new(purpose)));
        let limits = Arc::new(Limits::new(purpose));
        let (gates, circuits, paces, revoked) = Default::default();
        let (signatures, answers) = Default::default();
        Shared {
            verifier,
            redis,
            key_sets,
            tokens,
            rings,
            revoked,
            gates,
            circuits,
            paces,
            limits,
            signatures,
            answers,
        }
    }
}

/// What happens after a filter's request phase.
#[derive(Debug)]
pub enum Flow {
    /// The next filter, or the action.
    Continue,
    /// This answer, now; no further filter and no action runs.
    Answer(Response),
}

/// The table of filters. The row `Headers => headers::Headers,` expands to
///
/// ```text
/// pub enum Config { Headers(headers::Config) }            // { headers = { ... } } in a document
/// pub enum Built { Headers(headers::Headers) }            // what runs
/// impl Config { fn build(&self, ..) -> Option<Built> { match self { Config::Headers(config) => .. } } }
/// impl Built { async fn on_request(&self, ..) { match self { Built::Headers(filter) => .. } } } // + on_response
/// pub const NAMES: &[&str] = &["headers"];
/// ```
macro_rules! filters {
    ($($(#[$doc:meta])* $name:ident => $filter:ty,)*) => {
        /// A filter: one key, which names it, with its settings.
        #[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case", deny_unknown_fields)]
        #[allow(clippy::large_enum_variant, reason = "there are few of them, and none is copied on the way")]
        pub enum Config { $($(#[$doc])* $name(<$filter as Filter>::Config),)* }

        /// A filter that is ready to run.
        #[derive(Debug)]
        #[allow(clippy::large_enum_variant, reason = "they stand in one list, read in order and never moved")]
        pub enum Built { $($(#[$doc])* $name($filter),)* }

        /// The names of all filters, in the order of the table.
        pub const NAMES: &[&str] = &[$(<$filter as Filter>::NAME,)*];

        impl Config {
            /// Checks and compiles it. `at` is its place in the list: `routes[0].filters[1]`.
            pub fn build(&self, at: &At, problems: &mut Problems) -> Option<Built> {
                match self {
                    $(Config::$name(config) => {
                        <$filter>::build(config, &at.key(<$filter>::NAME), problems).map(Built::$name)
                    })*
                }
            }

            /// The key that names it in a document.
            pub fn name(&self) -> &'static str {
                match self { $(Config::$name(_) => <$filter>::NAME,)* }
            }

            /// What it works on.
            pub fn carries(&self) -> Carries {
                match self { $(Config::$name(config) => <$filter>::carries(config),)* }
            }

            /// The files it reads.
            pub fn files(&self) -> Vec<PathBuf> {
                match self { $(Config::$name(config) => <$filter>::files(config),)* }
            }
        }

        impl Built {
            /// The key that names it in a document.
            pub fn name(&self) -> &'static str {
                match self { $(Built::$name(_) => <$filter>::NAME,)* }
            }

            /// Whether preflights (Fetch standard) are for it.
            pub fn answers_preflights(&self) -> bool {
                matches!(self, Built::Cors(_))
            }

            /// Finds what it names elsewhere; `at` is its place in the list, as for [`Config::build`].
            pub fn find(&mut self, known: &Known<'_>, at: &At, problems: &mut Problems) {
                match self {
                    $(Built::$name(filter) => filter.find(known, &at.key(<$filter>::NAME), problems),)*
                }
            }

            /// Reads its files; `at` is its place in the list, as for [`Config::build`].
            pub fn load(&mut self, loading: &Loading<'_>, at: &At, problems: &mut Problems) {
                match self {
                    $(Built::$name(filter) => filter.load(loading, &at.key(<$filter>::NAME), problems),)*
                }
            }

            async fn on_request(
                &self,
                scene: &Scene<'_>,
                exchange: &mut Exchange,
                request: &mut Request,
            ) -> Result<Flow, Failure> {
                match self { $(Built::$name(filter) => filter.on_request(scene, exchange, request).await,)* }
            }

            async fn on_response(&self, exchange: &mut Exchange, response: &mut Response) -> Result<(), Failure> {
                match self { $(Built::$name(filter) => filter.on_response(exchange, response).await,)* }
            }
        }
    };
}

filters! {
    /// Lets pages of other origins use the route.
    Cors => cors::Cors,
    /// Tells browsers to be careful.
    SecurityHeaders => security_headers::SecurityHeaders,
    /// Lets in who proves to be a user, by name and password (RFC 7617).
    BasicAuth => basic_auth::BasicAuth,
    /// Lets in who has a valid token (RFC 7519, RFC 6750).
    Jwt => jwt::Jwt,
    /// Lets in consumers by keys that machines carry.
    ApiKey => api_key::ApiKey,
    /// Lets in consumers whose requests are signed.
    Hmac => hmac::HmacAuth,
    /// Asks a service who may come in.
    ForwardAuth => forward_auth::ForwardAuth,
    /// Lets in by who is asking: groups of consumers, claims of tokens.
    Acl => acl::Acl,
    /// Lets in by the client's address.
    IpAccess => ip_access::IpAccess,
    /// Limits how many exchanges run at once.
    Concurrency => concurrency::Concurrency,
    /// Limits how fast bodies and tunnels move.
    Bandwidth => bandwidth::Bandwidth,
    /// Limits the bodies of requests.
    BodyLimit => body_limit::BodyLimit,
    /// Limits how fast requests come.
    RateLimit => rate_limit::Limiter,
    /// Limits how many requests there are in a period.
    Quota => quota::Limiter,
    /// Edits the fields of requests and responses.
    Headers => headers::Headers,
    /// Changes the path and the query that the endpoint sees.
    Rewrite => rewrite::Rewrite,
    /// Translates gRPC-Web to gRPC and back.
    GrpcWeb => grpc_web::Translate,
}

/// Builds a route's filters; `at` is the place of the list. Those with a problem are left out.
pub fn build_all(configs: &[Config], known: &Known<'_>, at: &At, problems: &mut Problems) -> Vec<Built> {
    let mut filters = Vec::with_capacity(configs.len());
    for (index, config) in configs.iter().enumerate() {
        let at = at.index(index);
        let Some(mut filter) = config.build(&at, problems) else { continue };
        filter.find(known, &at, problems);
        filters.push(filter);
    }
    check_order(configs, at, problems);
    filters
}

/// What is refused because of what stands before it.
fn check_order(configs: &[Config], at: &At, problems: &mut Problems) {
    check_cors(configs, at, problems);
    check_counting(configs, at, problems);
}

/// A preflight carries no credentials (Fetch standard, section 4.8): whoever asks for some refuses it, and a browser
/// never sends the request that would have them.
fn check_cors(configs: &[Config], at: &At, problems: &mut Problems) {
    let asks = |config: &&Config| {
        matches!(
            config,
            Config::BasicAuth(_)
                | Config::Jwt(_)
                | Config::ApiKey(_)
                | Config::Hmac(_)
                | Config::ForwardAuth(_)
                | Config::Acl(_)
        )
    };
    let Some(index) = configs.iter().position(|config| matches!(config, Config::Cors(_))) else { return };
    if let Some(before) = configs.iter().take(index).find(asks) {
        let message = format!(
            "{} refuses preflights, which carry no credentials, before they come here",
            before.name()
        );
        problems.add(&at.index(index).key("cors"), message).hint("write cors first");
    }
}

/// Whether it finds out who is asking.
fn tells_caller(config: &Config) -> bool {
    matches!(config, Config::BasicAuth(_) | Config::Jwt(_) | Config::ApiKey(_) | Config::Hmac(_))
}

/// Whether one of them finds out who is asking.
pub fn tell_callers(configs: &[Config]) -> bool {
    configs.iter().any(tells_caller)
}

/// What counts by the consumer stands behind what finds out who that is: before it, everybody would be counted
/// by the address.
fn check_counting(configs: &[Config], at: &At, problems: &mut Problems) {
    let Some(first) = configs.iter().position(tells_caller) else { return };
    for (index, config) in configs.iter().enumerate().take(first) {
        let per = match config {
            Config::Concurrency(concurrency::Config { per, .. }) => per.as_deref(),
            Config::RateLimit(rate_limit::Config { per, .. }) | Config::Quota(quota::Config { per, .. }) => {
                Some(&**per)
            }
            _ => None,
        };
        if per == Some("consumer") {
            let message = format!("who is asking is not known before {}", configs[first].name());
            problems
                .add(&at.index(index).key(config.name()), message)
                .hint("write it behind that, or count by something else: per = \"client\"");
        }
    }
}

/// How far the request phase came.
#[derive(Debug)]
pub struct Entered {
    /// How many filters were entered: the number to give to [`response_phase`].
    pub count: usize,
    /// What the last of them said; `Continue` when the action is next.
    pub flow: Result<Flow, Failure>,
}

/// Runs `on_request` of each filter in order, until one answers or fails.
///
/// Not cancel-safe: when it is dropped half-way, nobody knows how many were entered.
pub async fn request_phase(
    filters: &[Built],
    scene: &Scene<'_>,
    (exchange, request): (&mut Exchange, &mut Request),
) -> Entered {
    for (index, filter) in filters.iter().enumerate() {
        match filter.on_request(scene, exchange, request).await {
            Ok(Flow::Continue) => {}
            flow => return Entered { count: index + 1, flow },
        }
    }
    Entered { count: filters.len(), flow: Ok(Flow::Continue) }
}

/// A filter's response phase failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// How.
    pub failure: Failure,
    /// How many entered filters have not seen a response yet: make the failure's answer and run
    /// [`response_phase`] over it with this number.
    pub left: usize,
}

/// Runs `on_response` in reverse order of the first `entered` filters.
pub async fn response_phase(
    filters: &[Built],
    entered: usize,
    exchange: &mut Exchange,
    response: &mut Response,
) -> Result<(), Interrupted> {
    for (left, filter) in filters.iter().enumerate().take(entered).rev() {
        filter.on_response(exchange, response).await.map_err(|failure| Interrupted { failure, left })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(toml: &str) -> (Vec<Built>, Problems) {
        #[derive(Deserialize)]
        struct Holder {
            filters: Vec<Config>,
        }
        let holder: Holder = toml_edit::de::from_str(toml).unwrap();
        let mut problems = Problems::new();
        let consumers = fixture::consumers(
            "[a]\napi_keys = ['sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683']\n\
             hmac_keys = { k = '0123456789abcdef' }",
        );
        let known = Known { upstreams: &["u"], ..fixture::known(&consumers) };
        (build_all(&holder.filters, &known, &At::root(), &mut problems), problems)
    }

    fn chain(toml: &str) -> Vec<Built> {
        let (built, problems) = build(toml);
        assert!(problems.is_empty(), "{problems:?}");
        built
    }

    fn places(filters: &str) -> Vec<String> {
        let (_, problems) = build(&format!("filters = [{filters}]"));
        problems.iter().map(|problem| problem.at.to_string()).collect()
    }

    #[test]
    fn every_row_is_known_by_its_name() {
        let schema = serde_json::to_string(&schemars::schema_for!(Config)).unwrap();
        for name in NAMES {
            assert!(schema.contains(&format!("\"required\":[\"{name}\"]")), "{name} in {schema}");
        }
        let built = chain(
            "filters = [
               { cors = { origins = ['*'] } }, { security_headers = {} },
               { basic_auth = { file = 'users' } }, { jwt = { secret = '0123456789abcdef' } },
               { api_key = {} }, { hmac = {} }, { forward_auth = { upstream = 'u', path = '/' } },
               { acl = {} }, { ip_access = { deny = ['192.0.2.1'] } },
               { concurrency = { limit = 1 } },
               { bandwidth = { up = '1MiB/s' } }, { body_limit = { limit = '1MiB' } },
               { rate_limit = { rate = '1/s' } }, { quota = { limit = 1, period = 'day' } },
               { headers = {} }, { rewrite = { strip_prefix = '/a' } }, { grpc_web = {} },
             ]",
        );
        assert_eq!(built.iter().map(Built::name).collect::<Vec<_>>(), NAMES);
    }

    #[test]
    fn what_counts_by_the_consumer_stands_behind_what_knows_it() {
        let quota = "{ quota = { limit = 1, period = 'day' } }";
        let limit = "{ concurrency = { limit = 1, per = 'consumer' } }";
        assert_eq!(
            places(&format!("{quota}, {limit}, {{ api_key = {{}} }}")),
            ["[0].quota", "[1].concurrency"]
        );
        for right in [format!("{{ api_key = {{}} }}, {quota}, {{ hmac = {{}} }}"), quota.to_owned()] {
            assert!(places(&right).is_empty(), "{right}");
        }
        assert!(places("{ rate_limit = { rate = '1/s' } }, { api_key = {} }").is_empty());
    }

    #[test]
    fn cors_stands_before_what_asks_for_credentials() {
        let cors = "{ cors = { origins = ['https://a.example'] } }";
        for asks in ["{ api_key = {} }", "{ forward_auth = { upstream = 'u', path = '/' } }", "{ acl = {} }"]
        {
            assert_eq!(places(&format!("{asks}, {cors}")), ["[1].cors"], "{asks}");
            assert!(places(&format!("{cors}, {asks}")).is_empty(), "{asks}");
        }
        assert!(places(&format!("{{ ip_access = {{ deny = ['::1'] }} }}, {cors}")).is_empty());
    }

    #[test]
    fn an_unknown_filter_or_key_is_refused() {
        for text in [r#"{"nope": {}}"#, r#"{"headers": {"reqest": {}}}"#, r#"{"headers": {}, "rewrite": {}}"#]
        {
            assert!(serde_json::from_str::<Config>(text).is_err(), "{text}");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn requests_pass_in_order_and_responses_in_reverse() {
        let filters = chain(
            "filters = [
               { headers = { request = { add = { x-way = 'in-1' } }, response = { add = { x-way = 'out-1' } } } },
               { headers = { request = { add = { x-way = 'in-2' } }, response = { add = { x-way = 'out-2' } } } },
             ]",
        );
        let stage = fixture::stage();
        let mut exchange = fixture::exchange("/");
        let mut request = fixture::request("GET", "/");
        let mut response = fixture::response(200);
        let entered = request_phase(&filters, &stage.scene(), (&mut exchange, &mut request)).await;
        assert!(entered.count == 2 && matches!(entered.flow, Ok(Flow::Continue)), "{entered:?}");
        response_phase(&filters, entered.count, &mut exchange, &mut response).await.unwrap();
        assert_eq!(fixture::values(&request.head.fields, "x-way"), ["in-1", "in-2"]);
        assert_eq!(fixture::values(&response.head.fields, "x-way"), ["out-2", "out-1"]);
    }

    #[tokio::test(flavor = "local")]
    async fn only_entered_filters_see_the_response_and_the_failing_one_counts() {
        let filters = chain(
            "filters = [
               { headers = { response = { add = { x-way = 'out-1' } } } },
               { rewrite = { regex = '^/(.)x$', to = '/${1}.' } },
               { headers = { request = { set = { x-late = '1' } }, response = { add = { x-way = 'out-3' } } } },
             ]",
        );
        let stage = fixture::stage();
        let mut exchange = fixture::exchange("/");
        // Becomes "/..", which a rewrite refuses.
        let mut request = fixture::request("GET", "/.x");
        let entered = request_phase(&filters, &stage.scene(), (&mut exchange, &mut request)).await;
        assert!(entered.count == 2 && matches!(entered.flow, Err(Failure::BadRequest)), "{entered:?}");
        assert!(fixture::values(&request.head.fields, "x-late").is_empty());
        let mut response = fixture::response(400);
        response_phase(&filters, entered.count, &mut exchange, &mut response).await.unwrap();
        assert_eq!(fixture::values(&response.head.fields, "x-way"), ["out-1"]);
    }

    #[test]
    fn built_filters_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Built>();
    }
}
