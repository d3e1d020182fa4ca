//! Which fields may stand behind a body (RFC 9110 section 6.5.1).
//!
//! Promise: a field that decides about framing, routing, identity or the handling of the content is read from
//! the head only: behind the body it would come too late, or past the checks.

use crate::name::NameId;

/// Whether a field may be a trailer field. Unknown fields may.
pub const fn is_allowed(id: NameId) -> bool {
    !matches!(
        id,
        // Framing and the connection.
        NameId::ContentLength | NameId::TransferEncoding | NameId::Trailer | NameId::Te
        | NameId::Connection | NameId::KeepAlive | NameId::ProxyConnection | NameId::Upgrade
        | NameId::Http2Settings
        // Routing, and what proxies say about it.
        | NameId::Host | NameId::MaxForwards | NameId::Forwarded | NameId::Via | NameId::XForwardedFor
        | NameId::XForwardedHost | NameId::XForwardedPort | NameId::XForwardedProto | NameId::XRealIp
        // Request modifiers and conditions.
        | NameId::Expect | NameId::Range | NameId::IfMatch | NameId::IfNoneMatch | NameId::IfRange
        | NameId::IfModifiedSince | NameId::IfUnmodifiedSince
        // Identity.
        | NameId::Authorization | NameId::ProxyAuthorization | NameId::WwwAuthenticate
        | NameId::ProxyAuthenticate | NameId::Cookie | NameId::SetCookie
        // Control of the response.
        | NameId::Age | NameId::CacheControl | NameId::Pragma | NameId::Expires | NameId::Date
        | NameId::Location | NameId::RetryAfter | NameId::Vary | NameId::Warning
        // The content's form.
        | NameId::ContentEncoding | NameId::ContentType | NameId::ContentRange
    )
}
