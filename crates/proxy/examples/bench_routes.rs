//! `cargo xtask bench routes`: what a lookup costs with 10, 1,000 and 100,000 routes, and what it costs to load
//! that many from a TOML text.
//!
//! Two kinds of traffic. "In use": a thousand routes of the table are asked for, in random order, as a busy site
//! has a part that is busy. "All": every lookup is of another route, so that a large table is never in the
//! cache: the worst there is, and shown without a bar, since it measures the machine's memory. The request
//! itself is in the cache, as it is after its head was parsed.
//!
//! Promise: each lookup is checked to find its route. Ends with 1 when a bar is missed. `--print N` prints the
//! document of N routes instead, for `sluice check`.
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
/// Routes that are asked for again and again.
const IN_USE: usize = 1_000;
/// The median of this many measurements counts.
const ROUNDS: usize = 9;
/// Lookups between two looks at the clock. Before them their requests are read once, which takes them into the
/// cache.
const BATCH: usize = 16;
const LOOKUPS: usize = 100_000;
/// Of routes, see [`document`].
const KINDS: usize = 5;

/// What one table costs.
struct Measured {
    read: Duration,
    check: Duration,
    in_use: f64,
    all: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["--print", count] if count.parse::<usize>().is_ok() => {
            print!("{}", document(count.parse().unwrap_or(0)));
            ExitCode::SUCCESS
        }
        _ => {
            println!("bench_routes [--print N]");
            ExitCode::from(2)
        }
    }
}

fn compare() -> ExitCode {
    let measured = COUNTS.map(measure);
    println!("            ns a lookup                                    load, ms");
    println!("  routes      in use   to 10         all   to 10         read    check      sum");
    let least = &measured[0];
    for (count, one) in COUNTS.iter().zip(&measured) {
        println!(
            "{count:>8}    {:>8.0}  {:>5.2} x  {:>8.0}  {:>5.2} x     {:>8.1} {:>8.1} {:>8.1}",
            one.in_use,
            one.in_use / least.in_use,
            one.all,
            one.all / least.all,
            millis(one.read),
            millis(one.check),
            millis(one.read + one.check),
        );
    }
    println!("\nread: text -> document; check: document -> model, with its table.\n");
    let most = &measured[COUNTS.len() - 1];
    let (ratio, load) = (most.in_use / least.in_use, most.read + most.check);
    let bars = [
        (most.in_use <= MOST_NANOS, format!("a lookup in use: {:.0} ns, at most {MOST_NANOS}", most.in_use)),
        (ratio <= MOST_RATIO, format!("in use, that with 10 routes times {ratio:.2}, at most {MOST_RATIO}")),
        (load <= LONGEST_LOAD, format!("a load: {:.2} s, at most {LONGEST_LOAD:?}", load.as_secs_f64())),
    ];
    println!("With {} routes:", COUNTS[COUNTS.len() - 1]);
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
    // All over the table, and every kind alike.
    let busy = count.min(IN_USE);
    let spread = |route: usize| route / KINDS * KINDS * (count / busy) + route % KINDS;
    let in_use = lookup(&model, shuffled(busy).map(spread));
    let all = lookup(&model, shuffled(count));
    Measured { read: fastest(reads), check: fastest(checks), in_use, all }
}

/// The least disturbed of some loads.
fn fastest(all: Vec<Duration>) -> Duration {
    all.into_iter().min().unwrap_or_default()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Nanoseconds per lookup.
fn lookup(model: &Model, routes: impl Iterator<Item = usize>) -> f64 {
    let requests: Vec<(RequestHead, usize)> = routes.map(request).collect();
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
        tls: None,
        request_id: "",
        route: "",
        params,
        identity: Default::default(),
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
        let matches = match route % KINDS {
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
    let (host, target) = match route % KINDS {
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
