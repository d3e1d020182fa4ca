//! The HTTP health check: a GET whose status, and if wanted whose body, is the expected one.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::h1::{self, Framing, Persist};
use sluice_http::{NameId, RequestHead};
use tokio::io::AsyncWriteExt;

use super::dial::{Line, Over};
use super::http2;
use crate::address::Address;
use crate::fetch::{read_answer, read_body};
use crate::problem::{At, Problems};
use crate::stream::Stream;
use crate::value::Period;

/// No more of a body than this is looked at.
const BODY_CAP: usize = 64 * 1024;

/// A check by a GET request.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is asked for: "/healthz".
    pub path: String,
    /// The Host that is asked for. Default: the endpoint's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Statuses that are well. Default: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<u16>,
    /// A text that must stand in the first 64 KiB of the body. Default: the body is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Between two checks. Default "5s".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// For one check. Default "2s", or `every` when that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Successes in a row that make an endpoint healthy. Default 1: it is back within one interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<NonZeroU16>,
    /// Failures in a row that make it unhealthy. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<NonZeroU16>,
}

/// The check, checked.
#[derive(Clone, Debug)]
pub struct Check {
    path: String,
    host: Option<String>,
    status: Vec<u16>,
    body: Option<String>,
}

impl Config {
    pub(super) fn check(&self, at: &At, problems: &mut Problems) -> Option<super::Policy> {
        if !self.path.starts_with('/') || self.path.bytes().any(|byte| byte <= 0x20 || byte >= 0x7f) {
            problems
                .add(&at.key("path"), format!("`{}` is not a path that can be asked for", self.path))
                .hint("start it with a slash, and percent-encode what is not ASCII");
            return None;
        }
        if self.host.as_ref().is_some_and(|host| host.bytes().any(|byte| byte <= 0x20 || byte >= 0x7f)) {
            problems.add(&at.key("host"), "a Host holds visible ASCII characters only");
            return None;
        }
        let schedule = super::schedule(self.every, self.timeout, (self.rise, self.fall), (at, problems))?;
        let check = Check {
            path: self.path.clone(),
            host: self.host.clone(),
            status: self.status.clone(),
            body: self.body.clone(),
        };
        Some(super::Policy { schedule, check: super::Check::Http(check) })
    }
}

impl Check {
    /// Asks once. The error says what was wrong, for operators.
    pub(super) async fn ask(&self, address: &Address, name: &str, line: &Line) -> Result<(), String> {
        let mut stream = line.dial(address).await?;
        if line.over == Over::Http2 {
            return self.ask_http2(stream, name, line).await;
        }
        stream.write_all(&self.request(name)).await.map_err(|error| format!("send: {error}"))?;
        let mut buffer = BytesMut::with_capacity(4096);
        let (head, framing) = read_answer(&mut stream, &mut buffer).await?;
        self.judge_status(head.status)?;
        match &self.body {
            None => Ok(()),
            Some(text) => holds(&read_body(&mut stream, (&mut buffer, framing), BODY_CAP).await?, text),
        }
    }

    async fn ask_http2(&self, stream: Stream, name: &str, line: &Line) -> Result<(), String> {
        let authority = self.host.as_deref().unwrap_or(name);
        let request = http::Request::get(format!("{}://{authority}{}", line.scheme(), self.path))
            .version(http::Version::HTTP_2)
            .header(http::header::USER_AGENT, "sluice-health-check")
            .header(http::header::ACCEPT, "*/*")
            .body(())
            .map_err(|error| format!("request: {error}"))?;
        let most = if self.body.is_some() { BODY_CAP } else { 1 };
        let mut answer = http2::exchange(stream, request, Bytes::new(), most).await?;
        self.judge_status(answer.head.status.as_u16())?;
        answer.body.truncate(BODY_CAP);
        self.body.as_ref().map_or(Ok(()), |text| holds(&answer.body, text))
    }

    fn judge_status(&self, status: u16) -> Result<(), String> {
        let well = match self.status.is_empty() {
            true => (200..400).contains(&status),
            false => self.status.contains(&status),
        };
        if well { Ok(()) } else { Err(format!("status {status}")) }
    }

    fn request(&self, name: &str) -> Vec<u8> {
        let mut head = RequestHead::new("GET", &self.path);
        head.fields.append(NameId::Host, self.host.as_deref().unwrap_or(name).as_bytes());
        head.fields.append(NameId::UserAgent, b"sluice-health-check");
        head.fields.append(NameId::Accept, b"*/*");
        let mut out = Vec::with_capacity(128);
        h1::request_head(&head, Framing::None, Persist::Close, &mut out);
        out
    }
}

fn holds(body: &[u8], text: &str) -> Result<(), String> {
    match memchr::memmem::find(body, text.as_bytes()) {
        Some(_) => Ok(()),
        None => Err("the body does not hold the expected text".into()),
    }
}
