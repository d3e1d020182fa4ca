//! The gRPC health check: `grpc.health.v1.Health/Check` over HTTP/2 says that a service is SERVING.

use std::num::NonZeroU16;

use bytes::Bytes;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::grpc::{self, Health};

use super::dial::Line;
use super::http2;
use crate::address::Address;
use crate::problem::{At, Problems};
use crate::value::Period;

/// A check by gRPC's health protocol.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The service that is asked for: "shop.v1.Orders". Default: the server as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Between two checks. Default "5s".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// For one check. Default "2s", or `every` when that is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Successes in a row that make an endpoint healthy. Default 1: it is back within one interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rise: Option<NonZeroU16>,
    /// Failures in a row that make it unhealthy. Default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fall: Option<NonZeroU16>,
}

/// The check, checked.
#[derive(Clone, Debug)]
pub struct Check {
    service: String,
}

impl Config {
    pub(super) fn check(&self, at: &At, problems: &mut Problems) -> Option<super::Policy> {
        let schedule = super::schedule(self.every, self.timeout, (self.rise, self.fall), (at, problems))?;
        let check = Check { service: self.service.clone() };
        Some(super::Policy { schedule, check: super::Check::Grpc(check) })
    }
}

impl Check {
    /// Asks once. The error says what was wrong, for operators.
    pub(super) async fn ask(&self, address: &Address, name: &str, line: &Line) -> Result<(), String> {
        let stream = line.dial(address).await?;
        let request = http::Request::post(format!("{}://{name}/grpc.health.v1.Health/Check", line.scheme()))
            .version(http::Version::HTTP_2)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .header(http::header::USER_AGENT, "sluice-health-check")
            .body(())
            .map_err(|error| format!("request: {error}"))?;
        let body = Bytes::from(grpc::health_request(&self.service));
        let answer = http2::exchange(stream, request, body, grpc::LONGEST_HEALTH + 1).await?;
        if answer.head.status != http::StatusCode::OK {
            return Err(format!("status {}", answer.head.status.as_u16()));
        }
        if answer.head.headers.contains_key(STATUS) {
            return succeeded(Some(&answer.head.headers));
        }
        let health =
            grpc::health_status(&answer.body).map_err(|invalid| format!("invalid answer: {invalid}"));
        succeeded(answer.trailers.as_ref())?;
        match health? {
            Health::Serving => Ok(()),
            Health::NotServing => Err("the service is not serving".into()),
            Health::Unknown | Health::ServiceUnknown => Err("the service's health is not known".into()),
        }
    }
}

const STATUS: &str = "grpc-status";

/// Whether the call succeeded.
fn succeeded(fields: Option<&HeaderMap>) -> Result<(), String> {
    match fields.and_then(|fields| fields.get(STATUS)).map(http::HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(b"5") => Err("the server does not know this service".into()),
        Some(b"12") => Err("the server has no health service".into()),
        Some(status) => Err(format!("grpc-status {}", String::from_utf8_lossy(status))),
        None => Err("the answer has no grpc-status".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_of_zero_is_a_success() {
        let status = |status: &'static str| {
            let mut fields = HeaderMap::new();
            fields.insert(STATUS, http::HeaderValue::from_static(status));
            succeeded(Some(&fields))
        };
        assert_eq!(status("0"), Ok(()));
        for bad in ["5", "12", "14", "00", ""] {
            assert!(status(bad).is_err(), "{bad}");
        }
        assert!(succeeded(None).is_err());
    }
}
