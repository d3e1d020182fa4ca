//! What a request for tokens says: who asks, and for what; in a form or in JSON.
//!
//! Promise: what is said twice is refused, since nobody could know which was meant (RFC 6749 section 3.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sluice_http::{NameId, Request};

use crate::percent::{Plus, decode};
use crate::whole_body::{self, Broken};

/// The most bytes of a request for tokens.
const MOST: usize = 32 * 1024;

/// An error of RFC 6749 section 5.2, RFC 7009 section 2.2.1 or RFC 6750.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Something is missing, there twice, or malformed.
    InvalidRequest,
    /// Who asks is not known.
    InvalidClient,
    /// The refresh token is not valid.
    InvalidGrant,
    /// Not one of the grants there are.
    UnsupportedGrant,
    /// A scope that is not given.
    InvalidScope,
    /// What was taken back is not known now, or cannot be written down.
    Unavailable,
}

impl Refused {
    pub(super) fn code(self) -> &'static str {
        match self {
            Refused::InvalidRequest => "invalid_request",
            Refused::InvalidClient => "invalid_client",
            Refused::InvalidGrant => "invalid_grant",
            Refused::UnsupportedGrant => "unsupported_grant_type",
            Refused::InvalidScope => "invalid_scope",
            Refused::Unavailable => "temporarily_unavailable",
        }
    }
}

/// What a request says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ask {
    /// Name and secret of who asks.
    pub(super) client: Option<(String, String)>,
    /// A token in Authorization.
    pub(super) bearer: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Ask {
    pub(super) async fn read(request: &mut Request) -> Result<Ask, Refused> {
        let body = whole_body::take(&mut request.body, MOST).await.map_err(|broken| match broken {
            Broken::TooLong | Broken::Body(_) => Refused::InvalidRequest,
        })?;
        let kind = request.head.fields.get_str(NameId::ContentType).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let parameters = match kind.eq_ignore_ascii_case("application/json") {
            true => json(&body)?,
            false => form(&body)?,
        };
        let mut ask = Ask { parameters, ..Ask::default() };
        let mut lines = request.head.fields.get_all(NameId::Authorization);
        match (lines.next(), lines.next()) {
            (None, _) => {}
            (Some(line), None) => ask.authorization(line)?,
            (Some(_), Some(_)) => return Err(Refused::InvalidRequest),
        }
        let written = (ask.parameter("client_id"), ask.parameter("client_secret"));
        match written {
            // RFC 6749 section 2.3: not more than one method; the id alone may stand beside Basic.
            (_, Some(_)) if ask.client.is_some() => return Err(Refused::InvalidRequest),
            (Some(id), _) if ask.client.as_ref().is_some_and(|(known, _)| known != id) => {
                return Err(Refused::InvalidRequest);
            }
            (Some(id), Some(secret)) => ask.client = Some((id.to_owned(), secret.to_owned())),
            _ => {}
        }
        Ok(ask)
    }

    /// A parameter of the body; an empty one is not there (RFC 6749 section 3.2).
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }

    fn authorization(&mut self, line: &[u8]) -> Result<(), Refused> {
        let (scheme, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"Bearer") {
            self.bearer = Some(String::from_utf8_lossy(rest).into_owned());
        } else if scheme.eq_ignore_ascii_case(b"Basic") {
            let pair = STANDARD.decode(rest).map_err(|_| Refused::InvalidClient)?;
            let colon = pair.iter().position(|byte| *byte == b':').ok_or(Refused::InvalidClient)?;
            let text = |bytes: &[u8]| {
                // RFC 6749 section 2.3.1: both are form-encoded first.
                String::from_utf8(decode(bytes, Plus::Space).into_owned()).map_err(|_| Refused::InvalidClient)
            };
            self.client = Some((text(&pair[..colon])?, text(&pair[colon + 1..])?));
        } else {
            return Err(Refused::InvalidClient);
        }
        Ok(())
    }
}

fn form(body: &[u8]) -> Result<Vec<(String, String)>, Refused> {
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let text = |bytes: &[u8]| {
            String::from_utf8(decode(bytes, Plus::Space).into_owned()).map_err(|_| Refused::InvalidRequest)
        };
        let (name, value) = (text(&pair[..equals])?, text(pair.get(equals + 1..).unwrap_or_default())?);
        if found.iter().any(|(known, _)| *known == name) {
            return Err(Refused::InvalidRequest);
        }
        found.push((name, value));
    }
    Ok(found)
}

fn json(body: &[u8]) -> Result<Vec<(String, String)>, Refused> {
    let object: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| Refused::InvalidRequest)?;
    let text = |(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        _ => Err(Refused::InvalidRequest),
    };
    object.into_iter().map(text).collect()
}
