//! The text that Prometheus reads: its text format 0.0.4, and OpenMetrics 1.0.
//!
//! Promise: whatever the callers do, the samples of a family stand together under one HELP and one TYPE,
//! and every label value is escaped.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::histogram::Merged;

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format an Accept field asks for: OpenMetrics when it is named with a quality above zero that is
    /// not below that of `text/plain`, else text.
    pub fn accepted(accept: Option<&str>) -> Format {
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for range in accept.unwrap_or("").split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or("");
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let quality: f32 = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            if media.eq_ignore_ascii_case("application/openmetrics-text") {
                open = quality.max(open);
            } else if media.eq_ignore_ascii_case("text/plain") {
                text = quality.max(text);
            }
        }
        if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text }
    }

    /// The Content-Type of an answer in this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; the family's name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count: printed exactly, however large.
    Count(u64),
    /// Any number.
    Number(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Count(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Value::Number(value)
    }
}

/// A label's name and value.
pub type Label<'a> = (&'static str, &'a str);

/// Families under construction.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    families: Vec<String>,
    /// By name: a second collector that gives the same family adds to the first one's samples.
    positions: HashMap<&'static str, usize>,
}

/// One family, to which samples are added.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'static str,
    format: Format,
    out: &'a mut String,
}

impl Exposition {
    /// No families yet.
    pub fn new(format: Format) -> Exposition {
        Exposition { format, families: Vec::new(), positions: HashMap::new() }
    }

    /// Starts a family, or goes on with it. The name of a counter ends in `_total`, that of a gauge or
    /// histogram in its unit; `help` is one sentence without full stop.
    pub fn family(&mut self, name: &'static str, help: &str, kind: Kind) -> Family<'_> {
        debug_assert!(is_name(name), "{name}");
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let format = self.format;
        let families = &mut self.families;
        let position = *self.positions.entry(name).or_insert_with(|| {
            families.push(head(name, help, kind, format));
            families.len() - 1
        });
        Family { name, format, out: &mut self.families[position] }
    }

    /// The finished text.
    pub fn finish(self) -> String {
        let mut text = self.families.concat();
        if self.format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl Into<Value>) {
        self.line("", labels, None, value.into());
    }

    /// Adds the samples of a histogram.
    pub fn histogram(&mut self, labels: &[Label<'_>], merged: &Merged) {
        for (bound, count) in merged.cumulative() {
            self.line("_bucket", labels, Some(bound), Value::Count(count));
        }
        self.line("_sum", labels, None, Value::Number(merged.seconds()));
        self.line("_count", labels, None, Value::Count(merged.count()));
    }

    fn line(&mut self, suffix: &str, labels: &[Label<'_>], bound: Option<f64>, value: Value) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut before = '{';
        for (name, text) in labels {
            debug_assert!(is_name(name) && *name != "le", "{name}");
            self.out.push(before);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(text, true, self.out);
            self.out.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            self.out.push(before);
            self.out.push_str("le=\"");
            // OpenMetrics wants its canonical numbers here: "1.0", not "1".
            let whole = self.format == Format::OpenMetrics && bound.fract() == 0.0;
            number(bound, self.out);
            self.out.push_str(if whole { ".0\"" } else { "\"" });
            before = ',';
        }
        self.out.push_str(if before == ',' { "} " } else { " " });
        match value {
            Value::Count(count) => _ = write!(self.out, "{count}"),
            Value::Number(value) => number(value, self.out),
        }
        self.out.push('\n');
    }
}

fn head(name: &str, help: &str, kind: Kind, format: Format) -> String {
    // OpenMetrics names the family without the suffix of its samples.
    let name = match format {
        Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        Format::Text => name,
    };
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let mut out = format!("# HELP {name} ");
    escape(help, format == Format::OpenMetrics, &mut out);
    _ = write!(out, "\n# TYPE {name} {kind}\n");
    out
}

fn escape(text: &str, quotes: bool, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

fn number(value: f64, out: &mut String) {
    if value == f64::INFINITY {
        out.push_str("+Inf");
    } else if value == f64::NEG_INFINITY {
        out.push_str("-Inf");
    } else {
        _ = write!(out, "{value}");
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::metrics::histogram::Histogram;

    #[test]
    fn label_values_and_help_are_escaped() {
        let mut out = Exposition::new(Format::Text);
        let mut family = out.family("x_bytes", "a \\ \"b\"\nc", Kind::Gauge);
        family.sample(&[("path", "a\\b\"c\nd"), ("e", "")], 1.5);
        assert_eq!(
            out.finish(),
            "# HELP x_bytes a \\\\ \"b\"\\nc\n# TYPE x_bytes gauge\nx_bytes{path=\"a\\\\b\\\"c\\nd\",e=\"\"} 1.5\n"
        );
    }

    #[test]
    fn families_stay_together_whoever_adds_to_them() {
        let mut out = Exposition::new(Format::Text);
        out.family("a", "first", Kind::Gauge).sample(&[("x", "1")], 1_u64);
        out.family("b_total", "second", Kind::Counter).sample(&[], u64::MAX);
        out.family("a", "first", Kind::Gauge).sample(&[("x", "2")], f64::NEG_INFINITY);
        assert_eq!(
            out.finish(),
            "# HELP a first\n# TYPE a gauge\na{x=\"1\"} 1\na{x=\"2\"} -Inf\n\
             # HELP b_total second\n# TYPE b_total counter\nb_total 18446744073709551615\n"
        );
    }

    #[test]
    fn openmetrics_names_counters_without_total_and_ends_with_eof() {
        let mut out = Exposition::new(Format::OpenMetrics);
        out.family("b_total", "say \"b\"", Kind::Counter).sample(&[], 2_u64);
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(1));
        let mut merged = Merged::default();
        merged.add(&histogram);
        out.family("c_seconds", "third", Kind::Histogram).histogram(&[("r", "x")], &merged);
        let text = out.finish();
        assert!(text.starts_with("# HELP b say \\\"b\\\"\n# TYPE b counter\nb_total 2\n"), "{text}");
        assert!(text.contains("c_seconds_bucket{r=\"x\",le=\"1.0\"} 1\n"), "{text}");
        assert!(text.contains("c_seconds_bucket{r=\"x\",le=\"0.0005\"} 0\n"), "{text}");
        assert!(text.contains("c_seconds_bucket{r=\"x\",le=\"+Inf\"} 1\n"), "{text}");
        assert!(
            text.ends_with("c_seconds_sum{r=\"x\"} 0.001\nc_seconds_count{r=\"x\"} 1\n# EOF\n"),
            "{text}"
        );
    }

    #[test]
    fn the_accept_field_chooses_the_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, format) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("text/plain, application/openmetrics-text; q=0.1"), Format::Text),
            (Some("application/openmetrics-text; q=0"), Format::Text),
            (Some("application/openmetrics-text; q=x"), Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }
}
