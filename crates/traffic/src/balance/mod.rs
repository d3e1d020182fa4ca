//! Balancers: each chooses one endpoint of a group for a request.
//!
//! A balancer is a file (its `Config`, its state, its tests) and a row in the table below; configuration,
//! schema, dispatch and the list of names come from the rows. Dispatch is static.
//!
//! Promise: a pick is an available member with weight, or `None` when there is none. It does not allocate,
//! and it is O(1) in the number of members (O(log) for rings) unless the method must look at all of them
//! (`least_requests`, `source_hash`, `bounded_hash`, weighted `round_robin`) or nearly none of them is
//! available.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Rng;

pub mod bounded_hash;
mod draw;
mod keyed;
pub mod least_requests;
pub mod maglev;
pub mod peak_ewma;
pub mod random;
mod ring;
pub mod ring_hash;
pub mod round_robin;
pub mod source_hash;
pub mod two_choices;

/// A member of the group when a balancer is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// What stays the same over reloads and is different for each member: its address. Hashes use it, not the
    /// position.
    pub key: &'a str,
    /// Its share of the traffic, relative to the others'; 0 takes none.
    pub weight: u32,
}

/// The group as it is now; indexes are those of the members the balancer was built from.
pub trait View {
    /// How many members there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the member may be picked.
    fn available(&self, index: usize) -> bool;

    /// Its weight now: [`Member::weight`], or less in slow start; 0 takes none.
    fn weight(&self, index: usize) -> f64;

    /// Exchanges it works on now, this gateway's.
    fn in_flight(&self, index: usize) -> u32;

    /// Its latency now in nanoseconds, see [`crate::latency`]; 0 when nothing is known.
    fn latency(&self, index: usize) -> f64;
}

/// What a balancer is.
pub trait Balance: Sized {
    /// Its options.
    type Config;

    /// Whether the hash given to [`Balance::pick`] matters.
    const NEEDS_HASH: bool;

    /// Builds it; this may be expensive.
    fn new(config: &Self::Config, members: &[Member<'_>]) -> Self;

    /// Chooses a member.
    fn pick<V: View>(&mut self, view: &V, hash: u64, rng: &mut Rng) -> Option<usize>;

    /// Takes over the position of `old`; `map` gives the old index of a new one. Nothing to do without state.
    fn adopt(&mut self, _old: &Self, _map: impl Fn(usize) -> Option<usize>) {}
}

/// The hash of what an exchange is balanced by (client address, header, cookie...), for [`Balancer::pick`].
/// XXH3, 64 bits: the same on every machine and in every version.
pub fn hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// Whether the member takes anything now.
fn takes<V: View>(view: &V, index: usize) -> bool {
    index < view.len() && view.available(index) && view.weight(index) > 0.0
}

macro_rules! balancers {
    ($($(#[doc = $doc:literal])+ $name:literal => $module:ident :: $kind:ident,)+) => {
        /// The names of all balancers, in the order of their table.
        pub const NAMES: &[&str] = &[$($name),+];

        /// How an endpoint is chosen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
        pub enum Kind {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $kind,)+
        }

        impl Kind {
            /// Its name in documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => $name,)+
                }
            }
        }

        /// A balancer's kind and options. In documents: its name, or a table `{ name = { options } }`.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Config {
            $($(#[doc = $doc])+ $kind($module::Config),)+
        }

        impl Config {
            /// Which balancer it configures.
            pub const fn kind(&self) -> Kind {
                match self {
                    $(Config::$kind(_) => Kind::$kind,)+
                }
            }

            /// Its options read from `map`, whose key `kind` was.
            fn options<'de, M: MapAccess<'de>>(kind: Kind, map: &mut M) -> Result<Config, M::Error> {
                match kind {
                    $(Kind::$kind => map.next_value().map(Config::$kind),)+
                }
            }
        }

        impl From<Kind> for Config {
            /// With the default options.
            fn from(kind: Kind) -> Config {
                match kind {
                    $(Kind::$kind => Config::$kind($module::Config::default()),)+
                }
            }
        }

        impl Serialize for Config {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if *self == Config::from(self.kind()) {
                    return to.serialize_str(self.kind().name());
                }
                let mut map = to.serialize_map(Some(1))?;
                match self {
                    $(Config::$kind(options) => map.serialize_entry($name, options)?,)+
                }
                map.end()
            }
        }

        impl JsonSchema for Config {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                "Balance".into()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                "sluice_traffic::balance::Config".into()
            }

            /// The form `schemars` gives an enum: first every name alone, then every one with its options.
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let names = [$(name_schema($name, concat!($($doc),+)),)+];
                let options = [$(generator.subschema_for::<$module::Config>(),)+];
                let rows = [$(($name, concat!($($doc),+)),)+].into_iter().zip(&options);
                let tables = rows.map(|((name, text), options)| table_schema(name, text, options));
                let forms: Vec<Schema> = names.into_iter().chain(tables).collect();
                json_schema!({
                    "description": "How an endpoint is chosen: a name, or a table of one name and options.",
                    "oneOf": forms,
                })
            }
        }

        /// A balancer of one of the kinds, with its state. One for each worker: build it once and clone it;
        /// the large tables are shared between clones.
        #[derive(Clone, Debug)]
        pub enum Balancer {
            $($(#[doc = $doc])+ $kind($module::$kind),)+
        }

        impl Balancer {
            /// Builds a balancer for these members.
            pub fn new(config: &Config, members: &[Member<'_>]) -> Balancer {
                match config {
                    $(Config::$kind(options) => Balancer::$kind(Balance::new(options, members)),)+
                }
            }

            /// Whether the hash given to [`Balancer::pick`] matters.
            pub const fn needs_hash(&self) -> bool {
                match self {
                    $(Balancer::$kind(_) => <$module::$kind as Balance>::NEEDS_HASH,)+
                }
            }

            /// Chooses a member that is available and has weight; `None` when there is none. `hash` is the
            /// [`hash()`] of what the exchange is balanced by; any number when not [`Balancer::needs_hash`].
            pub fn pick<V: View>(&mut self, view: &V, hash: u64, rng: &mut Rng) -> Option<usize> {
                if view.len() <= 1 {
                    return takes(view, 0).then_some(0);
                }
                match self {
                    $(Balancer::$kind(balancer) => balancer.pick(view, hash, rng),)+
                }
            }

            /// Takes over the position of the balancer before a reload, so that unchanged members are not
            /// picked twice in a row because of it. `map` gives the old index of a new one, `None` for a new
            /// member. Nothing to take over when the kind changed.
            pub fn adopt(&mut self, old: &Balancer, map: impl Fn(usize) -> Option<usize>) {
                match (self, old) {
                    $((Balancer::$kind(new), Balancer::$kind(old)) => new.adopt(old, map),)+
                    _ => {}
                }
            }
        }
    };
}

balancers! {
    /// In turn, by weight, evenly spread (smooth weighted round robin).
    "round_robin" => round_robin::RoundRobin,
    /// At random, by weight.
    "random" => random::Random,
    /// The one with the fewest requests in flight for its weight.
    "least_requests" => least_requests::LeastRequests,
    /// Of two drawn at random by weight, the one with fewer requests in flight for its weight.
    "two_choices" => two_choices::TwoChoices,
    /// Of two drawn at random by weight, the one with the lower latency times requests in flight for its
    /// weight.
    "peak_ewma" => peak_ewma::PeakEwma,
    /// By hash (rendezvous): the same key goes to the same endpoint; a change moves the fewest keys.
    "source_hash" => source_hash::SourceHash,
    /// By hash on a ring (ketama): as source_hash, and quick with many endpoints.
    "ring_hash" => ring_hash::RingHash,
    /// By hash on a ring, but never more than a bounded share of the requests in flight.
    "bounded_hash" => bounded_hash::BoundedHash,
    /// By hash in a table (Maglev): the evenest and quickest, moves a few more keys on a change.
    "maglev" => maglev::Maglev,
}

#[expect(clippy::derivable_impls, reason = "no row of the table is special")]
impl Default for Kind {
    fn default() -> Self {
        Kind::RoundRobin
    }
}

impl Default for Config {
    fn default() -> Self {
        Kind::default().into()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = Config;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a balancer's name, or a table of one name with its options")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Config, E> {
        Kind::deserialize(serde::de::value::StrDeserializer::new(name)).map(Config::from)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Config, M::Error> {
        let Some(kind) = map.next_key::<Kind>()? else {
            return Err(M::Error::invalid_length(0, &"exactly one balancer"));
        };
        let config = Config::options(kind, &mut map)?;
        if map.next_key::<IgnoredAny>()?.is_some() {
            return Err(M::Error::invalid_length(2, &"exactly one balancer"));
        }
        Ok(config)
    }
}

fn name_schema(name: &str, description: &str) -> Schema {
    json_schema!({ "type": "string", "const": name, "description": description.trim() })
}

fn table_schema(name: &str, description: &str, options: &Schema) -> Schema {
    json_schema!({
        "type": "object",
        "description": description.trim(),
        "properties": { (name): options },
        "required": [name],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: serde_json::Value) -> Result<Config, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn every_name_parses_alone_and_as_a_table_and_prints_back_as_its_name() {
        for name in NAMES {
            let alone = parse(json!(name)).unwrap();
            assert_eq!(alone.kind().name(), *name);
            assert_eq!(parse(json!({ *name: {} })).unwrap(), alone);
            assert_eq!(serde_json::to_value(&alone).unwrap(), json!(name));
            assert_eq!(alone.kind().to_string(), *name);
        }
        assert_eq!(Config::default().kind(), Kind::RoundRobin);
        assert_eq!(Kind::default(), Kind::RoundRobin);
    }

    #[test]
    fn options_parse_and_print_back() {
        for text in [
            json!({ "bounded_hash": { "epsilon": 0.5, "points": 200 } }),
            json!({ "ring_hash": { "points": 300 } }),
            json!({ "maglev": { "table": 1009 } }),
        ] {
            assert_eq!(serde_json::to_value(parse(text.clone()).unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_not_one_known_balancer_with_known_options_is_refused() {
        for (value, told) in [
            (json!("roundrobin"), "unknown variant `roundrobin`"),
            (json!({ "rand": {} }), "unknown variant `rand`"),
            (json!({}), "exactly one balancer"),
            (json!({ "random": {}, "maglev": {} }), "exactly one balancer"),
            (json!({ "random": { "seed": 1 } }), "unknown field `seed`"),
            (json!({ "maglev": { "tables": 7 } }), "unknown field `tables`"),
            (json!({ "maglev": { "table": 65536 } }), "not a prime"),
            (json!({ "ring_hash": { "points": 99 } }), "between 100 and"),
            (json!({ "bounded_hash": { "epsilon": 0.0 } }), "between 0.01 and"),
            (json!(7), "a balancer's name"),
            (json!(["random"]), "a balancer's name"),
        ] {
            let error = parse(value.clone()).unwrap_err();
            assert!(error.contains(told), "{value}: {error}");
        }
    }

    #[test]
    fn the_schema_offers_each_name_alone_and_with_its_options() {
        let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
        let forms = schema["oneOf"].as_array().unwrap();
        assert_eq!(forms.len(), 2 * NAMES.len());
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(forms[at]["const"], *name);
            let table = &forms[NAMES.len() + at];
            assert!(table["properties"][name].is_object(), "{table}");
            assert_eq!(table["additionalProperties"], false);
            assert!(!table["description"].as_str().unwrap().starts_with(' '));
        }
    }

    #[test]
    fn the_hash_is_stable() {
        assert_eq!(hash(b""), 0x2d06_8005_38d3_94c2);
    }

    struct Fixed(Vec<(bool, f64)>);

    impl View for Fixed {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn available(&self, index: usize) -> bool {
            self.0[index].0
        }
        fn weight(&self, index: usize) -> f64 {
            self.0[index].1
        }
        fn in_flight(&self, _: usize) -> u32 {
            0
        }
        fn latency(&self, _: usize) -> f64 {
            0.0
        }
    }

    #[test]
    fn groups_of_none_and_one_and_a_view_that_grew_or_shrank_are_no_trouble() {
        let mut rng = Rng::new(1);
        for name in NAMES {
            let config = parse(json!(name)).unwrap();
            let (a, b) = (Member { key: "a", weight: 1 }, Member { key: "b", weight: 2 });
            let mut pick = |members: &[Member<'_>], view: Vec<(bool, f64)>, hash| {
                Balancer::new(&config, members).pick(&Fixed(view), hash, &mut rng)
            };
            assert_eq!(pick(&[], vec![], 5), None, "{name}");
            assert_eq!(pick(&[a], vec![(true, 1.0)], 5), Some(0), "{name}");
            assert_eq!(pick(&[a], vec![(false, 1.0)], 5), None, "{name}");
            assert_eq!(pick(&[a], vec![(true, 0.0)], 5), None, "{name}");
            assert_eq!(pick(&[a, b], vec![(true, 0.0), (true, 2.0)], 5), Some(1), "{name}");
            assert_eq!(pick(&[a, b], vec![(false, 1.0), (true, 0.0)], 5), None, "{name}");
            for hash in 0..20 {
                let key = super::hash(&[hash]);
                assert!(pick(&[a, b], vec![(true, 1.0); 5], key).is_some_and(|at| at < 2), "{name}");
                assert!(pick(&[a, b, a, b, a], vec![(true, 1.0); 2], key).is_some_and(|at| at < 2), "{name}");
            }
        }
    }
}
