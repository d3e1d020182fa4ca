//! Messages to the operator: one line each, for people or for machines.
//!
//! Promise: a line is written whole, with one write, and whatever stands in a message or value cannot start
//! a second line or send control codes to a terminal. For events of the gateway, not of exchanges: those have
//! the access log, which never waits. Writing here waits for the sink.

use std::fmt::{self, Display, Write as _};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::timestamp::{Style, Timestamp};

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a defect.
    Debug,
    /// Something happened that was meant to.
    Info,
    /// Something is not as it should be; the gateway goes on.
    Warn,
    /// Something failed that somebody asked for.
    Error,
}

impl Level {
    /// "debug", "info", "warn" or "error".
    pub const fn text(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `2026-01-31T23:59:59.042Z warn message key=value other="two words"`.
    #[default]
    Text,
    /// One JSON object: `time`, `level`, `message`, and the fields.
    Json,
}

/// A field of a message: its name, and anything that can be printed.
pub type Field<'a> = (&'a str, &'a dyn Display);

/// Where messages go. Cheap to clone.
#[derive(Clone)]
pub struct Diagnostics(Arc<Inner>);

struct Inner {
    layout: Layout,
    least: Level,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
    sink: Mutex<Sink>,
}

struct Sink {
    timestamp: Timestamp,
    line: Vec<u8>,
    out: Box<dyn Write + Send>,
}

impl Diagnostics {
    /// Messages of at least the level `least`, written to `out`, dated by `clock`.
    pub fn new(
        layout: Layout,
        least: Level,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
        out: impl Write + Send + 'static,
    ) -> Diagnostics {
        let sink = Sink { timestamp: Timestamp::new(Style::Rfc3339), line: Vec::new(), out: Box::new(out) };
        Diagnostics(Arc::new(Inner { layout, least, clock: Box::new(clock), sink: Mutex::new(sink) }))
    }

    /// Messages of at least the level `least`, written to standard error.
    pub fn stderr(
        layout: Layout,
        least: Level,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Diagnostics {
        Diagnostics::new(layout, least, clock, std::io::stderr())
    }

    /// No messages.
    pub fn silent() -> Diagnostics {
        Diagnostics::new(Layout::Text, Level::Error, || SystemTime::UNIX_EPOCH, std::io::sink())
    }

    /// A message of level debug.
    pub fn debug(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Debug, message, fields);
    }

    /// A message of level info.
    pub fn info(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Info, message, fields);
    }

    /// A message of level warn.
    pub fn warn(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Warn, message, fields);
    }

    /// A message of level error.
    pub fn error(&self, message: &str, fields: &[Field<'_>]) {
        self.write(Level::Error, message, fields);
    }

    /// A message of any level. A sink that fails is not reported: there is nowhere left to report it to.
    pub fn write(&self, level: Level, message: &str, fields: &[Field<'_>]) {
        if level < self.0.least {
            return;
        }
        let text = match self.0.layout {
            Layout::Text => text_line(level, message, fields),
            Layout::Json => json_line(level, message, fields),
        };
        let mut sink = self.0.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let Sink { timestamp, line, out } = &mut *sink;
        line.clear();
        if self.0.layout == Layout::Json {
            line.extend_from_slice(b"{\"time\":\"");
        }
        // Read under the lock, so that lines stand in the order of their times.
        timestamp.write((self.0.clock)(), line);
        line.extend_from_slice(text.as_bytes());
        _ = out.write_all(line).and_then(|()| out.flush());
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diagnostics").field("least", &self.0.least).finish_non_exhaustive()
    }
}

/// What follows the time.
fn text_line(level: Level, message: &str, fields: &[Field<'_>]) -> String {
    let mut line = format!(" {:<5} ", level.text());
    escape_text(message, &mut line);
    for (name, value) in fields {
        let value = value.to_string();
        line.push(' ');
        escape_text(name, &mut line);
        line.push('=');
        let bare = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
        if bare {
            escape_text(&value, &mut line);
        } else {
            line.push('"');
            escape_text(&value.replace('\\', "\\\\").replace('"', "\\\""), &mut line);
            line.push('"');
        }
    }
    line.push('\n');
    line
}

/// Control characters, those of Unicode included, become `\u{..}`.
fn escape_text(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_control() || is_bidi(control) => {
                _ = write!(out, "\\u{{{:x}}}", u32::from(control));
            }
            other => out.push(other),
        }
    }
}

/// Characters that reorder what a terminal shows, and the two line separators.
fn is_bidi(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// What follows the time, which stands behind `{"time":"`.
fn json_line(level: Level, message: &str, fields: &[Field<'_>]) -> String {
    let mut line = format!("\",\"level\":\"{}\",\"message\":", level.text());
    json_string(message, &mut line);
    for (name, value) in fields {
        line.push(',');
        json_string(name, &mut line);
        line.push(':');
        json_string(&value.to_string(), &mut line);
    }
    line.push_str("}\n");
    line
}

fn json_string(text: &str, out: &mut String) {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    super::access_log::escape::json(text.as_bytes(), &mut bytes);
    out.push('"');
    out.push_str(&String::from_utf8_lossy(&bytes));
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn take(&self) -> Vec<String> {
            self.0.lock().unwrap().drain(..).map(|line| String::from_utf8(line).unwrap()).collect()
        }
    }

    fn diagnostics(layout: Layout, least: Level) -> (Diagnostics, Lines) {
        let lines = Lines::default();
        let clock = || SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        (Diagnostics::new(layout, least, clock, lines.clone()), lines)
    }

    #[test]
    fn a_text_line_is_one_write_and_quotes_what_needs_it() {
        let (log, lines) = diagnostics(Layout::Text, Level::Info);
        log.warn(
            "endpoint is down",
            &[("endpoint", &"a:1"), ("after", &3), ("why", &"no \"route\""), ("x", &"")],
        );
        assert_eq!(
            lines.take(),
            [
                "1970-01-01T00:00:01.500Z warn  endpoint is down endpoint=a:1 after=3 why=\"no \\\"route\\\"\" x=\"\"\n"
            ]
        );
    }

    #[test]
    fn nothing_in_a_message_can_start_a_line_or_reach_the_terminal() {
        let (log, lines) = diagnostics(Layout::Text, Level::Info);
        log.error("a\nb", &[("k", &"\u{1b}[31m\r\u{9b}\u{202e}x")]);
        let line = lines.take().concat();
        assert_eq!(line, "1970-01-01T00:00:01.500Z error a\\nb k=\\u{1b}[31m\\r\\u{9b}\\u{202e}x\n");
        let (log, lines) = diagnostics(Layout::Json, Level::Info);
        log.error("a\nb", &[("k", &"\u{1b}\u{9b}\"")]);
        let line = lines.take().concat();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
    }

    #[test]
    fn a_json_line_is_an_object_of_strings() {
        let (log, lines) = diagnostics(Layout::Json, Level::Debug);
        log.debug("started", &[("workers", &2)]);
        let line: serde_json::Value = serde_json::from_str(&lines.take().concat()).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "time": "1970-01-01T00:00:01.500Z", "level": "debug", "message": "started", "workers": "2"
            })
        );
    }

    #[test]
    fn messages_below_the_least_level_are_not_written() {
        let (log, lines) = diagnostics(Layout::Text, Level::Warn);
        log.info("a", &[]);
        log.debug("b", &[]);
        assert!(lines.take().is_empty());
        log.error("c", &[]);
        assert_eq!(lines.take().len(), 1);
    }
}
