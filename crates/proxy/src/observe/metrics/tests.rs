//! What a scrape says, checked by a strict reader of the text format.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sluice_http::h1::Refusal;

use super::*;
use crate::exchange::Outcome;
use crate::failure::Failure;

/// Samples by their full text before the value. Panics on whatever the format does not allow.
fn read(text: &str, format: Format) -> HashMap<String, f64> {
    let body = match format {
        Format::Text => text,
        Format::OpenMetrics => text.strip_suffix("# EOF\n").expect("ends with # EOF"),
    };
    assert!(body.ends_with('\n'), "the last line ends");
    let (mut samples, mut families) = (HashMap::new(), HashSet::new());
    let mut family = (String::new(), String::new());
    let mut lines = body.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, sentence) = help.split_once(' ').expect("HELP has a sentence");
            let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).expect("TYPE after HELP");
            let (typed, kind) = kind.split_once(' ').expect("TYPE has a kind");
            assert_eq!(typed, name);
            assert!(!sentence.is_empty() && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "family {name} stands twice");
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        check_labels(labels);
        let suffix = name.strip_prefix(&family.0).unwrap_or_else(|| panic!("{name} in {family:?}"));
        let allowed: &[&str] = match (family.1.as_str(), format) {
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            ("counter", Format::OpenMetrics) => &["_total"],
            _ => &[""],
        };
        assert!(allowed.contains(&suffix), "{name} in {family:?}");
        let value: f64 = value.parse().expect("a number");
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} stands twice");
    }
    samples
}

/// Reads `a="b",c="d"}` to its end.
fn check_labels(text: &str) {
    let mut rest = text;
    let mut names = HashSet::new();
    while rest != "}" {
        let (name, value) = rest.split_once("=\"").expect("a label");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(names.insert(name), "{name} stands twice");
        let mut escaped = false;
        let end = value.find(|c| {
            let end = c == '"' && !escaped;
            assert!(!escaped || ['\\', '"', 'n'].contains(&c), "{text}");
            escaped = c == '\\' && !escaped;
            end
        });
        rest = &value[end.expect("a closing quote") + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn summary(status: u16, outcome: Outcome, millis: u64) -> Summary {
    Summary {
        status,
        outcome,
        duration: Duration::from_millis(millis),
        received: 10,
        sent: 100,
        limits: Default::default(),
    }
}

fn busy() -> Registry {
    let registry = Registry::new(2);
    for worker in 0..2 {
        let route = registry.route(worker, "pro\"ducts\\\n");
        route.finish(&summary(200, Outcome::Completed, 3));
        route.finish(&summary(502, Outcome::Failed(Failure::ConnectFailed), 30));
        registry.route(worker, "").finish(&summary(404, Outcome::Failed(Failure::NoRoute), 0));
        _ = registry.route(worker, "never-asked");
        let upstream = registry.upstream(worker, "catalog");
        upstream.retries.add(1);
        upstream.latency(Duration::from_millis(2));
        upstream.refused(Refusal::BadStatus);
        let endpoint = registry.endpoint(worker, "catalog", "127.0.0.1:9001");
        endpoint.attempted(Ok(()));
        endpoint.attempted(Err(Failure::ConnectFailed));
        endpoint.opened.add(2);
        endpoint.reused.add(5);
        endpoint.idle.add(3);
        endpoint.idle.add(-1);
        let listener = registry.listener(worker, "web");
        listener.opened();
        listener.opened();
        listener.closed();
        listener.refused(Refusal::BareLf);
        listener.failed(Failure::NoRoute);
        listener.received.add(7);
    }
    registry
}

#[test]
fn a_scrape_adds_up_the_cells_of_all_workers() {
    let samples = read(&busy().render(Format::Text), Format::Text);
    let expected = [
        (r#"sluice_http_requests_total{route="pro\"ducts\\\n",code="2xx",outcome="completed"}"#, 2.0),
        (r#"sluice_http_requests_total{route="pro\"ducts\\\n",code="5xx",outcome="connect-failed"}"#, 2.0),
        (r#"sluice_http_requests_total{route="",code="4xx",outcome="no-route"}"#, 2.0),
        (r#"sluice_http_request_duration_seconds_bucket{route="pro\"ducts\\\n",le="0.0025"}"#, 0.0),
        (r#"sluice_http_request_duration_seconds_bucket{route="pro\"ducts\\\n",le="0.005"}"#, 2.0),
        (r#"sluice_http_request_duration_seconds_bucket{route="pro\"ducts\\\n",le="+Inf"}"#, 4.0),
        (r#"sluice_http_request_duration_seconds_count{route="pro\"ducts\\\n"}"#, 4.0),
        (r#"sluice_http_request_duration_seconds_sum{route="pro\"ducts\\\n"}"#, 0.066),
        (r#"sluice_http_request_body_bytes_total{route="pro\"ducts\\\n"}"#, 40.0),
        (r#"sluice_http_response_body_bytes_total{route=""}"#, 200.0),
        (r#"sluice_upstream_retries_total{upstream="catalog"}"#, 2.0),
        (r#"sluice_upstream_latency_seconds_count{upstream="catalog"}"#, 2.0),
        (r#"sluice_upstream_refused_total{upstream="catalog",reason="bad-status"}"#, 2.0),
        (
            r#"sluice_upstream_attempts_total{upstream="catalog",endpoint="127.0.0.1:9001",result="answered"}"#,
            2.0,
        ),
        (
            r#"sluice_upstream_attempts_total{upstream="catalog",endpoint="127.0.0.1:9001",result="connect-failed"}"#,
            2.0,
        ),
        (
            r#"sluice_upstream_connections_total{upstream="catalog",endpoint="127.0.0.1:9001",kind="reused"}"#,
            10.0,
        ),
        (r#"sluice_pool_idle_connections{upstream="catalog",endpoint="127.0.0.1:9001"}"#, 4.0),
        (r#"sluice_listener_connections_total{listener="web"}"#, 4.0),
        (r#"sluice_listener_connections_active{listener="web"}"#, 2.0),
        (r#"sluice_listener_refused_total{listener="web",reason="bare-lf"}"#, 2.0),
        (r#"sluice_listener_refused_total{listener="web",reason="bad-host"}"#, 0.0),
        (r#"sluice_listener_received_bytes_total{listener="web"}"#, 14.0),
        (r#"sluice_failures_total{code="no-route"}"#, 2.0),
        (r#"sluice_failures_total{code="internal"}"#, 0.0),
    ];
    for (series, value) in expected {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert!(!samples.keys().any(|series| series.contains("never-asked")));
    assert!(samples.contains_key("process_resident_memory_bytes"));
}

#[test]
fn both_formats_are_valid_even_when_nothing_happened() {
    for registry in [busy(), Registry::new(1)] {
        let text = read(&registry.render(Format::Text), Format::Text);
        let open = read(&registry.render(Format::OpenMetrics), Format::OpenMetrics);
        assert_eq!(text.len(), open.len());
    }
}

#[test]
fn counters_go_on_when_a_snapshot_is_built_again() {
    let registry = Registry::new(1);
    for _ in 0..3 {
        registry.route(0, "a").finish(&summary(200, Outcome::Answered, 1));
    }
    let samples = read(&registry.render(Format::Text), Format::Text);
    let series = r#"sluice_http_requests_total{route="a",code="2xx",outcome="answered"}"#;
    assert_eq!(samples[series], 3.0);
}

#[test]
fn a_refused_load_keeps_the_revision_and_its_time() {
    let registry = Registry::new(1);
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    registry.reloaded(Reload::Applied(7), at);
    registry.reloaded(Reload::Refused, at + Duration::from_secs(60));
    let samples = read(&registry.render(Format::Text), Format::Text);
    assert_eq!(samples["sluice_config_revision"], 7.0);
    assert_eq!(samples["sluice_config_last_reload_success"], 0.0);
    assert_eq!(samples["sluice_config_last_reload_timestamp_seconds"], 1_700_000_000.0);
    assert_eq!(samples[r#"sluice_config_reloads_total{result="applied"}"#], 1.0);
    assert_eq!(samples[r#"sluice_config_reloads_total{result="refused"}"#], 1.0);
}

#[test]
fn collectors_add_their_families() {
    struct Up;
    impl Collector for Up {
        fn collect(&self, out: &mut Exposition) {
            out.family("sluice_endpoint_up", "Whether it is up", Kind::Gauge)
                .sample(&[("upstream", "a"), ("endpoint", "b")], 1_u64);
        }
    }
    let registry = Registry::new(1);
    registry.register(Arc::new(Up));
    registry.register(Arc::new(Up));
    let text = registry.render(Format::Text);
    assert_eq!(text.matches("# TYPE sluice_endpoint_up gauge").count(), 1);
    assert_eq!(text.matches(r#"sluice_endpoint_up{upstream="a",endpoint="b"} 1"#).count(), 2);
}
