//! Generated reference pages.

use std::fmt::Write as _;

use sluice_proxy::failure::{Connection, Failure, Retry, Side};

/// The table of failures, as Markdown.
pub(crate) fn failures() -> String {
    let mut out = String::from(
        "# Failures\n\n\
         Generated from `failure.rs` by `cargo xtask docs`. The code stands in the answer's body, in Proxy-Status, \
         in the access log and in `sluice_failures_total`.\n",
    );
    for failure in Failure::ALL {
        let row = failure.row();
        let side = match row.side {
            Side::Downstream => "client",
            Side::Gateway => "gateway",
            Side::Upstream => "upstream",
        };
        let retry = match row.retry {
            Retry::No => "never",
            Retry::Any => "on another endpoint: nothing was sent",
            Retry::Idempotent => "on another endpoint, when nothing was sent or the method is idempotent",
        };
        let connection = match row.connection {
            Connection::Keep => "stays open",
            Connection::Close => "closes",
        };
        let _ = write!(
            out,
            "\n## {}\n\n{}\n\n| | |\n|---|---|\n| status | {} |\n| gRPC status | {} |\n| side | {side} |\n| retried | {retry} |\n\
             | client connection | {connection} |\n| Proxy-Status error | {} |\n| cause | {} |\n",
            row.code, row.public, row.status, row.grpc, row.proxy_status, row.private
        );
    }
    out
}
