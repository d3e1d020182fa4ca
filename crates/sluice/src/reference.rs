//! Generated reference pages.

use std::fmt::Write as _;

use sluice_proxy::failure::{Connection, Failure, Retry, Side};

const HEAD: &str = "\
# Failures

<!-- Written by `cargo xtask docs` from `failure.rs`. Do not edit. -->

Every way in which an exchange can fail. The code stands in the answer's body, in its Proxy-Status field, as the
outcome in the [access log](guide/access-log.md) and in the [metrics](guide/metrics.md): one code, one meaning. Codes
are stable; the sentences are for people and may change.

Side is where it went wrong: at the client, in the gateway, or at the upstream.

";

/// The table of failures, as Markdown.
pub(crate) fn failures() -> String {
    let mut out = String::from(HEAD);
    // Writing to a String cannot fail.
    out.push_str("| code | status | side | what the client is told |\n|---|---|---|---|\n");
    for failure in Failure::ALL {
        let row = failure.row();
        let side = side(row.side);
        let _ = writeln!(out, "| [{0}](#{0}) | {1} | {side} | {2} |", row.code, row.status, row.public);
    }
    for failure in Failure::ALL {
        let row = failure.row();
        let retry = match row.retry {
            Retry::No => "Never tried again.",
            Retry::Any => "Tried again on another endpoint, whatever the method: nothing was sent.",
            Retry::Idempotent => {
                "Tried again on another endpoint, when nothing was sent or the method is idempotent."
            }
        };
        let connection = match row.connection {
            Connection::Keep => "stays open",
            Connection::Close => "is closed",
        };
        let _ = write!(
            out,
            "\n## {}\n\n* Status {}, gRPC status {}, Proxy-Status `{}`, side: {}.\n* Cause: {}.\n* {retry} The \
             client's connection {connection}.\n",
            row.code,
            row.status,
            row.grpc,
            row.proxy_status,
            side(row.side),
            row.private,
        );
    }
    out
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Downstream => "client",
        Side::Gateway => "gateway",
        Side::Upstream => "upstream",
    }
}
