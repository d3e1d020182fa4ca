//! What operators see: access log, metrics, health, status, and who may ask for them.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_testkit::{Gateway, Load, Origin, Reply, Scratch, Signal, Wire, eventually, http, sluice};

use crate::forward::{document, gateway};
use crate::setup::{Lines, base};

const LOG: &str = "[access_log]\npath = \"access.log\"\n";

/// The lines of a log in the gateway's directory, when there are so many.
async fn lines(gateway: &Gateway, file: &str, count: usize) -> Vec<String> {
    let path = gateway.scratch().file(file);
    eventually(&format!("{count} lines in {file}"), async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (text.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
    .await
}

async fn json_lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    let lines = lines(gateway, "access.log", count).await;
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_json_line_has_the_facts_of_the_exchange() {
    let origin = Origin::start(Reply::ok("answer")).await;
    let more = format!("{LOG}headers = [\"X-Tenant\"]\n");
    let gateway = Lines { more: &more, ..Lines::default() }.start(&[origin.address()]).await;
    let fields = [
        ("Host", "shop.example:81"),
        ("User-Agent", "te\"st/1"),
        ("Referer", "http://r.example/x"),
        ("X-Tenant", "acme"),
    ];
    let answer = http::request(gateway.address("web"), "POST", "/a%20b?q=1", &fields, b"body!").await;
    let line = &json_lines(&gateway, 1).await[0];
    for (key, value) in [
        ("request_id", answer.field("x-request-id").unwrap()),
        ("client.address", "127.0.0.1"),
        ("http.request.method", "POST"),
        ("url.scheme", "http"),
        ("server.address", "shop.example"),
        ("url.path", "/a%20b"),
        ("url.query", "q=1"),
        ("network.protocol.version", "1.1"),
        ("outcome", "completed"),
        ("listener", "web"),
        ("route", "all"),
        ("upstream", "app"),
        ("endpoint", &origin.address().to_string()),
        ("user_agent", "te\"st/1"),
        ("referer", "http://r.example/x"),
        ("http.request.header.x-tenant", "acme"),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    for (key, value) in
        [("http.response.status_code", 200), ("attempts", 1), ("bytes_in", 5), ("bytes_out", 6)]
    {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    let phase = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"));
    assert!(phase("connect_ms") > 0.0 && phase("ttfb_ms") >= phase("connect_ms"), "{line}");
    assert!(phase("duration_ms") >= phase("ttfb_ms"), "{line}");
    let time = line["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
}

#[tokio::test]
async fn outcomes_attempts_and_endpoints_tell_what_happened() {
    let mut dead = Origin::start(Reply::ok("")).await;
    dead.stop().await;
    let origin = Origin::start(Reply::ok("x")).await;
    let more = format!(
        "{LOG}[[routes]]\nname = \"fixed\"\nmatch = {{ path = \"/fixed\" }}\nrespond = {{ body = \"x\" }}\n"
    );
    let route = "match = { path_prefix = \"/up\" }";
    let lines = Lines { more: &more, route, upstream: "balance = \"round_robin\"", ..Lines::default() };
    let gateway = lines.start(&[dead.address(), origin.address()]).await;
    for target in ["/up", "/fixed", "/nowhere"] {
        http::get(gateway.address("web"), target).await;
    }
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("nonsense\r\n\r\n").await.answer().await;
    origin.set_script(Reply::ok("0123456789").cut_after(50));
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET /up HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.read_to_end().await;
    let lines = json_lines(&gateway, 5).await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["outcome"].as_str().unwrap(), line["http.response.status_code"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("completed", 200),
        ("answered", 200),
        ("no-route", 404),
        ("bad-request", 400),
        ("upstream-incomplete", 200),
    ];
    assert_eq!(told, expected);
    assert_eq!((&lines[0]["attempts"], &lines[1]["attempts"]), (&2.into(), &0.into()));
    assert_eq!(lines[0]["endpoint"], origin.address().to_string(), "the endpoint that answered");
    assert_eq!(
        (lines[2].get("route"), lines[1].get("upstream"), lines[3].get("url.path")),
        (None, None, None)
    );
}

#[tokio::test]
async fn combined_lines_are_read_by_everybodys_tools() {
    let origin = Origin::start(Reply::ok("answer")).await;
    let more = format!("{LOG}format = \"combined\"\n");
    let gateway = Lines { more: &more, ..Lines::default() }.start(&[origin.address()]).await;
    let fields = [("User-Agent", "te\"st\\/1"), ("Referer", "http://r.example/?token=s3cret")];
    http::get_with(gateway.address("web"), "/x?password=s3cret&a=1", &fields).await;
    let line = lines(&gateway, "access.log", 1).await.remove(0);
    let (start, rest) = line.split_once(" [").unwrap();
    assert_eq!(start, "127.0.0.1 - -");
    let (time, rest) = rest.split_once("] ").unwrap();
    assert!(!time.is_empty());
    assert!(
        rest.starts_with(
            "\"GET /x?password=[redacted]&a=1 HTTP/1.1\" 200 6 \"http://r.example/?token=[redacted]\" \"te"
        ),
        "{rest}"
    );
    assert!(!line.contains("s3cret"), "{line}");
    // Three quoted parts: what a client sends cannot open a fourth.
    assert_eq!(line.matches('"').count(), 6, "{line}");
}

#[tokio::test]
async fn a_rename_and_usr1_lose_no_line() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = Lines { more: LOG, ..Lines::default() }.start(&[origin.address()]).await;
    let load = Load { connections: 4, requests: usize::MAX, ..Load::default() }.start(gateway.address("web"));
    for turn in 0..5 {
        let before = load.answered();
        eventually("more requests", async || (load.answered() > before + 50).then_some(())).await;
        let log = gateway.scratch().file("access.log");
        std::fs::rename(&log, gateway.scratch().file(&format!("access.log.{turn}"))).unwrap();
        gateway.signal(Signal::Usr1).await;
        eventually("the log to be there again", async || log.exists().then_some(())).await;
    }
    let report = load.finish().await;
    report.assert_clean();
    eventually("a line for each request", async || {
        let mut count = 0;
        for file in std::fs::read_dir(gateway.scratch().path()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("access.log") {
                let text = std::fs::read_to_string(path).unwrap();
                count += text.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
            }
        }
        assert!(count <= report.right, "{count} lines for {} requests", report.right);
        (count == report.right).then_some(())
    })
    .await;
}

#[tokio::test]
async fn r21_secrets_never_reach_a_log() {
    const SECRET: &str = "hunter2secret";
    let origin = Origin::start(Reply::ok("").field("Set-Cookie", &format!("session={SECRET}"))).await;
    let more = format!(
        "{LOG}headers = [\"Authorization\", \"Cookie\", \"X-Api-Key\", \"X-Mine\", \"X-Open\"]\n\
         redact = {{ headers = [\"X-Mine\"], query = [\"pin\"] }}\n"
    );
    let gateway = Lines { more: &more, ..Lines::default() }.start(&[origin.address()]).await;
    let secret = SECRET;
    let fields = [
        ("Authorization", secret),
        ("Cookie", secret),
        ("X-Api-Key", secret),
        ("X-Mine", secret),
        ("X-Open", "open"),
        ("Referer", &format!("https://u:{SECRET}@r.example/?access_token={SECRET}")),
    ];
    let target =
        format!("/?api_key={SECRET}&PIN={SECRET}&user%5Bpassword%5D={SECRET}&x=seen&access%5Ftoken={SECRET}");
    http::get_with(gateway.address("web"), &target, &fields).await;
    let line = lines(&gateway, "access.log", 1).await.remove(0);
    assert!(!line.contains(SECRET), "{line}");
    assert!(line.contains("x=seen") && line.contains("open") && line.contains("[redacted]"), "{line}");
    // A request that fails is told to the operator without them as well.
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send(format!(
        "GET /?token={SECRET} HTTP/1.1\r\nHost: a\r\nAuthorization: {SECRET}\r\nX : y\r\n\r\n"
    ))
    .await;
    wire.answer().await;
    let all = lines(&gateway, "access.log", 2).await.join("\n") + &gateway.stderr() + &gateway.stdout();
    assert!(!all.contains(SECRET), "{all}");
    let metrics = http::get(gateway.admin(), "/metrics").await.text();
    assert!(!metrics.contains(SECRET));
}

#[tokio::test]
async fn metrics_are_well_formed_and_count() {
    let mut origin = Origin::start(Reply::ok("12345")).await;
    let gateway = gateway(&[origin.address()]).await;
    let load = Load { connections: 2, requests: 20, ..Load::default() };
    load.run(gateway.address("web")).await.assert_clean();
    http::post(gateway.address("web"), "/", "abc").await;
    origin.stop().await;
    http::get(gateway.address("web"), "/").await;
    let answer = http::get(gateway.admin(), "/metrics").await;
    assert!(answer.field("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    well_formed(&answer.text());
    for (name, labels, value) in [
        ("sluice_http_requests_total", vec!["route=\"all\"", "code=\"2xx\"", "outcome=\"completed\""], 21.0),
        ("sluice_http_requests_total", vec!["code=\"5xx\"", "outcome=\"connect-failed\""], 1.0),
        ("sluice_failures_total", vec!["code=\"connect-failed\""], 1.0),
        ("sluice_http_request_duration_seconds_count", vec!["route=\"all\""], 22.0),
        ("sluice_http_request_body_bytes_total", vec!["route=\"all\""], 3.0),
        ("sluice_upstream_attempts_total", vec!["result=\"answered\""], 21.0),
        ("sluice_endpoint_in_flight", vec![], 0.0),
        ("sluice_config_reloads_total", vec!["result=\"refused\""], 0.0),
    ] {
        assert_eq!(gateway.metric(name, &labels).await, value, "{name} {labels:?}");
    }
    assert!(gateway.metric("sluice_listener_connections_total", &["listener=\"web\""]).await >= 4.0);
    gateway.reload("nonsense").await;
    assert_eq!(gateway.metric("sluice_config_last_reload_success", &[]).await, 0.0);
    assert_eq!(gateway.metric("sluice_config_reloads_total", &["result=\"refused\""]).await, 1.0);
}

/// The Prometheus text format: HELP and TYPE before the samples of a family, families together, names and
/// labels spelled as they must be, histograms that add up.
fn well_formed(text: &str) {
    assert!(text.ends_with('\n'));
    let mut family = (String::new(), String::new());
    let mut seen = Vec::new();
    let mut buckets: BTreeMap<String, f64> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!seen.contains(&name.to_owned()), "{name} is there twice");
            seen.push(name.to_owned());
            family = (name.to_owned(), kind.to_owned());
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let name = sample.split('{').next().unwrap();
            let of_histogram = family.1 == "histogram"
                && ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", family.0));
            assert!(name == family.0 || of_histogram, "{line} under {}", family.0);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
            if family.1 == "counter" {
                assert!(name.ends_with("_total") && value >= 0.0, "{line}");
            }
            if name.ends_with("_bucket") {
                let key = sample.split("le=").next().unwrap().to_owned();
                let before = buckets.insert(key, value).unwrap_or(0.0);
                assert!(value >= before, "{line}: buckets are cumulative");
            }
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}

#[tokio::test]
async fn health_tells_life_from_readiness() {
    let origin = Origin::start(Reply::ok("x").held()).await;
    let mut gateway = gateway(&[origin.address()]).await;
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(http::get(gateway.admin(), path).await.status, 200, "{path}");
    }
    let mut wire = Wire::connect(gateway.address("web")).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.wait_held(1).await;
    gateway.signal(Signal::Term).await;
    let admin = gateway.admin();
    eventually("503 from /readyz", async || (http::get(admin, "/readyz").await.status == 503).then_some(()))
        .await;
    assert_eq!(http::get(admin, "/livez").await.status, 200, "it still works");
    assert_eq!(http::get(admin, "/v1/status").await.json()["draining"], true);
    origin.release();
    assert_eq!(wire.answer().await.text(), "x");
    assert_eq!(gateway.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn status_tells_what_runs() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let status = http::get(gateway.admin(), "/v1/status").await.json();
    assert_eq!(status["listeners"][0]["name"], "web");
    assert_eq!(status["listeners"][0]["address"], gateway.address("web").to_string());
    assert_eq!(status["routes"], serde_json::json!(["all"]));
    let upstream = &status["upstreams"][0];
    assert_eq!((&upstream["name"], &upstream["balance"]), (&"app".into(), &"round_robin".into()));
    let endpoint = &upstream["endpoints"][0];
    assert_eq!(endpoint["address"], origin.address().to_string());
    assert_eq!((&endpoint["state"], &endpoint["breaker"]), (&"available".into(), &"closed".into()));
    assert_eq!((&status["draining"], &endpoint["in_flight"]), (&false.into(), &0.into()));
}

#[tokio::test]
async fn a_web_page_can_neither_change_nor_read_anything() {
    let origin = Origin::start(Reply::ok("")).await;
    let gateway = gateway(&[origin.address()]).await;
    let revision = async || http::get(gateway.admin(), "/v1/status").await.json()["revision"].clone();
    let before = revision().await;
    for field in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example"),
    ] {
        let answer = http::request(gateway.admin(), "POST", "/v1/reload", &[field], b"").await;
        assert_eq!(answer.status, 403, "{field:?}");
    }
    assert_eq!(revision().await, before);
    let rebound = http::get_with(gateway.admin(), "/metrics", &[("Host", "evil.example")]).await;
    assert_eq!(rebound.status, 403);
    assert_eq!(http::get(gateway.admin(), "/v1/reload").await.status, 405, "a GET changes nothing");
    assert_eq!(http::post(gateway.admin(), "/v1/reload", "").await.status, 200);
    assert_ne!(revision().await, before);
}

#[tokio::test]
async fn r22_the_admin_endpoints_are_for_this_machine() {
    let scratch = Scratch::new();
    for address in ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:9900"] {
        let text = document(&["127.0.0.1:9".parse().unwrap()], "").replace(
            "admin = { address = \"127.0.0.1:0\" }",
            &format!("admin = {{ address = \"{address}\" }}"),
        );
        let path = scratch.write("sluice.toml", text).display().to_string();
        for command in ["check", "run"] {
            let ended = sluice([command, &path]).finish().await;
            assert_eq!(ended.code(), 78, "{command} {address}\n{}", ended.stderr);
            assert!(ended.stderr.contains("loopback"), "{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn the_code_and_the_id_agree_wherever_they_stand() {
    let mut dead = Origin::start(Reply::ok("")).await;
    dead.stop().await;
    let route = "match = { path_prefix = \"/up\" }";
    let gateway = Lines { more: LOG, route, ..Lines::default() }.start(&[dead.address()]).await;
    let failing = [
        ("GET /up HTTP/1.1\r\nHost: a\r\n\r\n", "connect-failed", 502),
        ("GET /none HTTP/1.1\r\nHost: a\r\n\r\n", "no-route", 404),
        ("GET /up HTTP/1.1\r\n\r\n", "bad-request", 400),
        ("POST /up HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", "expectation-failed", 417),
        ("GET /up HTTP/3.0\r\nHost: a\r\n\r\n", "version-not-supported", 505),
    ];
    for (number, (request, code, status)) in failing.into_iter().enumerate() {
        let mut wire = Wire::connect(gateway.address("web")).await;
        let answer = wire.send(request).await.answer().await;
        let id = answer.field("x-request-id").unwrap().to_owned();
        let body = answer.json();
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        assert_eq!((answer.status, &body["status"], &body["code"]), (status, &status.into(), &code.into()));
        assert_eq!(body["instance"], id, "{body}");
        assert!(body["title"].is_string() && body["detail"].is_string() && body["type"].is_string());
        let proxy_status = answer.field("proxy-status").unwrap();
        assert!(
            proxy_status.starts_with("sluice") && proxy_status.contains(&format!("details=\"{code}\"")),
            "{proxy_status}"
        );
        let lines = json_lines(&gateway, number + 1).await;
        let line = &lines[number];
        assert_eq!((&line["outcome"], &line["request_id"]), (&code.into(), &id.into()));
        assert_eq!(line["http.response.status_code"], status);
        assert_eq!(gateway.metric("sluice_failures_total", &[&format!("code=\"{code}\"")]).await, 1.0);
    }
}

#[tokio::test]
async fn a_failure_has_the_form_its_client_reads() {
    let gateway = Gateway::start(&base("")).await;
    let page = http::get_with(gateway.address("web"), "/", &[("Accept", "text/html,*/*;q=0.8")]).await;
    assert_eq!((page.status, page.field("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("no-route") && page.text().contains(page.field("x-request-id").unwrap()));
    let fields = [("Content-Type", "application/grpc+proto"), ("TE", "trailers")];
    let grpc = http::get_with(gateway.address("web"), "/pkg.Service/Call", &fields).await;
    assert_eq!((grpc.status, grpc.field("grpc-status"), grpc.text().as_str()), (200, Some("12"), ""));
}

#[tokio::test]
async fn the_status_command_shows_what_runs() {
    let mut dead = Origin::start(Reply::ok("")).await;
    dead.stop().await;
    let origin = Origin::start(Reply::ok("x")).await;
    let lines = Lines {
        route: "filters = [{ concurrency = { limit = 5 } }]",
        forward: "breaker = { failure_ratio = 0.5, min_requests = 5 }",
        upstream: "health = { http = { path = \"/\", every = \"100ms\", fall = 1 } }",
        ..Lines::default()
    };
    let gateway = lines.start(&[dead.address(), origin.address()]).await;
    let admin = gateway.admin().to_string();
    let ask = async |arguments: &[&str]| sluice([&["status"], arguments].concat()).finish().await;
    let dead = dead.address().to_string();
    let shown = eventually("the endpoint that is down", async || {
        let ended = ask(&["--admin", &admin]).await;
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let is_down = |line: &str| line.contains(&dead) && line.contains("unhealthy");
        ended.stdout.lines().any(is_down).then_some(ended.stdout)
    })
    .await;
    let row = |words: &[&str]| {
        shown.lines().any(|line| line.split_whitespace().take(words.len()).eq(words.iter().copied()))
    };
    for words in [
        &["web", &gateway.address("web").to_string(), "http"][..],
        &["app", &origin.address().to_string(), "available"],
        &["route", "all", "closed"],
        &["LIMIT", "PLACES", "RUNNING", "WAITING", "REFUSED"],
    ] {
        assert!(row(words), "{words:?} in\n{shown}");
    }
    assert!(shown.contains("revision 1, process ") && !shown.contains("TUNNELS"), "{shown}");
    let ended = ask(&["--format", "json", "--admin", &admin]).await;
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["upstreams"][0]["endpoints"][1]["state"], "available");
    drop(gateway);
    let ended = ask(&["--admin", &admin]).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(&admin), "{}", ended.stderr);
}
