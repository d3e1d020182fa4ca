//! The families of the registry's own cells, one function for each kind of cells.
//!
//! Promise: routes, and outcomes that never happened, give no samples, so that a scrape grows with what
//! happens and not with what could; the closed lists of a listener are complete, so that an alert can be
//! written before the first refusal.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sluice_http::h1::Refusal;
use sluice_http::h2::{Breach, Flood};
use sluice_http::proxy_protocol::Invalid;
use sluice_http::socks5;

use super::cells::{CLASSES, Counter, EndpointCells, OUTCOMES, RouteBlock, UpstreamCells, outcome_code};
use super::exposition::{Exposition, Family, Kind};
use super::histogram::Merged;
use super::{ConsumerCells, ListenerCells, Registry};
use crate::failure::Failure;
use crate::limit::record::{self, Ruling};
use crate::tls::TlsRefusal;

fn sum<C>(blocks: &[Arc<C>], cell: impl Fn(&C) -> &Counter) -> u64 {
    blocks.iter().map(|block| cell(block).get()).sum()
}

fn merge<'a>(parts: impl Iterator<Item = &'a super::histogram::Histogram>) -> Merged {
    let mut merged = Merged::default();
    parts.for_each(|part| merged.add(part));
    merged
}

impl Registry {
    pub(super) fn write(&self, out: &mut Exposition) {
        write_build(out);
        self.write_reloads(out);
        self.write_listeners(out);
        self.write_routes(out);
        self.write_consumers(out);
        self.write_upstreams(out);
        self.write_endpoints(out);
        self.write_access_log(out);
    }

    fn write_consumers(&self, out: &mut Exposition) {
        let all = self.consumers.all();
        let mut family =
            out.family("sluice_consumer_requests_total", "Exchanges of consumers", Kind::Counter);
        for (labels, blocks) in &all {
            for (class, name) in CLASSES.iter().enumerate() {
                let count = sum(blocks, |cells| &cells.exchanges[class]);
                if count > 0 {
                    family.sample(&[("consumer", &labels[0]), ("code", name)], count);
                }
            }
        }
        let mut counter = |name, help, cell: fn(&ConsumerCells) -> &Counter| {
            let mut family = out.family(name, help, Kind::Counter);
            for (labels, blocks) in &all {
                family.sample(&[("consumer", &labels[0])], sum(blocks, cell));
            }
        };
        let help = "Bytes of request bodies of consumers";
        counter("sluice_consumer_request_body_bytes_total", help, |cells| &cells.received);
        let help = "Bytes of answer bodies to consumers";
        counter("sluice_consumer_response_body_bytes_total", help, |cells| &cells.sent);
    }

    fn write_access_log(&self, out: &mut Exposition) {
        let counts = &self.access_log;
        out.family("sluice_access_log_lines_total", "Lines written to the access log", Kind::Counter)
            .sample(&[], counts.written.load(Relaxed));
        let help = "Lines that were not written: too many were waiting, or writing failed";
        let mut family = out.family("sluice_access_log_dropped_total", help, Kind::Counter);
        family.sample(&[("reason", "overflow")], counts.overflowed.load(Relaxed));
        family.sample(&[("reason", "write-failed")], counts.failed.load(Relaxed));
    }

    fn write_reloads(&self, out: &mut Exposition) {
        let reloads = &self.reloads;
        out.family("sluice_config_revision", "Revision of the configuration that runs", Kind::Gauge)
            .sample(&[], reloads.revision.load(Relaxed));
        let help = "Whether the last load of the configuration was applied";
        out.family("sluice_config_last_reload_success", help, Kind::Gauge)
            .sample(&[], u64::from(reloads.last_applied.load(Relaxed)));
        let help = "When the running configuration was applied, in seconds since the Unix epoch";
        out.family("sluice_config_last_reload_timestamp_seconds", help, Kind::Gauge)
            .sample(&[], reloads.at.load(Relaxed));
        let help = "Loads of the configuration by result";
        let mut family = out.family("sluice_config_reloads_total", help, Kind::Counter);
        family.sample(&[("result", "applied")], reloads.applied.load(Relaxed));
        family.sample(&[("result", "refused")], reloads.refused.load(Relaxed));
    }

    fn write_listeners(&self, out: &mut Exposition) {
        let all = self.listeners.all();
        let mut counter = |name, help, cell: fn(&ListenerCells) -> &Counter| {
            let mut family = out.family(name, help, Kind::Counter);
            for (labels, blocks) in &all {
                family.sample(&[("listener", &labels[0])], sum(blocks, cell));
            }
        };
        counter("sluice_listener_connections_total", "Connections accepted", |cells| &cells.accepted);
        counter("sluice_listener_received_bytes_total", "Bytes read from clients", |cells| &cells.received);
        let help = "Datagrams dropped: no room for a flow or in a socket, or too long";
        counter("sluice_listener_datagrams_dropped_total", help, |cells| &cells.dropped);
        counter("sluice_listener_sent_bytes_total", "Bytes written to clients", |cells| &cells.sent);
        let mut family = out.family("sluice_listener_connections_active", "Connections open", Kind::Gauge);
        for (labels, blocks) in &all {
            let active: i64 = blocks.iter().map(|block| block.active.get()).sum();
            family.sample(&[("listener", &labels[0])], active as f64);
        }
        let help = "Requests and PROXY headers that broke a rule, by the rule";
        let mut family = out.family("sluice_listener_refused_total", help, Kind::Counter);
        for (labels, blocks) in &all {
            for refusal in Refusal::ALL {
                let count = sum(blocks, |cells| &cells.refused[*refusal as usize]);
                family.sample(&[("listener", &labels[0]), ("reason", refusal.code())], count);
            }
            for invalid in socks5::Invalid::ALL {
                let count = sum(blocks, |cells| &cells.refused_socks[*invalid as usize]);
                family.sample(&[("listener", &labels[0]), ("reason", invalid.code())], count);
            }
            for invalid in Invalid::ALL {
                let count = sum(blocks, |cells| &cells.refused_headers[*invalid as usize]);
                family.sample(&[("listener", &labels[0]), ("reason", invalid.code())], count);
            }
            for refusal in TlsRefusal::ALL {
                let count = sum(blocks, |cells| &cells.handshakes[*refusal as usize]);
                family.sample(&[("listener", &labels[0]), ("reason", refusal.code())], count);
            }
            for flood in Flood::ALL {
                let count = sum(blocks, |cells| &cells.floods[*flood as usize]);
                family.sample(&[("listener", &labels[0]), ("reason", flood.code())], count);
            }
            for breach in Breach::ALL {
                let count = sum(blocks, |cells| &cells.breaches[*breach as usize]);
                family.sample(&[("listener", &labels[0]), ("reason", breach.code())], count);
            }
        }
        let help = "Exchanges that failed, by the code that stands in the answer and in the access log";
        let mut family = out.family("sluice_failures_total", help, Kind::Counter);
        for failure in Failure::ALL {
            let count = all.iter().map(|(_, blocks)| sum(blocks, |cells| &cells.failed[*failure as usize]));
            family.sample(&[("code", failure.code())], count.sum::<u64>());
        }
    }

    fn write_routes(&self, out: &mut Exposition) {
        let all = self.routes.all();
        let asked: Vec<(&str, Vec<&RouteBlock>)> = all
            .iter()
            .map(|(labels, blocks)| (&*labels[0], blocks.iter().filter_map(|cells| cells.block()).collect()))
            .filter(|(_, blocks): &(_, Vec<_>)| !blocks.is_empty())
            .collect();
        let help = "Exchanges by route, class of the status sent, and outcome";
        let mut family = out.family("sluice_http_requests_total", help, Kind::Counter);
        for (route, blocks) in &asked {
            write_outcomes(&mut family, route, blocks);
        }
        let help = "From the first byte of a request to the last byte of its answer";
        let mut family = out.family("sluice_http_request_duration_seconds", help, Kind::Histogram);
        for (route, blocks) in &asked {
            let merged = merge(blocks.iter().map(|block| &block.duration));
            family.histogram(&[("route", route)], &merged);
        }
        let mut bytes = |name, help, cell: fn(&RouteBlock) -> &Counter| {
            let mut family = out.family(name, help, Kind::Counter);
            for (route, blocks) in &asked {
                let count: u64 = blocks.iter().map(|block| cell(block).get()).sum();
                family.sample(&[("route", route)], count);
            }
        };
        bytes("sluice_http_request_body_bytes_total", "Body bytes from clients", |block| &block.received);
        bytes("sluice_http_response_body_bytes_total", "Body bytes to clients", |block| &block.sent);
        let help = "What rate limits and quotas ruled, by route";
        let mut family = out.family("sluice_limit_decisions_total", help, Kind::Counter);
        for (route, blocks) in &asked {
            write_limits(&mut family, route, blocks);
        }
    }

    fn write_upstreams(&self, out: &mut Exposition) {
        let all = self.upstreams.all();
        let mut counter = |name, help, cell: fn(&UpstreamCells) -> &Counter| {
            let mut family = out.family(name, help, Kind::Counter);
            for (labels, blocks) in &all {
                family.sample(&[("upstream", &labels[0])], sum(blocks, cell));
            }
        };
        counter("sluice_upstream_retries_total", "Attempts after a failed one", |cells| &cells.retries);
        let help = "Retries that the retry budget did not allow";
        counter("sluice_upstream_retries_denied_total", help, |cells| &cells.retries_denied);
        let help = "Exchanges that fell back on something else, because the upstream failed";
        counter("sluice_upstream_fallbacks_total", help, |cells| &cells.fallbacks);
        let help = "From the start of an attempt to the first byte of its answer";
        let mut family = out.family("sluice_upstream_latency_seconds", help, Kind::Histogram);
        for (labels, blocks) in &all {
            let merged = merge(blocks.iter().map(|block| &block.latency));
            family.histogram(&[("upstream", &labels[0])], &merged);
        }
        let help = "Answers of endpoints that broke a rule of HTTP, by the rule";
        let mut family = out.family("sluice_upstream_refused_total", help, Kind::Counter);
        for (labels, blocks) in &all {
            for refusal in Refusal::ALL {
                let count = sum(blocks, |cells| &cells.refused[*refusal as usize]);
                if count > 0 {
                    family.sample(&[("upstream", &labels[0]), ("reason", refusal.code())], count);
                }
            }
        }
    }

    fn write_endpoints(&self, out: &mut Exposition) {
        let all = self.endpoints.all();
        let help = "Tries to reach an endpoint, by result: answered, or the code of the failure";
        let mut family = out.family("sluice_upstream_attempts_total", help, Kind::Counter);
        for (labels, blocks) in &all {
            let mut sample = |result, count| {
                let labels = [("upstream", &*labels[0]), ("endpoint", &*labels[1]), ("result", result)];
                family.sample(&labels, count);
            };
            sample("answered", sum(blocks, |cells: &EndpointCells| &cells.answered));
            for failure in Failure::ALL {
                let count = sum(blocks, |cells| &cells.failed[*failure as usize]);
                if count > 0 {
                    sample(failure.code(), count);
                }
            }
        }
        let help = "Connections used for attempts: opened for one, or reused from the pool";
        let mut family = out.family("sluice_upstream_connections_total", help, Kind::Counter);
        for (labels, blocks) in &all {
            let labels = [("upstream", &*labels[0]), ("endpoint", &*labels[1])];
            let opened = sum(blocks, |cells| &cells.opened);
            let reused = sum(blocks, |cells| &cells.reused);
            family.sample(&[labels[0], labels[1], ("kind", "opened")], opened);
            family.sample(&[labels[0], labels[1], ("kind", "reused")], reused);
        }
        let help = "Connections that wait in a pool";
        let mut family = out.family("sluice_pool_idle_connections", help, Kind::Gauge);
        for (labels, blocks) in &all {
            let idle: i64 = blocks.iter().map(|block| block.idle.get()).sum();
            family.sample(&[("upstream", &labels[0]), ("endpoint", &labels[1])], idle as f64);
        }
    }
}

fn write_limits(family: &mut Family<'_>, route: &str, blocks: &[&RouteBlock]) {
    for kind in record::Kind::ALL {
        for ruling in Ruling::ALL {
            let cell = |block: &&RouteBlock| block.limits[kind as usize][ruling as usize].get();
            let count: u64 = blocks.iter().map(cell).sum();
            if count > 0 {
                let labels = [("route", route), ("limit", kind.word()), ("decision", ruling.word())];
                family.sample(&labels, count);
            }
        }
    }
}

fn write_outcomes(family: &mut Family<'_>, route: &str, blocks: &[&RouteBlock]) {
    for (outcome, class) in
        (0..OUTCOMES).flat_map(|outcome| (0..CLASSES.len()).map(move |class| (outcome, class)))
    {
        let count: u64 = blocks.iter().map(|block| block.exchanges[outcome][class].get()).sum();
        if count > 0 {
            let labels = [("route", route), ("code", CLASSES[class]), ("outcome", outcome_code(outcome))];
            family.sample(&labels, count);
        }
    }
}

fn write_build(out: &mut Exposition) {
    out.family("sluice_build_info", "Always 1; the label tells the version", Kind::Gauge)
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
}
