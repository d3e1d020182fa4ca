//! The text of a document, its language, and where a byte of it stands.
//!
//! Promise: a position is a line and a column as an editor counts them (from 1, columns in characters);
//! bytes that are not text become a problem with a place, never a panic.

use std::cell::Cell;
use std::ops::Range;
use std::path::Path;

use super::report::{Finding, Report};
use crate::problem::At;

/// The languages a document may be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.1, the first language.
    Toml,
    /// YAML 1.2, core schema, without tags.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// The language that a file's extension names; `None` when it names none of ours.
    pub fn of_path(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "toml" => Some(Format::Toml),
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// A document's text under the name it is shown by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file name as shown in problems.
    pub name: String,
    /// The text, without a byte order mark.
    pub text: String,
    /// Its language.
    pub format: Format,
}

/// A place in a text, both from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Source {
    /// A source from text; a leading byte order mark is dropped.
    pub fn new(name: impl Into<String>, text: impl Into<String>, format: Format) -> Source {
        let mut text = text.into();
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        Source { name: name.into(), text, format }
    }

    /// A source from a file's bytes.
    ///
    /// # Errors
    /// A report of one problem, at the first byte that is not UTF-8.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>, format: Format) -> Result<Source, Report> {
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => return Ok(Source::new(name, text, format)),
            Err(error) => error.into_bytes(),
        };
        // Only this path pays for finding the place again.
        let valid = bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len());
        let byte = bytes.get(valid).copied().unwrap_or_default();
        let source = Source { name: name.into(), text: String::from_utf8_lossy(&bytes).into_owned(), format };
        let finding =
            Finding::new(At::root(), valid..valid, format!("this is not UTF-8 text: the byte 0x{byte:02x}"))
                .hint("save the file as UTF-8");
        Err(Report::new(source, vec![finding]))
    }

    /// The text of a range; empty when the range is not one of this text.
    pub(crate) fn slice(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The nearest character boundary at or before `offset`.
    pub(crate) fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset.min(self.text.len()))
    }
}

/// Where the lines of a text begin, to find the position of a byte fast.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// A byte and its column, already counted: the next place asked for is mostly further on in its line.
    counted: Cell<(usize, usize)>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(source: &'a Source) -> Lines<'a> {
        let text = source.text.as_str();
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1));
        Lines { text, starts: starts.collect(), counted: Cell::new((0, 1)) }
    }

    /// The position of a byte; past the end counts as the end.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let (from, column) = match self.counted.get() {
            counted if (start..=offset).contains(&counted.0) => counted,
            _ => (start, 1),
        };
        let column = column + self.text[from..offset].chars().count();
        self.counted.set((offset, column));
        Position { line, column }
    }

    /// The byte range of a line (from 1) without its line ending.
    pub(crate) fn range(&self, line: usize) -> Range<usize> {
        let start = self.starts.get(line - 1).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        let content = self.text[start..end].trim_end_matches(['\n', '\r']);
        start..start + content.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_its_language() {
        for (path, format) in [
            ("sluice.toml", Some(Format::Toml)),
            ("a/b.YAML", Some(Format::Yaml)),
            ("b.yml", Some(Format::Yaml)),
            ("c.json", Some(Format::Json)),
            ("c.conf", None),
            ("toml", None),
        ] {
            assert_eq!(Format::of_path(Path::new(path)), format, "{path}");
        }
    }

    #[test]
    fn positions_count_characters_and_lines() {
        let source = Source::new("x", "aé\r\n🦀b\n", Format::Toml);
        let lines = Lines::of(&source);
        for (offset, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 1, 2), (3, 1, 3), (5, 2, 1), (9, 2, 2), (11, 3, 1), (99, 3, 1)]
        {
            assert_eq!(lines.position(offset), Position { line, column }, "byte {offset}");
        }
        assert_eq!(source.slice(&lines.range(1)), "aé");
        assert_eq!(source.slice(&lines.range(2)), "🦀b");
        assert_eq!(source.slice(&lines.range(3)), "");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(Source::new("x", "\u{feff}a = 1", Format::Toml).text, "a = 1");
    }

    #[test]
    fn bytes_that_are_not_text_have_a_place() {
        let report = Source::from_bytes("x.toml", b"a = 1\nb = \"\xff\"\n".to_vec(), Format::Toml);
        let json = report.err().map(|report| report.to_json());
        let json = json.expect("refused");
        assert_eq!((json[0]["line"].as_u64(), json[0]["column"].as_u64()), (Some(2), Some(6)));
    }
}
