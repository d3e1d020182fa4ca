//! `${VAR}`, `${VAR:-default}` and `${file:path}` inside string values; `$${` writes `${`.
//!
//! Promise: the environment and the files come through [`Environment`], so nothing here reads the process; a
//! variable that is not set is a problem that names it; a text from a file is marked as one not to be shown.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::locate;
use super::report::Finding;
use super::source::Source;
use super::tree::{Node, Origin, Secrecy, Value};
use crate::problem::{At, Problem};

/// Where the texts of `${...}` come from.
pub trait Environment {
    /// The value of the environment variable `name`, when it is set.
    fn var(&self, name: &str) -> Option<String>;

    /// The text of a file; a relative path starts at the document's folder.
    ///
    /// # Errors
    /// What the operating system says.
    fn file(&self, path: &str) -> io::Result<String>;
}

/// The process' own environment and files.
#[derive(Clone, Debug)]
pub struct SystemEnvironment {
    /// Where relative paths start: the document's folder.
    pub folder: PathBuf,
}

/// A secret or a certificate is far smaller; a device never ends.
const LARGEST_FILE: u64 = 1 << 20;

impl Environment for SystemEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the environment is read")]
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        let file = std::fs::File::open(self.folder.join(path))?;
        io::Read::read_to_string(&mut io::Read::take(file, LARGEST_FILE + 1), &mut text)?;
        if text.len() as u64 > LARGEST_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1MiB"));
        }
        Ok(text)
    }
}

/// Fills in every `${...}` of a tree; gives what could not be.
pub(crate) fn expand(tree: &mut Node, source: &Source, environment: &dyn Environment) -> Vec<Finding> {
    let mut expander = Expander { source, environment, findings: Vec::new() };
    expander.node(tree, &At::root());
    expander.findings
}

struct Expander<'a> {
    source: &'a Source,
    environment: &'a dyn Environment,
    findings: Vec<Finding>,
}

/// What a `${...}` cannot be filled in for.
struct Refusal {
    message: String,
    hint: String,
}

impl Expander<'_> {
    fn node(&mut self, node: &mut Node, at: &At) {
        match &mut node.value {
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate().filter(|(_, item)| worth(item)) {
                    self.node(item, &at.index(index));
                }
            }
            Value::Table(entries) => {
                for (key, item) in entries.iter_mut().filter(|(_, item)| worth(item)) {
                    self.node(item, &at.key(&key.text));
                }
            }
            Value::String(text) if text.contains("${") => {
                let text = text.clone();
                self.text(node, &text, at);
            }
            _ => {}
        }
    }

    fn text(&mut self, node: &mut Node, text: &str, at: &At) {
        let mut out = String::with_capacity(text.len());
        let mut secrecy = None;
        let mut failed = false;
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Reference(inside, part) => match self.reference(inside) {
                    Ok((value, Secrecy::Secret)) => {
                        out.push_str(&value);
                        secrecy = Some(Secrecy::Secret);
                    }
                    Ok((value, Secrecy::Open)) => {
                        out.push_str(&value);
                        secrecy = secrecy.or(Some(Secrecy::Open));
                    }
                    Err(refusal) => {
                        failed = true;
                        self.refuse(node, at, part, refusal);
                    }
                },
                Piece::Open(part) => {
                    failed = true;
                    let refusal = Refusal {
                        message: "this `${` has no `}`".to_owned(),
                        hint: "write `$${` for the text `${` itself".to_owned(),
                    };
                    self.refuse(node, at, part, refusal);
                }
            }
        }
        let whole = matches!(pieces(text).collect::<Vec<_>>().as_slice(), [Piece::Reference(..)]);
        let origin = match secrecy {
            _ if failed => Origin::Failed,
            None => Origin::Mixed(Secrecy::Open),
            Some(secrecy) if whole => Origin::Whole(secrecy),
            Some(secrecy) => Origin::Mixed(secrecy),
        };
        *node = Node { value: Value::String(out), span: node.span.clone(), origin };
    }

    fn refuse(&mut self, node: &Node, at: &At, part: Range<usize>, refusal: Refusal) {
        let (message, hint) = (refusal.message, Some(refusal.hint));
        let here = Problem { part: Some(part), hint, ..Problem::new(At::root(), message) };
        let span = locate::span(self.source, node, &here);
        self.findings.push(Finding { problem: Problem { at: at.clone(), ..here }, span });
    }

    /// The text of what stands between `${` and `}`.
    fn reference(&self, inside: &str) -> Result<(String, Secrecy), Refusal> {
        if let Some(path) = inside.strip_prefix("file:") {
            let text = self.environment.file(path).map_err(|error| Refusal {
                message: format!("the file `{path}` cannot be read: {error}"),
                hint: "a relative path starts at the document's folder".to_owned(),
            })?;
            let text = text.strip_suffix('\n').map_or(text.as_str(), |text| text.trim_end_matches('\r'));
            return Ok((text.to_owned(), Secrecy::Secret));
        }
        let (name, default) =
            inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !first || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Refusal {
                message: format!("`{name}` is not the name of a variable"),
                hint: "write `$${` for the text `${` itself".to_owned(),
            });
        }
        if default.is_some_and(|default| default.contains("${")) {
            return Err(Refusal {
                message: format!("the default of `{name}` has a `${{` of its own"),
                hint: "a default is plain text".to_owned(),
            });
        }
        // As in a shell, `:-` also stands in for an empty variable.
        let set = self.environment.var(name).filter(|value| default.is_none() || !value.is_empty());
        set.or(default.map(str::to_owned)).map(|value| (value, Secrecy::Open)).ok_or_else(|| Refusal {
            message: format!("the environment variable `{name}` is not set"),
            hint: format!("set it, or give a default: `${{{name}:-...}}`"),
        })
    }
}

/// Whether a value can hold a `${`: spares the paths of all others.
fn worth(node: &Node) -> bool {
    match &node.value {
        Value::String(text) => text.contains("${"),
        Value::Array(_) | Value::Table(_) => true,
        _ => false,
    }
}

enum Piece<'a> {
    Text(&'a str),
    /// What stands between `${` and `}`, and the bytes of the whole.
    Reference(&'a str, Range<usize>),
    /// A `${` without an end.
    Open(Range<usize>),
}

/// Splits a text at its `${...}`.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        let Some(dollar) = rest.find("${") else {
            at = text.len();
            return Some(Piece::Text(rest));
        };
        if rest[..dollar].ends_with('$') {
            // "$${": the first dollar is the text's, the second goes, the brace is text.
            at += dollar + 1;
            return Some(Piece::Text(&rest[..dollar]));
        }
        if dollar > 0 {
            at += dollar;
            return Some(Piece::Text(&rest[..dollar]));
        }
        match rest.find('}') {
            Some(end) => {
                at += end + 1;
                Some(Piece::Reference(&rest[2..end], start..at))
            }
            None => {
                at = text.len();
                Some(Piece::Open(start..start + 2))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_variables_and_files() {
        let system = SystemEnvironment { folder: PathBuf::from(env!("CARGO_MANIFEST_DIR")) };
        // Cargo sets it for every test.
        assert_eq!(system.var("CARGO_MANIFEST_DIR").as_deref(), Some(env!("CARGO_MANIFEST_DIR")));
        assert_eq!(system.var("A_VARIABLE_THAT_NOBODY_SETS"), None);
        assert!(system.file("Cargo.toml").is_ok_and(|text| text.contains("sluice-proxy")));
        assert!(system.file("no/such/file").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_without_end_is_refused() {
        let system = SystemEnvironment { folder: PathBuf::new() };
        assert!(system.file("/dev/zero").is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge));
    }

    #[test]
    fn a_text_splits_at_its_references() {
        let split = |text: &str| -> Vec<String> {
            pieces(text)
                .map(|piece| match piece {
                    Piece::Text(text) => text.to_owned(),
                    Piece::Reference(inside, part) => format!("<{inside}@{}..{}>", part.start, part.end),
                    Piece::Open(part) => format!("!{}..{}", part.start, part.end),
                })
                .collect()
        };
        assert_eq!(split("${A}"), ["<A@0..4>"]);
        assert_eq!(split("a${A}b${B:-x}"), ["a", "<A@1..5>", "b", "<B:-x@6..13>"]);
        assert_eq!(split("a$${A}$").concat(), "a${A}$");
        assert_eq!(split("$1 {b} $").concat(), "$1 {b} $");
        assert_eq!(split("é${A"), ["é", "!2..4"]);
        assert!(split("").is_empty());
    }
}
