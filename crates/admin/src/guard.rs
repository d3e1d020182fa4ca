//! What a web page could make a browser on this machine send: refused.
//!
//! Two attacks reach loopback through a browser. A page may send requests to 127.0.0.1 without seeing the
//! answers (cross-site request forgery): whatever changes something is refused when the browser says that
//! another site sent it. A page may also let its own name point to 127.0.0.1 (DNS rebinding) and read the
//! answers: every request whose Host is not a name of this machine is refused.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri, header};

use crate::address::is_loopback;
use crate::answer::problem;

/// The refusal of a request that a browser may have sent for somebody else; `None` when it may pass.
pub(crate) fn refuse(request: &Request<Body>) -> Option<Response<Body>> {
    let (headers, uri) = (request.headers(), request.uri());
    if !names_this_machine(headers, uri) {
        let detail = "The Host of the request is not a name of this machine: use an IP address or localhost.";
        return Some(problem(StatusCode::FORBIDDEN, "host-not-allowed", detail, []));
    }
    if !request.method().is_safe() && is_cross_site(headers) {
        let detail = "Pages of other sites may not change anything here.";
        return Some(problem(StatusCode::FORBIDDEN, "cross-site", detail, []));
    }
    None
}

/// Ports are not compared: a forwarded port is still this machine. Browsers always send Host, so a request
/// without one (health checks in HTTP/1.0) is none of theirs.
fn names_this_machine(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or(""));
    hosts.all(is_local_authority)
        && uri.authority().is_none_or(|authority| is_local_authority(authority.as_str()))
}

fn is_local_authority(authority: &str) -> bool {
    let host = host_of(authority);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(is_loopback)
}

/// The host of `host:port`, whose port must be one.
fn host_of(authority: &str) -> &str {
    let end = authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|end| end < *colon));
    match end {
        Some(colon) if authority[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            &authority[..colon]
        }
        _ => authority,
    }
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let foreign_site = |site: &[u8]| !matches!(site, b"same-origin" | b"none");
    if headers.get_all("sec-fetch-site").iter().any(|value| foreign_site(value.as_bytes())) {
        return true;
    }
    let host = headers.get(header::HOST).map_or(&b""[..], |value| value.as_bytes());
    // `Origin: null` comes from sandboxed pages and redirects: as foreign as any.
    let same =
        |origin: &[u8]| origin.strip_prefix(b"http://").is_some_and(|of| of.eq_ignore_ascii_case(host));
    headers.get_all(header::ORIGIN).iter().any(|origin| !same(origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        refuse(&request.body(Body::empty()).unwrap()).map(|response| response.status().as_u16())
    }

    #[test]
    fn names_of_this_machine_pass_and_others_do_not() {
        for host in
            ["127.0.0.1:9900", "127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9900", "[::1]", "127.9.9.9"]
        {
            assert_eq!(request("GET", "/", &[("host", host)]), None, "{host}");
        }
        let foreign = [
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "localhost.",
            "[::1",
            "127.0.0.1:x",
            "0.0.0.0:9900",
            "a@127.0.0.1",
        ];
        for host in foreign {
            assert_eq!(request("GET", "/", &[("host", host)]), Some(403), "{host}");
        }
        assert_eq!(request("GET", "http://evil.example/", &[("host", "127.0.0.1")]), Some(403));
        assert_eq!(request("GET", "/", &[]), None);
    }

    #[test]
    fn what_another_site_sends_may_not_change_anything() {
        let host = ("host", "127.0.0.1:9900");
        let post = |name, value| request("POST", "/v1/reload", &[host, (name, value)]);
        assert_eq!(request("POST", "/v1/reload", &[host]), None);
        assert_eq!(post("sec-fetch-site", "same-origin"), None);
        assert_eq!(post("sec-fetch-site", "none"), None);
        assert_eq!(post("origin", "http://127.0.0.1:9900"), None);
        for site in ["cross-site", "same-site", ""] {
            assert_eq!(post("sec-fetch-site", site), Some(403), "{site}");
        }
        for origin in ["null", "https://evil.example", "http://127.0.0.1:8080", "http://127.0.0.1", ""] {
            assert_eq!(post("origin", origin), Some(403), "{origin}");
        }
        assert_eq!(request("GET", "/metrics", &[host, ("sec-fetch-site", "cross-site")]), None);
    }
}
