//! The gRPC health check: `grpc.health.v1.Health/Check` over HTTP/2 says that a service is SERVING.

use std::num::NonZeroU16;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::grpc::{self, Health};

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
    pub(super) async fn ask(&self, address: &Address, name: &str, header: &[u8]) -> Result<(), String> {
        let stream = super::dial::dial(address, header).await?;
        // A Unix socket has no name that could stand in :authority.
        let name = if address.inet().is_some() { name } else { "localhost" };
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).max_header_list_size(16 * 1024);
        let begun = builder.handshake(stream).await;
        let (requests, connection) = begun.map_err(|error| format!("HTTP/2: {error}"))?;
        tokio::select! {
            biased;
            asked = self.ask_over(requests, name) => asked,
            ended = connection => Err(match ended {
                Err(error) => format!("HTTP/2: {error}"),
                Ok(()) => "the connection closed before an answer".into(),
            }),
        }
    }

    async fn ask_over(&self, mut requests: SendRequest<Bytes>, name: &str) -> Result<(), String> {
        let request = http::Request::post(format!("http://{name}/grpc.health.v1.Health/Check"))
            .version(http::Version::HTTP_2)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers")
            .header(http::header::USER_AGENT, "sluice-health-check")
            .body(())
            .map_err(|error| format!("request: {error}"))?;
        let broken = |error: h2::Error| format!("HTTP/2: {error}");
        let (answer, mut stream) = requests.send_request(request, false).map_err(broken)?;
        stream.send_data(Bytes::from(grpc::health_request(&self.service)), true).map_err(broken)?;
        let (parts, mut stream) = answer.await.map_err(broken)?.into_parts();
        if parts.status != http::StatusCode::OK {
            return Err(format!("status {}", parts.status.as_u16()));
        }
        if parts.headers.contains_key(STATUS) {
            return succeeded(Some(&parts.headers));
        }
        let body = read(&mut stream).await?;
        succeeded(stream.trailers().await.map_err(broken)?.as_ref())?;
        match grpc::health_status(&body).map_err(|invalid| format!("invalid answer: {invalid}"))? {
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

async fn read(stream: &mut RecvStream) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(|error| format!("HTTP/2: {error}"))?;
        if body.len() + piece.len() > grpc::LONGEST_HEALTH {
            return Err("the answer is longer than a health answer can be".into());
        }
        let _ = stream.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    Ok(body)
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
