//! `sluice status`: what a running gateway is doing, as tables for people or as JSON for programs.

use std::fmt::Write as _;

use serde_json::Value;

use crate::admin;
use crate::cli::{Exit, ReportFormat, StatusArgs, say};

/// Between two columns.
const GAP: usize = 2;

/// Asks the admin endpoint and shows what it says.
pub(crate) fn status(args: &StatusArgs) -> Exit {
    let answer = match admin::ask(&args.admin, "GET /v1/status") {
        Ok(answer) => answer,
        Err(exit) => return exit,
    };
    match (answer.status, serde_json::from_str::<Value>(&answer.body), args.format) {
        (200, Ok(status), ReportFormat::Text) => say(text(&status).trim_end()),
        (200, Ok(status), ReportFormat::Json) => say(&format!("{status:#}")),
        _ => answer.complain(),
    }
}

/// The tables. What there is none of is not shown.
fn text(status: &Value) -> String {
    let mut out = format!(
        "sluice {}: revision {}, process {}, up {}{}\n",
        cell(&status["version"]),
        cell(&status["revision"]),
        cell(&status["process_id"]),
        duration(status["uptime_seconds"].as_u64().unwrap_or_default()),
        if status["draining"] == true { ", draining" } else { "" },
    );
    let listeners = rows(status, "listeners", &["name", "address", "protocol", "connections"]);
    table(&mut out, ["LISTENER", "ADDRESS", "PROTOCOL", "CONNECTIONS"], &listeners);
    let endpoints = endpoints(status);
    table(&mut out, ["UPSTREAM", "ENDPOINT", "STATE", "IN FLIGHT", "BREAKER"], &endpoints);
    let breakers = rows(status, "breakers", &["of", "name", "state"]);
    table(&mut out, ["BREAKER OF", "NAME", "STATE"], &breakers);
    let limits = rows(status, "limits", &["name", "limit", "running", "waiting", "refused"]);
    table(&mut out, ["LIMIT", "PLACES", "RUNNING", "WAITING", "REFUSED"], &limits);
    let tunnels = rows(status, "tunnels", &["route", "domain", "open", "idle", "waiting", "dark"]);
    table(&mut out, ["TUNNELS OF", "DOMAIN", "OPEN", "IDLE", "WAITING", "DARK"], &tunnels);
    out
}

/// The cells of a list of objects.
fn rows<const N: usize>(status: &Value, list: &str, keys: &[&str; N]) -> Vec<[String; N]> {
    let objects = status[list].as_array().map(Vec::as_slice).unwrap_or_default();
    objects.iter().map(|object| keys.map(|key| cell(&object[key]))).collect()
}

fn endpoints(status: &Value) -> Vec<[String; 5]> {
    let upstreams = status["upstreams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |upstream: &Value| {
        let name = cell(&upstream["name"]);
        rows(upstream, "endpoints", &["address", "state", "in_flight", "breaker"]).into_iter().map(
            move |[address, state, in_flight, breaker]| [name.clone(), address, state, in_flight, breaker],
        )
    };
    upstreams.iter().flat_map(of).collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Columns as wide as their widest cell, under their heads; nothing for no rows.
fn table<const N: usize>(out: &mut String, heads: [&str; N], rows: &[[String; N]]) {
    if rows.is_empty() {
        return;
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut line = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}", width = width + GAP);
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line([""; N]);
    line(heads);
    rows.iter().for_each(|row| line(row.each_ref().map(String::as_str)));
}

/// The two largest units: "3 d 4 h".
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(length, _)| seconds >= *length).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (length, unit) in &units[first..units.len().min(first + 2)] {
        parts.push(format!("{} {unit}", rest / length));
        rest %= length;
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_have_two_units_at_most() {
        let shown = [0, 59, 60, 3_725, 90_000, 1_000_000].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "1 h 2 min", "1 d 1 h", "11 d 13 h"]);
    }

    #[test]
    fn tables_are_aligned_and_empty_ones_are_not_there() {
        let status = json!({
            "version": "1", "revision": 2, "process_id": 3, "uptime_seconds": 4, "draining": true,
            "listeners": [{ "name": "web", "address": "127.0.0.1:80", "protocol": "http", "connections": 0 }],
            "upstreams": [{ "name": "app", "endpoints": [
                { "address": "a:1", "state": "available", "in_flight": 1, "breaker": "closed" },
                { "address": "bb:22", "state": "unhealthy", "in_flight": 0, "breaker": "half-open" },
            ] }],
            "breakers": [], "limits": [],
        });
        let expected = "\
sluice 1: revision 2, process 3, up 4 s, draining

LISTENER  ADDRESS       PROTOCOL  CONNECTIONS
web       127.0.0.1:80  http      0

UPSTREAM  ENDPOINT  STATE      IN FLIGHT  BREAKER
app       a:1       available  1          closed
app       bb:22     unhealthy  0          half-open
";
        assert_eq!(text(&status), expected);
    }
}
