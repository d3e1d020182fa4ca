//! What people write about HTTP/2 with endpoints, and the checked form of it.

use std::num::NonZeroU16;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::problem::{At, Problems};
use crate::value::{ByteSize, Period};

/// How HTTP/2 is spoken with endpoints.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Requests on one connection at the same time; fewer when the endpoint allows fewer. Further ones go over
    /// another connection. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<NonZeroU16>,
    /// Bytes of an answer's body that an endpoint may send before they are wanted, on each stream. Default
    /// "1MiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_window: Option<ByteSize>,
    /// The same for all streams of a connection together. Default "4MiB".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_window: Option<ByteSize>,
    /// While requests are on a connection, it is asked this often whether it is alive (PING). Default: never;
    /// servers of gRPC do not like less than "5m".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<Period>,
    /// A connection that leaves a PING without answer for so long is given up. Default "10s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_timeout: Option<Period>,
}

/// HTTP/2 with endpoints, with defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Requests on one connection.
    pub max_streams: usize,
    /// Window of a stream, in bytes.
    pub stream_window: u32,
    /// Window of a connection, in bytes.
    pub connection_window: u32,
    /// Between two PINGs.
    pub ping: Option<Duration>,
    /// To the answer to one.
    pub ping_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            max_streams: 100,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            ping: None,
            ping_timeout: Duration::from_secs(10),
        }
    }
}

/// RFC 9113 section 6.9.1: the largest window; and the one every connection begins with.
const WINDOWS: std::ops::RangeInclusive<u64> = 65_535..=(1 << 31) - 1;

impl Config {
    /// Checks it.
    pub fn check(&self, at: &At, problems: &mut Problems) -> Option<Policy> {
        let before = problems.iter().count();
        let default = Policy::default();
        let mut window = |key: &str, size: Option<ByteSize>, default: u32| match size {
            None => default,
            Some(ByteSize(size)) if WINDOWS.contains(&size) => u32::try_from(size).unwrap_or(default),
            Some(_) => {
                problems.add(&at.key(key), "a window holds 65535 bytes (64KiB less one) to 2 GiB less one");
                default
            }
        };
        let policy = Policy {
            max_streams: self.max_streams.map_or(default.max_streams, |count| usize::from(count.get())),
            stream_window: window("stream_window", self.stream_window, default.stream_window),
            connection_window: window("connection_window", self.connection_window, default.connection_window),
            ping: self.ping.map(|period| period.0),
            ping_timeout: self.ping_timeout.map_or(default.ping_timeout, |period| period.0),
        };
        for (key, time) in [("ping", policy.ping), ("ping_timeout", Some(policy.ping_timeout))] {
            if time.is_some_and(|time| time.is_zero()) {
                problems.add(&at.key(key), "a time of zero would give up every connection");
            }
        }
        (problems.iter().count() == before).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(config: serde_json::Value) -> Vec<String> {
        let config: Config = serde_json::from_value(config).unwrap();
        let mut problems = Problems::new();
        config.check(&At::root(), &mut problems);
        problems.iter().map(|problem| problem.message.clone()).collect()
    }

    #[test]
    fn windows_and_times_outside_the_protocol_are_problems() {
        let good = json!({ "max_streams": 1, "stream_window": "64KiB", "ping": "5m" });
        assert_eq!(problems(good), Vec::<String>::new());
        let windows = json!({ "stream_window": "1KiB", "connection_window": "2GiB" });
        assert_eq!(problems(windows).len(), 2);
        assert_eq!(problems(json!({ "ping": "0s", "ping_timeout": "0s" })).len(), 2);
    }
}
