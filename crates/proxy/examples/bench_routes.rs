//! `cargo xtask bench routes`: what a lookup costs with 10, 1,000 and 100,000 routes, and what it costs to load
//! that many from a TOML text.
//!
//! Promise: every lookup is of another route in random order, so that a large table is not in the cache; only
//! the request is, as it is after its head was parsed. Ends with 1 when a bar is missed.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark speaks to its terminal and measures real time"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sluice_http::{NameId, RequestHead};
use sluice_proxy::config::check::check;
use sluice_proxy::config::model::Model;
use sluice_proxy::config::{Environment, Format, Source, load};
use sluice_proxy::facts::{Facts, Params, Scheme};
use sluice_proxy::route::Lookup;

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COUNTS: [usize; 3] = [10, 1_000, 100_000];
/// At the largest count.
const MOST_NANOS: f64 = 1_000.0;
/// Of a lookup with the largest count to one with the smallest.
const MOST_RATIO: f64 = 2.0;
/// For text -> document -> model at the largest count.
const LONGEST_LOAD: Duration = Duration::from_secs(2);
/// The median of this many measurements counts.
const ROUNDS: usize = 9;
/// Lookups between two looks at the clock. Before them their requests are read once, which takes them into the
/// cache.
const BATCH: usize = 16;
const LOOKUPS: usize = 100_000;

/// What one table costs.
struct Measured {
    read: Duration,
    check: Duration,
    lookup: f64,
}

fn main() -> ExitCode {
    let measured = COUNTS.map(measure);
    println!(
        "{:>8}  {:>12}  {:>14}  {:>10}  {:>10}  {:>10}",
        "routes", "ns/lookup", "ratio to 10", "read", "check", "load"
    );
    for (count, one) in COUNTS.iter().zip(&measured) {
        println!(
            "{count:>8}  {:>12.0}  {:>14.2}  {:>7.1} ms  {:>7.1} ms  {:>7.1} ms",
            one.lookup,
            one.lookup / measured[0].lookup,
            millis(one.read),
            millis(one.check),
            millis(one.read + one.check),
        );
    }
    println!("\nread: text -> document; check: document -> model (with its table); load: both.\n");
    let [least, .., most] = &measured;
    let ratio = most.lookup / least.lookup;
    let load = most.read + most.check;
    let bars = [
        (most.lookup <= MOST_NANOS, format!("a lookup takes at most {MOST_NANOS} ns: {:.0} ns", most.lookup)),
        (ratio <= MOST_RATIO, format!("at most {MOST_RATIO} x that with 10 routes: {ratio:.2} x")),
        (load <= LONGEST_LOAD, format!("a load takes at most {LONGEST_LOAD:?}: {:.2} s", load.as_secs_f64())),
    ];
    println!("At {} routes:", COUNTS[2]);
    for (held, bar) in &bars {
        println!("  {}  {bar}", if *held { "ok    " } else { "MISSED" });
    }
    ExitCode::from(u8::from(bars.iter().any(|(held, _)| !held)))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn measure(count: usize) -> Measured {
    let source = Source::new("bench.toml", document(count), Format::Toml);
    let (mut reads, mut checks) = (Vec::new(), Vec::new());
    let mut model = None;
    for _ in 0..3 {
        let start = Instant::now();
        let loaded = load(&source, &Nothing).unwrap_or_else(|report| {
            panic!("{}", report.render(sluice_proxy::config::Style::Plain));
        });
        reads.push(start.elapsed());
        let start = Instant::now();
        let checked = check(&loaded.document);
        checks.push(start.elapsed());
        model = checked.ok();
    }
    let model = model.expect("a document without problems");
    Measured { read: median(reads), check: median(checks), lookup: lookup(&model, count) }
}

fn median<T: PartialOrd>(mut all: Vec<T>) -> T {
    all.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    let middle = all.len() / 2;
    all.swap_remove(middle)
}

/// Nanoseconds per lookup.
fn lookup(model: &Model, count: usize) -> f64 {
    let requests: Vec<(RequestHead, usize)> = shuffled(count).map(request).collect();
    let params = Params::default();
    let round = || {
        let mut spent = Duration::ZERO;
        for batch in requests.chunks(BATCH) {
            let facts: Vec<(Facts<'_>, usize)> =
                batch.iter().map(|(head, route)| (facts(head, &params), *route)).collect();
            for (facts, _) in &facts {
                black_box((facts.head.host(), facts.path.len()));
            }
            let start = Instant::now();
            for (facts, route) in &facts {
                match black_box(model.table.find(black_box(facts), 0)) {
                    Lookup::Found { route: found, .. } if found == *route => {}
                    other => panic!("route {route} was asked for, {other:?} came"),
                }
            }
            spent += start.elapsed();
        }
        spent.as_nanos() as f64 / requests.len() as f64
    };
    round();
    median((0..ROUNDS).map(|_| round()).collect())
}

fn facts<'a>(head: &'a RequestHead, params: &'a Params) -> Facts<'a> {
    Facts {
        head,
        path: head.path(),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        scheme: Scheme::Http,
        listener: "web",
        request_id: "",
        route: "",
        params,
    }
}

/// [`LOOKUPS`] routes, each as often as the others, in an order that no cache foresees.
fn shuffled(count: usize) -> impl Iterator<Item = usize> {
    // A step without a divisor in common with the count visits every route before one comes again.
    const STEP: usize = 61_803;
    (0..LOOKUPS).map(move |at| at * STEP % count)
}

/// Every kind of route in turn, so that any number of them is a fair mixture.
fn document(count: usize) -> String {
    let mut text = String::from("[listeners.web]\naddress = \"127.0.0.1:8080\"\n");
    for route in 0..count {
        let matches = match route % 5 {
            0 => format!("path = \"/exact/page-{route}\", methods = [\"GET\"]"),
            1 => format!("path = \"/v1/tenant-{route}/orders/{{id:int}}/items/{{item}}\""),
            2 => format!("path_prefix = \"/static/site-{route}\""),
            3 => format!(
                "hosts = [\"shop-{route}.example\", \"www.shop-{route}.example\"], path_prefix = \"/\""
            ),
            _ => format!(
                "hosts = [\"*.wild-{route}.example\"], path = \"/about\", headers = {{ x-beta = \"1\" }}"
            ),
        };
        let filters = match route % 3 {
            0 => "filters = [{ headers = { request = { set = { x-gateway = \"sluice\" } } } }]\n",
            _ => "",
        };
        let upstream = route % 100;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[routes]]\nname = \"route-{route}\"\nmatch = {{ {matches} }}\n{filters}\
             forward = {{ upstream = \"app-{upstream}\", timeout = \"2s\" }}\n"
        );
    }
    for upstream in 0..count.min(100) {
        let _ = write!(
            text,
            "\n[upstreams.app-{upstream}]\nendpoints = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n"
        );
    }
    text
}

/// A request that this route takes.
fn request(route: usize) -> (RequestHead, usize) {
    let (host, target) = match route % 5 {
        0 => ("other.example".to_owned(), format!("/exact/page-{route}")),
        1 => ("other.example".to_owned(), format!("/v1/tenant-{route}/orders/12345/items/blue")),
        2 => ("other.example".to_owned(), format!("/static/site-{route}/css/main.css")),
        3 => (format!("www.shop-{route}.example"), "/basket".to_owned()),
        _ => (format!("a.wild-{route}.example"), "/about".to_owned()),
    };
    let mut head = RequestHead::new("GET", &target);
    head.fields.append(NameId::Host, host.as_bytes());
    head.fields.append(NameId::UserAgent, b"bench");
    if let Some(name) = sluice_http::FieldName::new("x-beta") {
        head.fields.append(&name, b"1");
    }
    (head, route)
}

/// The document has no `${...}`.
struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}
