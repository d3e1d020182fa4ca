//! Problems as people read them: place, message, the source line with a caret under it, a hint.
//!
//! Promise: the caret stands under the exact characters, behind tabs and wide characters too; nothing from
//! a document reaches the terminal as a control sequence; a line of any length is shown in part.

use std::fmt::Write;

use unicode_width::UnicodeWidthChar;

use super::report::Finding;
use super::secrecy;
use super::source::{Lines, Source};
use crate::problem;

/// How problems are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With ANSI colours, for a terminal.
    Colour,
}

/// What a piece of the text is, to colour it.
#[derive(Clone, Copy)]
enum Ink {
    Place,
    Message,
    Gutter,
    Caret,
    Hint,
}

impl Style {
    fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            _ if self == Style::Plain => return text.to_owned(),
            Ink::Place => "1",
            Ink::Message => "1;31",
            Ink::Gutter => "34",
            Ink::Caret => "31",
            Ink::Hint => "36",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The widest part of a source line that is shown, in columns of a terminal.
const WIDEST: usize = 100;
/// How much of a long line is shown before the caret.
const BEFORE: usize = 40;
const TAB: usize = 4;

/// All findings of a source, a blank line between two.
pub(super) fn report(source: &Source, findings: &[Finding], style: Style) -> String {
    let lines = Lines::of(source);
    let mut out = String::new();
    for (index, finding) in findings.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        finding_text(source, &lines, finding, style, &mut out);
    }
    out
}

fn finding_text(source: &Source, lines: &Lines<'_>, finding: &Finding, style: Style, out: &mut String) {
    let position = lines.position(finding.span.start);
    let place = format!("{}:{}:{}", tame(&source.name), position.line, position.column);
    let (place, message) = (style.paint(Ink::Place, &place), tame(&finding.problem.message));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{place}: {}", style.paint(Ink::Message, &message));

    let range = lines.range(position.line);
    let line = source.slice(&range);
    let shown = finding.problem.excerpt == problem::Excerpt::Shown
        && !secrecy::may_hold_secret(&source.text, position.line);
    if !line.trim().is_empty() && shown {
        let from = source.boundary(finding.span.start).saturating_sub(range.start);
        let to = source.boundary(finding.span.end).saturating_sub(range.start);
        let excerpt = Excerpt::of(line, from, to);
        let number = position.line.to_string();
        let gutter = style.paint(Ink::Gutter, &format!("{number} |"));
        let blank = style.paint(Ink::Gutter, &format!("{:width$} |", "", width = number.len()));
        let _ = writeln!(out, "{gutter} {}", excerpt.text);
        let caret = style.paint(Ink::Caret, &"^".repeat(excerpt.carets));
        let _ = writeln!(out, "{blank} {:indent$}{caret}", "", indent = excerpt.indent);
    }
    if let Some(hint) = &finding.problem.hint {
        let _ = writeln!(out, "{} {}", style.paint(Ink::Hint, "hint:"), tame(hint));
    }
}

/// A source line as it is shown, and where the carets stand under it.
struct Excerpt {
    text: String,
    indent: usize,
    carets: usize,
}

impl Excerpt {
    /// The part of `line` around its bytes `from..to`.
    fn of(line: &str, from: usize, to: usize) -> Excerpt {
        // Of a very long line only what can be shown is looked at.
        let mut near = 0;
        let begin = line[..from.min(line.len())].char_indices().rev().find_map(|(at, c)| {
            near += show(c).1;
            (near > WIDEST).then_some(at)
        });
        let begin = begin.unwrap_or(0);
        let (line, from, to) = (&line[begin..], from.saturating_sub(begin), to.saturating_sub(begin));
        // Every character as shown: what it becomes, and the columns it starts and ends at.
        let mut shown: Vec<(String, usize, usize)> = Vec::new();
        let (mut column, mut first, mut last) = (0, None, 0);
        for (at, c) in line.char_indices() {
            let (text, width) = show(c);
            if at >= from && first.is_none() {
                first = Some(column);
            }
            shown.push((text, column, column + width));
            column += width;
            if at < to {
                last = column;
            }
            if first.is_some_and(|first| column > first + WIDEST) {
                break;
            }
        }
        let first = first.unwrap_or(column);
        let carets = last.max(first + 1) - first;
        let left = if column > WIDEST { first.saturating_sub(BEFORE) } else { 0 };
        let right = left + WIDEST;
        let part = shown.iter().filter(|(_, start, end)| *start >= left && *end <= right);
        let skipped = shown.iter().find(|(_, start, _)| *start >= left).map_or(left, |(_, start, _)| *start);
        let mut text: String = part.map(|(text, ..)| text.as_str()).collect();
        let mut indent = first.saturating_sub(skipped);
        if left > 0 || begin > 0 {
            text.insert(0, '…');
            indent += 1;
        }
        if column > right {
            text.push('…');
        }
        Excerpt {
            text: text.trim_end().to_owned(),
            indent,
            carets: carets.min(right.saturating_sub(first)).max(1),
        }
    }
}

/// A character as it is shown, and the columns it takes.
fn show(c: char) -> (String, usize) {
    match c {
        '\t' => (" ".repeat(TAB), TAB),
        c if is_unsafe(c) => ("\u{fffd}".to_owned(), 1),
        c => (c.to_string(), c.width().unwrap_or(1)),
    }
}

/// A character that could drive the terminal or turn the text around.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of ours that quotes the document, without what drives a terminal.
fn tame(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Format;
    use crate::problem::At;

    fn shown(text: &str, about: &str) -> String {
        let source = Source::new("x", text, Format::Toml);
        let start = text.find(about).expect("part of the text");
        let finding = Finding::new(At::root(), start..start + about.len(), "wrong");
        report(&source, &[finding], Style::Plain)
    }

    #[test]
    fn the_caret_stands_under_the_characters() {
        assert_eq!(shown("a = 1\nbcd = 2\n", "bcd"), "x:2:1: wrong\n2 | bcd = 2\n  | ^^^\n");
        assert_eq!(shown("é = 'x'", "'x'"), "x:1:5: wrong\n1 | é = 'x'\n  |     ^^^\n");
        assert_eq!(shown("\tb = 1", "b"), "x:1:2: wrong\n1 |     b = 1\n  |     ^\n");
        assert_eq!(shown("日本 = 1", "1"), "x:1:6: wrong\n1 | 日本 = 1\n  |        ^\n");
        assert_eq!(shown("b = [\n1]\r\n", "[\n1]"), "x:1:5: wrong\n1 | b = [\n  |     ^\n");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}NEEDLE{}", "a".repeat(500_000), "b".repeat(500_000));
        let shown = shown(&text, "NEEDLE");
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() < 120), "{shown}");
        let caret = lines[2].find('^').expect("a caret");
        let under: String = lines[1].chars().skip(caret).take(6).collect();
        assert_eq!((lines[0], under.as_str()), ("x:1:500001: wrong", "NEEDLE"));
    }

    #[test]
    fn nothing_drives_the_terminal() {
        let source = Source::new("a\x1b[2J", "k = '\x1b[2J\u{202e}'", Format::Toml);
        let finding = Finding::new(At::root(), 0..1, "bad `\x1b[2J`").hint("no \x07");
        let text = report(&source, &[finding], Style::Plain);
        assert!(!text.chars().any(|c| is_unsafe(c) && c != '\n'), "{text:?}");
    }

    #[test]
    fn a_line_with_a_secret_is_not_shown() {
        let source = Source::new("x", "a = 1\nk = 'hash'", Format::Toml);
        let mut finding = Finding::new(At::root(), 10..16, "wrong").hint("right");
        finding.problem.withhold();
        assert_eq!(report(&source, &[finding], Style::Plain), "x:2:5: wrong\nhint: right\n");
    }

    #[test]
    fn colour_changes_no_text() {
        let source = Source::new("x", "b = 1", Format::Toml);
        let findings = [Finding::new(At::root(), 0..1, "wrong").hint("right")];
        let mut colour = report(&source, &findings, Style::Colour);
        assert!(colour.contains("\x1b[1;31mwrong\x1b[0m"));
        while let Some(start) = colour.find('\x1b') {
            let end = colour[start..].find('m').expect("an end") + start;
            colour.replace_range(start..=end, "");
        }
        assert_eq!(colour, report(&source, &findings, Style::Plain));
    }
}
