//! Answers: plain text, JSON, problem documents.
//!
//! Promise: none is stored by anybody, and none can be used by another site's page.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// Fields of every answer.
const COMMON: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// An answer of a content type.
pub(crate) fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in COMMON {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", body.into())
}

/// A JSON document, on lines that people can read.
pub(crate) fn document(value: &Value) -> Response<Body> {
    typed(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

/// A problem document (RFC 9457); `more` are members beside the standard ones.
pub(crate) fn problem(
    status: StatusCode,
    code: &str,
    detail: &str,
    more: impl IntoIterator<Item = (&'static str, Value)>,
) -> Response<Body> {
    let mut value = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    for (key, member) in more {
        value[key] = member;
    }
    typed(status, "application/problem+json", format!("{value:#}\n"))
}
