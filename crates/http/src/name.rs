//! Field names: a small id for every name the gateway knows, and a compiled form of the others.
//!
//! Promise: comparing two known names is one byte comparison; matching a received name to its id looks at
//! the candidates of the same length only.

use std::fmt;

macro_rules! names {
    ($($id:ident = $text:literal,)*) => {
        /// A field name this crate knows (RFC 9110 and friends); `Other` is any name it does not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each variant is the field name it spells")]
        pub enum NameId { Other = 0, $($id,)* }

        const TEXTS: &[(&str, NameId)] = &[$(($text, NameId::$id),)*];

        impl NameId {
            /// All of them, in the order of their numbers; `Other` is the first.
            pub const ALL: &'static [NameId] = &[NameId::Other, $(NameId::$id,)*];

            /// The canonical spelling; empty for `Other`.
            pub const fn text(self) -> &'static str {
                match self { NameId::Other => "", $(NameId::$id => $text,)* }
            }
        }
    };
}

names! {
    Accept = "Accept", AcceptCharset = "Accept-Charset", AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language", AcceptRanges = "Accept-Ranges",
    AccessControlAllowCredentials = "Access-Control-Allow-Credentials",
    AccessControlAllowHeaders = "Access-Control-Allow-Headers",
    AccessControlAllowMethods = "Access-Control-Allow-Methods",
    AccessControlAllowOrigin = "Access-Control-Allow-Origin",
    AccessControlExposeHeaders = "Access-Control-Expose-Headers",
    AccessControlMaxAge = "Access-Control-Max-Age",
    AccessControlRequestHeaders = "Access-Control-Request-Headers",
    AccessControlRequestMethod = "Access-Control-Request-Method",
    Age = "Age", Allow = "Allow", AltSvc = "Alt-Svc", Authorization = "Authorization",
    CacheControl = "Cache-Control", CacheStatus = "Cache-Status", Connection = "Connection",
    ContentDisposition = "Content-Disposition", ContentEncoding = "Content-Encoding",
    ContentLanguage = "Content-Language", ContentLength = "Content-Length",
    ContentLocation = "Content-Location", ContentRange = "Content-Range",
    ContentSecurityPolicy = "Content-Security-Policy", ContentType = "Content-Type",
    Cookie = "Cookie", Date = "Date", Dnt = "DNT", ETag = "ETag", Expect = "Expect",
    Expires = "Expires", Forwarded = "Forwarded", From = "From", GrpcStatus = "Grpc-Status",
    GrpcMessage = "Grpc-Message", GrpcTimeout = "Grpc-Timeout", Host = "Host",
    Http2Settings = "HTTP2-Settings", IfMatch = "If-Match", IfModifiedSince = "If-Modified-Since",
    IfNoneMatch = "If-None-Match", IfRange = "If-Range", IfUnmodifiedSince = "If-Unmodified-Since",
    KeepAlive = "Keep-Alive", LastModified = "Last-Modified", Link = "Link", Location = "Location",
    MaxForwards = "Max-Forwards", Origin = "Origin", Pragma = "Pragma", Priority = "Priority",
    ProxyAuthenticate = "Proxy-Authenticate", ProxyAuthorization = "Proxy-Authorization",
    ProxyConnection = "Proxy-Connection", ProxyStatus = "Proxy-Status", Range = "Range",
    RateLimit = "RateLimit", RateLimitPolicy = "RateLimit-Policy",
    Referer = "Referer", RetryAfter = "Retry-After", SecFetchDest = "Sec-Fetch-Dest",
    SecFetchMode = "Sec-Fetch-Mode", SecFetchSite = "Sec-Fetch-Site",
    SecWebSocketAccept = "Sec-WebSocket-Accept", SecWebSocketKey = "Sec-WebSocket-Key",
    SecWebSocketProtocol = "Sec-WebSocket-Protocol", SecWebSocketVersion = "Sec-WebSocket-Version",
    Server = "Server", SetCookie = "Set-Cookie", StrictTransportSecurity = "Strict-Transport-Security",
    Te = "TE", Traceparent = "Traceparent", Tracestate = "Tracestate", Trailer = "Trailer",
    TransferEncoding = "Transfer-Encoding", Upgrade = "Upgrade",
    UpgradeInsecureRequests = "Upgrade-Insecure-Requests", UserAgent = "User-Agent", Vary = "Vary",
    Via = "Via", Warning = "Warning", WwwAuthenticate = "WWW-Authenticate",
    XContentTypeOptions = "X-Content-Type-Options", XForwardedFor = "X-Forwarded-For",
    XForwardedHost = "X-Forwarded-Host", XForwardedPort = "X-Forwarded-Port",
    XForwardedProto = "X-Forwarded-Proto", XFrameOptions = "X-Frame-Options", XRateLimitLimit = "X-RateLimit-Limit",
    XRateLimitRemaining = "X-RateLimit-Remaining", XRateLimitReset = "X-RateLimit-Reset", XRealIp = "X-Real-IP",
    XRequestId = "X-Request-Id", XRequestedWith = "X-Requested-With",
}

/// Where each known name stands in `TEXTS`, plus one, by [`slot`]; 0 where there is none.
const SLOTS: [u8; 512] = slots();

/// The only place where a known name of this form can stand: by its length and two of its letters, the factors
/// found by trying. A name that is added may need others: the build says so.
const fn slot(name: &[u8]) -> usize {
    let (first, other) = (name[0] | 0x20, name[name.len() * 3 / 4] | 0x20);
    (name.len() * 18 + first as usize * 295 + other as usize * 217) % 512
}

const fn slots() -> [u8; 512] {
    let mut out = [0; 512];
    let mut i = 0;
    while i < TEXTS.len() {
        let at = slot(TEXTS[i].0.as_bytes());
        assert!(out[at] == 0, "two known names share a slot: try other factors");
        i += 1;
        out[at] = i as u8;
    }
    out
}

impl NameId {
    /// The id of a received name, in any case; `Other` when it is not a known one.
    #[inline]
    pub fn of(name: &[u8]) -> NameId {
        if name.is_empty() {
            return NameId::Other;
        }
        match TEXTS.get(usize::from(SLOTS[slot(name)]).wrapping_sub(1)) {
            // Nearly every name is spelled so, and that is found out many bytes at a time.
            Some(&(text, id)) if text.as_bytes() == name || text.as_bytes().eq_ignore_ascii_case(name) => id,
            _ => NameId::Other,
        }
    }
}

/// A name to look up, set or remove: an id, and the spelling that is written when a field is added.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    pub(crate) id: NameId,
    pub(crate) text: &'a str,
}

impl<'a> Name<'a> {
    /// A name that another parser has found to be a token, spelled as received.
    pub fn received(text: &'a str) -> Name<'a> {
        Name { id: NameId::of(text.as_bytes()), text }
    }

    /// Its id.
    pub fn id(self) -> NameId {
        self.id
    }
}

impl From<NameId> for Name<'static> {
    fn from(id: NameId) -> Self {
        Name { id, text: id.text() }
    }
}

impl<'a> From<&'a FieldName> for Name<'a> {
    fn from(name: &'a FieldName) -> Self {
        Name { id: name.id, text: &name.text }
    }
}

/// A field name from a configuration, checked once (RFC 9110 section 5.6.2 token) and spelled as written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FieldName {
    id: NameId,
    text: Box<str>,
}

impl FieldName {
    /// Checks that `text` is a token; `None` when it is empty or holds another character.
    pub fn new(text: &str) -> Option<FieldName> {
        if text.is_empty() || !text.bytes().all(is_token) {
            return None;
        }
        Some(FieldName { id: NameId::of(text.as_bytes()), text: text.into() })
    }

    /// The id, `Other` for a name this crate does not know.
    pub fn id(&self) -> NameId {
        self.id
    }

    /// The spelling given to `new`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2): method names and field names.
#[inline]
pub const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'z' | b'|' | b'~'
        | b'0'..=b'9' | b'A'..=b'Z')
}

/// Whether a byte may stand in a field value: visible, obs-text, space or tab; no control bytes.
#[inline]
pub const fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &(text, id) in TEXTS {
            assert_eq!(NameId::of(text.as_bytes()), id, "{text}");
            assert_eq!(NameId::of(text.to_ascii_uppercase().as_bytes()), id, "{text}");
        }
        assert_eq!(NameId::of(b""), NameId::Other);
        assert_eq!(NameId::of(b"Hosts"), NameId::Other);
        assert_eq!(NameId::of(b"X-Unknown"), NameId::Other);
    }

    #[test]
    fn a_field_name_is_a_token() {
        assert!(FieldName::new("X-A").is_some());
        for bad in ["", "a b", "a:", "é", "a\r"] {
            assert!(FieldName::new(bad).is_none(), "{bad:?}");
        }
    }
}
