//! Every way an exchange can fail: one closed list, one table.
//!
//! Promise: the code of a failure stands in the answer's body, in Proxy-Status, in the log line and in the
//! metric, and means the same in all of them. Public sentences are written for clients; internal texts
//! never reach them.

use sluice_http::h1::Refusal;
use sluice_http::{Fields, NameId};

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Downstream,
    /// Ours, or our configuration's.
    Gateway,
    /// The endpoint's.
    Upstream,
}

/// Whether another attempt may be made after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    No,
    /// Any request: nothing was sent.
    Any,
    /// Only when the method is idempotent, or nothing was sent.
    Idempotent,
}

/// What the client's connection does afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It stays open.
    Keep,
    /// It closes after the answer: where the next request starts is uncertain.
    Close,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Stable kebab-case code.
    pub code: &'static str,
    /// Whose fault.
    pub side: Side,
    /// HTTP status of the answer.
    pub status: u16,
    /// gRPC status of the answer.
    pub grpc: u8,
    /// Whether it may be retried.
    pub retry: Retry,
    /// What the client's connection does.
    pub connection: Connection,
    /// Proxy-Status error type (RFC 9209 section 2.3), when one fits.
    pub proxy_status: &'static str,
    /// For the client.
    pub public: &'static str,
    /// For the operator.
    pub private: &'static str,
}

macro_rules! failures {
    ($($name:ident $code:literal $side:ident $status:literal $grpc:literal $retry:ident $connection:ident $proxy_status:literal
       $public:literal $private:literal)*) => {
        /// How an exchange failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the private sentence of each row says it")]
        pub enum Failure { $($name,)* }

        const TABLE: &[Row] = &[$(Row {
            code: $code, side: Side::$side, status: $status, grpc: $grpc, retry: Retry::$retry,
            connection: Connection::$connection, proxy_status: $proxy_status, public: $public, private: $private,
        },)*];

        impl Failure {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Failure] = &[$(Failure::$name,)*];
        }
    };
}

failures! {
    BadRequest "bad-request" Downstream 400 3 No Close "http_request_error"
        "The request is malformed." "the request broke a framing or grammar rule; the refusal counter says which"
    HeadTooLarge "head-too-large" Downstream 431 8 No Close "http_request_error"
        "The request's header fields are too large." "the head is over limits.head, limits.line or limits.fields of the listener"
    TargetTooLong "target-too-long" Downstream 414 8 No Close "http_request_error"
        "The request target is too long." "the start line is over limits.line of the listener"
    VersionNotSupported "version-not-supported" Downstream 505 12 No Close "http_request_error"
        "This HTTP version is not supported." "the start line names a version other than HTTP/1.0 and HTTP/1.1"
    EncodingNotSupported "encoding-not-supported" Downstream 501 12 No Close "http_request_error"
        "This transfer coding is not supported." "Transfer-Encoding holds a coding other than chunked"
    BodyTooLarge "body-too-large" Downstream 413 8 No Close "http_request_error"
        "The request body is too large." "the body is over the limit of the listener or route"
    BodyInvalid "body-invalid" Downstream 400 3 No Close "http_request_error"
        "The request body is malformed." "the body's chunked framing is malformed"
    ExpectationFailed "expectation-failed" Downstream 417 9 No Keep "http_request_error"
        "This expectation cannot be met." "Expect holds something other than 100-continue"
    ClientTimeout "client-timeout" Downstream 408 4 No Close "connection_timeout"
        "The request took too long to arrive." "the head or body did not arrive within the listener's timeouts"
    ClientGone "client-gone" Downstream 499 1 No Close "connection_terminated"
        "The client closed the connection." "the client left before its answer was complete"
    NoRoute "no-route" Gateway 404 12 No Keep "destination_not_found"
        "No route matches this request." "no enabled route matches; `sluice route explain` shows what was tried"
    MisdirectedRequest "misdirected-request" Downstream 421 9 No Keep "http_request_error"
        "This connection is not for this host." "Host belongs to another certificate than the name the connection was opened with; see strict_sni of the listener's tls"
    MethodNotAllowed "method-not-allowed" Gateway 405 12 No Keep "http_request_denied"
        "This method is not allowed here." "routes match this request but for its method"
    Unauthenticated "unauthenticated" Gateway 401 16 No Keep "http_request_denied"
        "Credentials are missing or not valid." "a filter asked for credentials"
    ProxyUnauthenticated "proxy-unauthenticated" Gateway 407 16 No Keep "http_request_denied"
        "Credentials for this proxy are missing or not valid." "a filter of a forward proxy's route asked for credentials"
    AuthUnavailable "auth-unavailable" Gateway 503 14 No Keep "destination_unavailable"
        "Credentials cannot be checked at the moment." "what credentials are checked with cannot be reached: a key set (JWKS), the service of forward_auth, or Redis"
    Forbidden "forbidden" Gateway 403 7 No Keep "http_request_denied"
        "This request is not allowed." "a filter denied the request"
    RateLimited "rate-limited" Gateway 429 8 No Keep "http_request_denied"
        "Too many requests." "a rate limit or quota is used up"
    LimitUnavailable "limit-unavailable" Gateway 503 14 No Keep "destination_unavailable"
        "The service is not available." "what a limit or quota has counted cannot be read: Redis does not answer and on_redis_failure is \"deny\", or the file in `state` of `process` cannot be written or is full"
    Overloaded "overloaded" Gateway 503 14 No Keep "connection_limit_reached"
        "The service is overloaded." "a connection limit was reached and the queue was full or its deadline passed"
    Draining "draining" Gateway 503 14 No Close "http_request_error"
        "The gateway is stopping." "the request arrived after the drain deadline"
    NoEndpoint "no-endpoint" Gateway 503 14 No Keep "destination_unavailable"
        "The service is not available." "no endpoint of the upstream is available, or all were tried"
    BreakerOpen "breaker-open" Gateway 503 14 No Keep "destination_unavailable"
        "The service is not available." "the breakers of all candidates are open"
    ConnectFailed "connect-failed" Upstream 502 14 Any Keep "connection_refused"
        "The service could not be reached." "connecting to the endpoint failed"
    ConnectTimeout "connect-timeout" Upstream 504 14 Any Keep "connection_timeout"
        "The service could not be reached in time." "connecting took longer than timeouts.connect of the upstream"
    UpstreamTlsFailed "upstream-tls-failed" Upstream 502 14 Any Keep "tls_protocol_error"
        "The service could not be reached securely." "the TLS handshake with the endpoint failed: it speaks no TLS there, or no version, cipher or protocol in common"
    UpstreamUntrusted "upstream-untrusted" Upstream 502 14 Any Keep "tls_certificate_error"
        "The service could not be reached securely." "the endpoint's certificate has expired, is for another name or of an unknown authority: see ca, sni and verify of the upstream's tls"
    UpstreamReset "upstream-reset" Upstream 502 14 Idempotent Keep "connection_terminated"
        "The service closed the connection." "the endpoint closed or reset the connection before a complete answer head"
    UpstreamTimeout "upstream-timeout" Upstream 504 4 Idempotent Keep "http_response_timeout"
        "The service did not answer in time." "no answer head within timeouts.first_byte of the upstream"
    UpstreamInvalid "upstream-invalid" Upstream 502 13 No Keep "http_protocol_error"
        "The service gave an invalid answer." "the endpoint's answer broke a framing or grammar rule; the refusal counter says which"
    UpstreamIncomplete "upstream-incomplete" Upstream 502 14 No Close "http_response_incomplete"
        "The service's answer ended early." "the endpoint's body ended early or stalled after the head had been sent on; the client's connection was closed"
    TunnelUnavailable "tunnel-unavailable" Gateway 503 14 No Keep "destination_unavailable"
        "The service is not available." "no tunnel of the service became free in time: its connectors are gone, are dark, or have too few tunnels"
    TunnelUnknown "tunnel-unknown" Gateway 404 12 No Keep "destination_not_found"
        "No service is known by this name." "no connector has registered the route that the request names"
    TunnelLost "tunnel-lost" Upstream 502 14 Idempotent Keep "connection_terminated"
        "The service closed the connection." "the tunnel closed or broke before the head of the answer"
    TunnelTargetFailed "tunnel-target-failed" Upstream 502 14 Idempotent Keep "destination_unavailable"
        "The service could not be reached." "the connector could not reach its target, or the target failed before the head of the answer"
    TunnelRefused "tunnel-refused" Upstream 400 3 No Keep "http_request_error"
        "The request is malformed." "the connector calls the request bad"
    TunnelSilent "tunnel-silent" Upstream 504 4 Idempotent Keep "connection_timeout"
        "The service did not answer in time." "the connector was silent for too long: the tunnel was given up"
    TunnelNotWebsocket "tunnel-not-websocket" Downstream 426 9 No Keep "http_request_error"
        "This opens a WebSocket, over HTTP/1.1." "a registration of a tunnel is no WebSocket handshake, has content, or came over HTTP/2"
    TunnelNoVersion "tunnel-no-version" Downstream 400 3 No Keep "http_request_error"
        "None of these versions is spoken here." "a connector offers no version of the tunnel protocol that `versions` allows"
    TunnelBadRoute "tunnel-bad-route" Downstream 400 3 No Keep "http_request_error"
        "The route or the domain is malformed." "a connector announced a route or a domain that is malformed or too long"
    TunnelBadName "tunnel-bad-name" Downstream 400 3 No Keep "http_request_error"
        "The instance or the component name is malformed." "a connector announced an instance or a component name that is malformed or too long"
    TunnelAddressDenied "tunnel-address-denied" Gateway 403 7 No Keep "http_request_denied"
        "Tunnels may not be opened from this address." "the connector's address is not in `allow`"
    TunnelTokenMissing "tunnel-token-missing" Gateway 401 16 No Keep "http_request_denied"
        "The token is missing or not valid." "the request carries none of `tokens` in `token_header`"
    TunnelRouteDenied "tunnel-route-denied" Gateway 403 7 No Keep "http_request_denied"
        "This route may not be registered here." "the route that a connector announced is not in `routes`"
    TunnelAddressLimit "tunnel-address-limit" Gateway 429 8 No Keep "http_request_denied"
        "This address has too many tunnels." "the connectors of one address have max_per_address tunnels open"
    TunnelRouteLimit "tunnel-route-limit" Gateway 429 8 No Keep "http_request_denied"
        "This route has too many tunnels." "a route has max_per_route tunnels open"
    TunnelRoutesLimit "tunnel-routes-limit" Gateway 429 8 No Keep "http_request_denied"
        "There are too many routes." "max_routes routes are registered, or were lately"
    UpgradeRefused "upgrade-refused" Upstream 502 14 No Keep "http_upgrade_failed"
        "The service refused to switch protocols." "the endpoint switched to a protocol the client did not ask for"
    NotProxied "not-proxied" Downstream 400 3 No Keep "http_request_error"
        "This is a proxy: requests name their destination as http://host/path, or with CONNECT." "a request without a destination of its own, or for a scheme other than http, met the action forward_proxy"
    DestinationDenied "destination-denied" Gateway 403 7 No Keep "destination_ip_prohibited"
        "This destination is not allowed." "the rules of the action forward_proxy, or its defaults, deny the host, the port or every address of the host; `sluice route explain` shows which rule"
    DnsFailed "dns-failed" Upstream 502 14 No Keep "dns_error"
        "The destination's name could not be resolved." "the name does not exist, has no address, or the name servers failed"
    DnsTimeout "dns-timeout" Upstream 504 14 No Keep "dns_timeout"
        "The destination's name could not be resolved in time." "no name server answered within the time of dns, or of timeouts.connect of the action"
    ParentRefused "parent-refused" Upstream 502 14 No Keep "destination_unavailable"
        "The destination could not be reached." "the parent proxy did not open the tunnel: it denied it, wanted other credentials, or could not connect"
    LoopDetected "loop-detected" Gateway 508 9 No Keep "proxy_loop_detected"
        "The request has passed this gateway before." "Via already names this gateway more often than max_hops allows"
    ExchangeTimeout "exchange-timeout" Gateway 504 4 No Keep "http_response_timeout"
        "The request took too long." "the route's timeout passed before the answer head"
    IdleTimeout "idle-timeout" Gateway 504 4 No Close "connection_timeout"
        "Nothing was sent for too long." "nothing moved through the connection for timeouts.idle of the listener"
    Internal "internal" Gateway 500 13 No Close "proxy_internal_error"
        "The gateway failed to handle this request." "a defect in the gateway; the diagnostic log has more under the request id"
}

impl Failure {
    /// Its row of the table.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Says it as gRPC does, in a head without a body or in trailers.
    pub fn tell_grpc(self, fields: &mut Fields) {
        let row = self.row();
        fields.append(NameId::GrpcStatus, row.grpc.to_string().as_bytes());
        // The sentences are plain ASCII without "%": nothing in them needs gRPC's percent-encoding.
        fields.append(NameId::GrpcMessage, row.public.as_bytes());
    }

    /// Its stable code.
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// The failure of a request that the HTTP engine refused.
    pub fn refused_request(refusal: Refusal) -> Failure {
        match refusal.status() {
            414 => Failure::TargetTooLong,
            431 => Failure::HeadTooLarge,
            501 => Failure::EncodingNotSupported,
            505 => Failure::VersionNotSupported,
            _ => Failure::BadRequest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_kebab_case_and_sentences_are_written() {
        let mut codes: Vec<_> = Failure::ALL.iter().map(|failure| failure.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Failure::ALL.len());
        for failure in Failure::ALL {
            let row = failure.row();
            assert!(row.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", row.code);
            assert!(row.public.ends_with('.') && !row.private.ends_with('.'), "{}", row.code);
            assert!((400..=599).contains(&row.status) && row.grpc <= 16, "{}", row.code);
        }
    }

    #[test]
    fn every_refusal_has_a_failure_of_its_status() {
        for &refusal in Refusal::ALL {
            assert_eq!(Failure::refused_request(refusal).row().status, refusal.status(), "{refusal:?}");
        }
    }
}
