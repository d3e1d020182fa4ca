//! A watcher for operators: a line of the diagnostics for each event.
//!
//! Promise: a line tells of content how much it is, never what; of heads the method, the path and the status.

use std::fmt::Display;

use super::watch::{About, Event, Interest, Watcher};
use crate::observe::diagnostic::Diagnostics;

/// Writes events as diagnostic lines.
pub(super) struct Trace {
    pub(super) diagnostics: Diagnostics,
    pub(super) interest: Interest,
}

impl Watcher for Trace {
    fn interest(&self) -> Interest {
        self.interest
    }

    fn event(&self, about: &About, event: &Event<'_>) {
        let mut fields: Vec<(&str, &dyn Display)> = vec![("request_id", &about.request_id)];
        let (label, instance, address, version);
        if let Some(tunnel) = &about.tunnel {
            (label, instance, address, version) =
                (tunnel.label(), tunnel.instance(), tunnel.address(), tunnel.version());
            fields.extend::<[(&str, &dyn Display); 4]>([
                ("tunnel", &label),
                ("instance", &instance),
                ("peer", &address),
                ("version", &version),
            ]);
        }
        let write = |message: &str, more: &[(&str, &dyn Display)]| {
            let all: Vec<_> = fields.iter().chain(more).copied().collect();
            self.diagnostics.info(&format!("tunnel exchange: {message}"), &all);
        };
        match event {
            Event::Taken(head, waited) => {
                let (method, path, waited) = (head.method_text(), head.path(), waited.as_millis());
                write("tunnel taken", &[("method", &method), ("path", &path), ("waited_ms", &waited)]);
            }
            Event::HeadSent => write("head sent", &[]),
            Event::Sending(content) => write("sending", &[("bytes", &content.len())]),
            Event::Sent(bytes) => write("sent", &[("bytes", bytes)]),
            Event::RequestSent => write("request sent", &[]),
            Event::HeadReceived(head) => write("head received", &[("status", &head.status)]),
            Event::Responding(head) => write("responding", &[("status", &head.status)]),
            Event::Received(content) => write("received", &[("bytes", &content.len())]),
            Event::AnswerReceived => write("answer received", &[]),
            Event::Unavailable => write("no tunnel", &[("route", &about.route)]),
            Event::Ended(ending) => {
                let (outcome, duration) = (ending.outcome.code(), ending.duration.as_millis());
                let (status, received, sent) = (ending.status, ending.received, ending.sent);
                write(
                    "ended",
                    &[
                        ("outcome", &outcome),
                        ("status", &status),
                        ("duration_ms", &duration),
                        ("bytes_in", &received),
                        ("bytes_out", &sent),
                    ],
                );
            }
        }
    }
}
