//! `bench filters`: what each filter adds to a request, in CPU.
//!
//! One gateway with a route without filters and a route for each row of [`ROWS`], loaded in turn in one run: the
//! difference between two routes of the same process is the filter's. To measure another filter, add its row.

use super::compare::{Answered, Options, median};
use super::http::{http_block, origin_server};
use super::processor::used;
use super::servers::{Folder, Plan, Server, Servers, free_port};
use super::wrk::{Drive, drive};
use crate::Failed;

/// A filter as a document has it, and what a request needs to pass it.
struct Row {
    /// Names its route: the path is `/` and the name.
    name: &'static str,
    /// The route's filters.
    filters: &'static str,
    /// A field of each request.
    field: Option<&'static str>,
}

/// Nothing runs out: what is measured is the way of a request that passes.
const ROWS: &[Row] = &[
    Row {
        name: "ip_access",
        filters: "{ ip_access = { allow = ['127.0.0.0/8', '10.0.0.0/8'] } }",
        field: None,
    },
    Row { name: "rate_limit", filters: "{ rate_limit = { rate = '1000000/s' } }", field: None },
    Row {
        name: "rate_limit-told",
        filters: "{ rate_limit = { rate = '1000000/s', headers = 'always' } }",
        field: None,
    },
    Row {
        name: "rate_limit-header",
        filters: "{ rate_limit = { per = \"request.headers['x-tenant']\", rate = '1000000/s' } }",
        field: Some("X-Tenant: shop"),
    },
    Row {
        name: "sliding_window",
        filters: "{ rate_limit = { rate = '1000000/s', algorithm = 'sliding_window' } }",
        field: None,
    },
    Row {
        name: "quota",
        filters: "{ quota = { per = 'client', limit = 1000000000000, period = 'month' } }",
        field: None,
    },
    Row { name: "api_key", filters: "{ api_key = {} }", field: Some("X-API-Key: key") },
    Row {
        name: "basic_auth",
        filters: "{ basic_auth = { users = { anna = '$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e' } } }",
        field: Some("Authorization: Basic YW5uYTpjb3JyZWN0IGhvcnNl"),
    },
    Row {
        name: "jwt-es256",
        filters: concat!(
            "{ jwt = { issuer = 'https://id.example', audience = 'shop', algorithms = ['ES256'], keys = \"",
            "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAqEU3Hf6PEaftv0OdoFwqbT7AW+8\\n",
            "Cw+SViYv0N0mieQpFy0g1SQMayI6eMP/13nlHf0VyAcn7nvtk0/gnJwzmw==\\n-----END PUBLIC KEY-----",
            "\" } }"
        ),
        // It ends in the year 2100; its key is nobody's.
        field: Some(concat!(
            "Authorization: Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.",
            "eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiJhbm5hIiwiYXVkIjoic2hvcCIsImV4cCI6",
            "NDEwMjQ0NDgwMCwic2NvcGUiOiJyZWFkIHdyaXRlIn0.",
            "HQgLyfsKytlLFzndgLA9pFlcC9fW1a1vI32Xz-kTkvsyiKFZKDbFprmBzhPopX8N4tbFZXz3S3fI5TdFRp1pTw"
        )),
    },
    Row {
        name: "cors",
        filters: "{ cors = { origins = ['https://a.example'] } }",
        field: Some("Origin: https://a.example"),
    },
    Row { name: "security_headers", filters: "{ security_headers = {} }", field: None },
    Row { name: "concurrency", filters: "{ concurrency = { limit = 10000 } }", field: None },
    Row { name: "bandwidth", filters: "{ bandwidth = { down = '100GB/s' } }", field: None },
    Row { name: "body_limit", filters: "{ body_limit = { limit = '1MiB' } }", field: None },
    Row {
        name: "headers",
        filters: "{ headers = { request = { set = { x-a = '1' } }, response = { set = { x-b = '2' } } } }",
        field: None,
    },
    Row { name: "rewrite", filters: "{ rewrite = { path = '/b' } }", field: None },
];

/// What filters need besides.
const TABLES: &str = "[consumers.anna]\napi_keys = ['sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683']\n";

/// Connections of the load, when nobody says how many.
const CONNECTIONS: usize = 64;

/// The route without filters.
const PLAIN: &Row = &Row { name: "plain", filters: "", field: None };

pub(super) fn run(options: &Options) -> Result<(), Failed> {
    let wanted = |row: &&Row| options.only.as_deref().is_none_or(|only| only == row.name);
    let rows: Vec<&Row> = ROWS.iter().filter(wanted).collect();
    if rows.is_empty() {
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("--only takes one of: {}", names.join(", ")));
    }
    let servers = start(&rows)?;
    let [gateway] = &servers.proxies[..] else { return Err("there is no gateway to measure".into()) };
    let mut added: Vec<Vec<f64>> = rows.iter().map(|_| Vec::new()).collect();
    let mut bare = Vec::new();
    for round in 0..=options.rounds {
        for (row, added) in rows.iter().zip(&mut added) {
            // Round 0 warms up. Each row has its own measure of the route without filters, just before it and with
            // the same request: what is passed on costs something without a filter, too.
            let seconds = if round == 0 { 1 } else { options.seconds };
            let plain = &Row { field: row.field, ..*PLAIN };
            let [without, with] =
                [cost(gateway, plain, options, seconds)?, cost(gateway, row, options, seconds)?];
            if round > 0 {
                bare.push(without);
                added.push(with - without);
            }
        }
    }
    print(options, &rows, (&bare, &added));
    Ok(())
}

/// CPU microseconds of a request to a row's route.
fn cost(gateway: &Server, row: &Row, options: &Options, seconds: usize) -> Result<f64, Failed> {
    let url = format!("http://127.0.0.1:{}/{}", gateway.port, row.name);
    let before = used(gateway.id());
    let how = Drive { url: &url, connections: connections(options), seconds, close: false, field: row.field };
    let Answered { count, errors, .. } = drive(how)?;
    match errors > 0.0 {
        true => Err(format!("{}: {errors} of {count} requests were not let through", row.name)),
        false => Ok((used(gateway.id()) - before).per(count).total()),
    }
}

fn connections(options: &Options) -> usize {
    options.connections.unwrap_or(CONNECTIONS)
}

fn print(options: &Options, rows: &[&Row], (plain, added): (&[f64], &[Vec<f64>])) {
    let Options { seconds, rounds, .. } = options;
    let connections = connections(options);
    println!("\nfilters: CPU that a filter adds to a keep-alive GET with 100 B answers");
    println!("{connections} connections, medians of {rounds} rounds of {seconds} s, one worker on core 0");
    println!("  without filters: {:.2} CPU us/request", median(plain.iter().copied()));
    println!("  {:<20} {:>14} {:>10} {:>10}", "filter", "added us", "least", "most");
    for (row, added) in rows.iter().zip(added) {
        let least = added.iter().copied().fold(f64::INFINITY, f64::min);
        let most = added.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        println!("  {:<20} {:>14.2} {least:>10.2} {most:>10.2}", row.name, median(added.iter().copied()));
    }
}

fn start(rows: &[&Row]) -> Result<Servers, Failed> {
    let folder = Folder::new()?;
    let (origin, gateway) = (free_port()?, free_port()?);
    // It gives the same answer for every path.
    let server = origin_server(origin, &folder).replace("location = / {", "location / {");
    let plan = Plan::nginx("origin", (1, origin), &folder, &http_block("origin", &folder, &server))?;
    let route = |row: &&Row| {
        let Row { name, filters, .. } = row;
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nfilters = [{filters}]\n\
             forward = {{ upstream = \"origin\" }}\n\n"
        )
    };
    let routes: String = std::iter::once(&PLAIN).chain(rows).map(route).collect();
    let document = format!(
        "[process]\nworkers = 1\nstate = \"{}\"\n\n[listeners.web]\naddress = \"127.0.0.1:{gateway}\"\n\n{routes}\
         [upstreams.origin]\nendpoints = [\"127.0.0.1:{origin}\"]\npool = {{ max_idle = 512 }}\n\n{TABLES}",
        folder.file("state")
    );
    let plans = vec![Plan::sluice(gateway, &folder, &document)?];
    Servers::start(folder, &plan, (plans, None), |_| Ok(()))
}
