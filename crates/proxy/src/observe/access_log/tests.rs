//! Whole lines, and a log from a worker's record to the file.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Instant, UNIX_EPOCH};

use sluice_http::NameId;

use super::*;
use crate::exchange::{Client, Exchange, Outcome, Phases};
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::observe::metrics::Format;
use crate::problem::{At, Problems};

fn plan(text: &str) -> Plan {
    let config: Config = toml_edit::de::from_str(text).unwrap();
    let mut problems = Problems::new();
    config.build(&At::root(), &mut problems).unwrap_or_else(|| panic!("{problems:?}"))
}

#[expect(clippy::disallowed_methods, reason = "an exchange has a start, which no line shows")]
fn exchange() -> Exchange {
    let client = Client {
        peer: "192.0.2.7:5000".parse().unwrap(),
        address: "192.0.2.7".parse().unwrap(),
        scheme: Scheme::Http,
        listener: "web".into(),
        tls: None,
    };
    let mut exchange = Exchange::begin(client, "r-1".to_owned(), Instant::now());
    exchange.path = "/v1/products/7".to_owned();
    exchange.route = "products".into();
    exchange.upstream = "catalog".into();
    exchange.endpoint = "127.0.0.1:9001".into();
    exchange.attempts = 1;
    exchange.phases = Phases {
        connected: Duration::from_micros(250),
        first_byte: Duration::from_micros(3_050),
        total: Duration::from_micros(12_345),
    };
    exchange.status = 200;
    exchange.sent = 2_326;
    exchange
}

fn head() -> RequestHead {
    let mut head = RequestHead::new("GET", "/v1/products/7?token=abc&page=2");
    head.fields.append(NameId::Host, b"shop.example:8080");
    head.fields.append(NameId::UserAgent, "curl/8 \"x\"\té".as_bytes());
    head.fields.append(NameId::Referer, b"https://u:p@shop.example/?code=1");
    head.fields.append(NameId::Authorization, b"Bearer s3cret");
    head.fields.append(NameId::XForwardedFor, b"198.51.100.1");
    head.fields.append(NameId::XForwardedFor, b"198.51.100.2");
    head
}

/// 2000-10-10 20:55:36.042 UTC.
fn moment() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(971_211_336_042)
}

fn line(text: &str, exchange: &Exchange, head: Option<&RequestHead>) -> String {
    let plan = plan(text);
    let style = if plan.layout == Layout::Json { Style::Rfc3339 } else { Style::CommonLog };
    let (mut request, mut out) = (Captured::default(), Vec::new());
    if let Some(head) = head {
        request.take(head, &plan);
    }
    let record = Record { exchange, request: &request };
    record.write(&plan, &mut Timestamp::new(style), moment(), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_user_stands_in_both_formats() {
    let mut known = exchange();
    known.user = Some("anna \"b\" é".into());
    assert!(line("", &known, None).contains(",\"user.name\":\"anna \\\"b\\\" é\","));
    let combined = line("format = \"combined\"", &known, None);
    assert!(combined.starts_with("192.0.2.7 - anna\\x20\\x22b\\x22\\x20\\xC3\\xA9 ["), "{combined}");
    assert!(!line("", &exchange(), None).contains("user.name"));
}

#[test]
fn a_json_line_has_the_documented_keys_in_order() {
    let line =
        line(r#"headers = ["X-Forwarded-For", "Authorization", "X-None"]"#, &exchange(), Some(&head()));
    let expected = concat!(
        r#"{"time":"2000-10-10T20:55:36.042Z","request_id":"r-1","client.address":"192.0.2.7","#,
        r#""http.request.method":"GET","url.scheme":"http","server.address":"shop.example","#,
        r#""url.path":"/v1/products/7","url.query":"token=[redacted]&page=2","network.protocol.version":"1.1","#,
        r#""http.response.status_code":200,"outcome":"completed","listener":"web","route":"products","#,
        r#""upstream":"catalog","endpoint":"127.0.0.1:9001","attempts":1,"duration_ms":12.345,"#,
        r#""connect_ms":0.250,"ttfb_ms":3.050,"bytes_in":0,"bytes_out":2326,"#,
        r#""user_agent":"curl/8 \"x\"\té","referer":"https://[redacted]@shop.example/?code=[redacted]","#,
        r#""http.request.header.x-forwarded-for":"198.51.100.1, 198.51.100.2","#,
        r#""http.request.header.authorization":"[redacted]"}"#,
        "\n"
    );
    assert_eq!(line, expected);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["duration_ms"], 12.345);
}

#[test]
fn what_is_not_known_has_no_key() {
    let mut exchange = exchange();
    exchange.client.address = "2001:db8::1".parse().unwrap();
    exchange.route = "".into();
    exchange.upstream = "".into();
    exchange.endpoint = "".into();
    exchange.attempts = 0;
    exchange.phases = Phases::default();
    exchange.outcome = Outcome::Failed(Failure::BadRequest);
    exchange.status = 400;
    let expected = concat!(
        r#"{"time":"2000-10-10T20:55:36.042Z","request_id":"r-1","client.address":"2001:db8::1","#,
        r#""network.peer.address":"192.0.2.7","url.scheme":"http","http.response.status_code":400,"#,
        r#""outcome":"bad-request","listener":"web","attempts":0,"duration_ms":0.000,"#,
        r#""bytes_in":0,"bytes_out":2326}"#,
        "\n"
    );
    assert_eq!(line("", &exchange, None), expected);
}

#[test]
fn a_combined_line_is_apaches() {
    let expected = concat!(
        r#"192.0.2.7 - - [10/Oct/2000:20:55:36 +0000] "GET /v1/products/7?token=[redacted]&page=2 HTTP/1.1" 200 2326 "#,
        r#""https://[redacted]@shop.example/?code=[redacted]" "curl/8 \x22x\x22\x09\xC3\xA9""#,
        "\n"
    );
    assert_eq!(line("format = \"combined\"", &exchange(), Some(&head())), expected);
    let mut exchange = exchange();
    (exchange.status, exchange.sent) = (0, 0);
    let expected = "192.0.2.7 - - [10/Oct/2000:20:55:36 +0000] \"-\" - - \"-\" \"-\"\n";
    assert_eq!(line("format = \"combined\"", &exchange, None), expected);
}

#[test]
fn every_target_form_gives_a_path() {
    for (target, path, query) in [
        ("/a?b?c", "/a", Some("b?c")),
        ("/a?", "/a", Some("")),
        ("http://h.example/a", "/a", None),
        ("http://h.example?b", "/", Some("b")),
        ("*", "*", None),
        ("h.example:443", "h.example:443", None),
        ("/a://b/c", "/a://b/c", None),
    ] {
        let line = line("", &exchange(), Some(&RequestHead::new("GET", target)));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (line["url.path"].as_str(), line.get("url.query").and_then(|q| q.as_str())),
            (Some(path), query)
        );
    }
}

#[test]
fn sampling_keeps_its_share_and_every_failure() {
    let plan = plan("sample = 0.25");
    let request = Captured::default();
    let mut exchange = exchange();
    let mut kept = 0;
    for number in 0..10_000 {
        exchange.request_id = format!("0191{number:028x}");
        kept += u32::from(Record { exchange: &exchange, request: &request }.is_wanted(&plan));
    }
    assert!((2_200..2_800).contains(&kept), "{kept}");
    let none = self::plan("sample = 0.0");
    assert!(!Record { exchange: &exchange, request: &request }.is_wanted(&none));
    exchange.status = 500;
    assert!(Record { exchange: &exchange, request: &request }.is_wanted(&none));
    (exchange.status, exchange.outcome) = (404, Outcome::Failed(Failure::NoRoute));
    assert!(Record { exchange: &exchange, request: &request }.is_wanted(&none));
}

#[test]
fn a_captured_request_is_reused_without_traces_of_the_one_before() {
    let plan = plan("headers = [\"X-Forwarded-For\"]");
    let mut reused = Captured::default();
    reused.take(&head(), &plan);
    reused.take(&RequestHead::new("PUT", "/b"), &plan);
    let mut fresh = Captured::default();
    fresh.take(&RequestHead::new("PUT", "/b"), &plan);
    assert_eq!(format!("{reused:?}"), format!("{fresh:?}"));
}

// === the log as a whole ===

/// A new empty folder of this test process; removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-access-log-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn ids(path: &std::path::Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a whole line");
        line["request_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

fn record(writer: &mut LogWriter, id: impl Into<String>) {
    let exchange = Exchange { request_id: id.into(), ..exchange() };
    writer.record(&Record { exchange: &exchange, request: &Captured::default() }, moment());
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn renaming_and_opening_again_loses_no_line() {
    let folder = Folder::new();
    let (path, old) = (folder.0.join("access.log"), folder.0.join("access.log.1"));
    let registry = Registry::new(1);
    let plan = plan(&format!("path = {:?}", path.to_str().unwrap()));
    let log = AccessLog::open(plan, &registry, &Diagnostics::silent()).unwrap();
    let mut writer = log.writer();
    record(&mut writer, "before");
    writer.flush();
    fs::rename(&path, &old).unwrap();
    record(&mut writer, "between");
    writer.flush();
    log.reopen();
    record(&mut writer, "after");
    drop(writer);
    log.close(PATIENCE).unwrap();
    assert_eq!(ids(&old), ["before", "between"]);
    assert_eq!(ids(&path), ["after"]);
    assert_eq!(registry.access_log().written.load(Ordering::Relaxed), 3);
}

#[test]
fn a_file_that_cannot_be_opened_again_stays_in_use() {
    let folder = Folder::new();
    let inner = folder.0.join("logs");
    fs::create_dir(&inner).unwrap();
    let (path, moved) = (inner.join("access.log"), folder.0.join("moved"));
    let plan = plan(&format!("path = {:?}", path.to_str().unwrap()));
    let log = AccessLog::open(plan.clone(), &Registry::new(1), &Diagnostics::silent()).unwrap();
    fs::rename(&inner, &moved).unwrap();
    log.reopen();
    let mut writer = log.writer();
    record(&mut writer, "still-there");
    drop(writer);
    log.close(PATIENCE).unwrap();
    assert_eq!(ids(&moved.join("access.log")), ["still-there"]);
    assert!(AccessLog::open(plan, &Registry::new(1), &Diagnostics::silent()).is_err());
}

#[test]
fn lines_of_many_workers_never_mix() {
    let folder = Folder::new();
    let path = folder.0.join("access.log");
    let registry = Registry::new(4);
    let plan = plan(&format!("path = {:?}", path.to_str().unwrap()));
    let log = AccessLog::open(plan, &registry, &Diagnostics::silent()).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let mut writer = log.writer();
            scope.spawn(move || {
                (0..1_000).for_each(|number| record(&mut writer, format!("{worker}-{number}")));
            });
        }
    });
    log.close(PATIENCE).unwrap();
    let ids = ids(&path);
    assert_eq!(ids.len(), 4_000);
    for worker in 0..4 {
        let own: Vec<_> = ids.iter().filter(|id| id.starts_with(&format!("{worker}-"))).collect();
        assert!(own.iter().enumerate().all(|(number, id)| **id == format!("{worker}-{number}")));
    }
}

/// Waits for a permission before each write, or fails when there is none any more.
struct Gated(mpsc::Receiver<io::Result<()>>);

impl output::Output for Gated {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        self.0.recv().unwrap_or(Ok(()))
    }
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn name(&self) -> String {
        "gated".to_owned()
    }
}

#[test]
fn a_stuck_output_drops_lines_and_keeps_no_worker_waiting() {
    let registry = Registry::new(1);
    let (gate, gated) = mpsc::channel();
    let log = AccessLog::start(plan(""), Box::new(Gated(gated)), &registry, &Diagnostics::silent()).unwrap();
    let mut writer = log.writer();
    // Each line is longer than 256 bytes: this is more than may wait.
    let lines = queue::WAITING_LIMIT as u64 / 256;
    (0..lines).for_each(|number| record(&mut writer, number.to_string()));
    drop(writer);
    assert_eq!(log.close(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
    let counts = registry.access_log();
    let dropped = counts.overflowed.load(Ordering::Relaxed);
    assert!(dropped > 0 && dropped < lines, "{dropped}");
    assert_eq!(counts.written.load(Ordering::Relaxed), 0);
    drop(gate);
    log.close(PATIENCE).unwrap();
    assert_eq!(counts.written.load(Ordering::Relaxed), lines - dropped);
    let text = registry.render(Format::Text);
    assert!(text.contains(&format!("sluice_access_log_dropped_total{{reason=\"overflow\"}} {dropped}\n")));
}

#[test]
fn failed_writes_are_counted_and_told_once() {
    let registry = Registry::new(1);
    let told = Told::default();
    let clock = || SystemTime::UNIX_EPOCH;
    let level = crate::observe::diagnostic::Level::Info;
    let diagnostics = Diagnostics::new(Default::default(), level, clock, told.clone());
    let (gate, gated) = mpsc::channel();
    let log = AccessLog::start(plan(""), Box::new(Gated(gated)), &registry, &diagnostics).unwrap();
    let mut writer = log.writer();
    for result in [Err(io::ErrorKind::StorageFull.into()), Err(io::ErrorKind::StorageFull.into()), Ok(())] {
        record(&mut writer, "x");
        writer.flush();
        gate.send(result).unwrap();
    }
    drop(writer);
    log.close(PATIENCE).unwrap();
    let counts = registry.access_log();
    assert_eq!((counts.failed.load(Ordering::Relaxed), counts.written.load(Ordering::Relaxed)), (2, 1));
    let told = told.0.lock().unwrap().clone();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("cannot be written") && told[1].contains("lost=2"), "{told:?}");
}

/// The lines told to the operator.
#[derive(Clone, Default)]
struct Told(Arc<std::sync::Mutex<Vec<String>>>);

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_is_replaced_writes_what_its_writers_still_hold() {
    let folder = Folder::new();
    let path = folder.0.join("access.log");
    let plan = plan(&format!("path = {:?}", path.to_str().unwrap()));
    let log = AccessLog::open(plan, &Registry::new(1), &Diagnostics::silent()).unwrap();
    let queue = log.queue.clone();
    let mut writer = log.writer();
    drop(log);
    record(&mut writer, "last");
    drop(writer);
    queue.wait(PATIENCE).unwrap();
    assert_eq!(ids(&path), ["last"]);
}
