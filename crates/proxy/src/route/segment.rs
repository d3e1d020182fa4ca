//! One segment of a path template: the grammar between two slashes.
//!
//! ```text
//! segment   = literal | [literal] "{" name [":" ("int" | "uuid" | word 1*("|" word))] "}" [literal]
//! tail      = "{*" name "}"                  ; the whole last segment
//! literal   = text with "{{" and "}}" for braces, percent-encoded or not
//! ```

use std::sync::Arc;

use super::{Complaint, decode};

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text.
    Literal(Box<str>),
    /// One of some texts.
    Enum {
        name: Arc<str>,
        /// The whole segments that match, sorted: the words with the text around them.
        texts: Vec<Box<str>>,
        /// Bytes before and after the word.
        around: (usize, usize),
    },
    /// Any text of a form.
    Capture { name: Arc<str>, shape: Shape },
    /// The rest of the path.
    Tail { name: Arc<str> },
}

/// What a captured segment looks like. Two parameters with the same shape differ in name only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) before: Box<str>,
    pub(super) after: Box<str>,
    pub(super) kind: Kind,
}

/// The form of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An optional minus and 1 to 19 digits.
    Int,
    /// 8-4-4-4-12 hex digits (RFC 9562 section 4).
    Uuid,
    /// Anything but nothing.
    Any,
}

impl Kind {
    fn named(text: &str) -> Option<Kind> {
        match text {
            "int" => Some(Kind::Int),
            "uuid" => Some(Kind::Uuid),
            _ => None,
        }
    }

    fn matches(self, text: &str) -> bool {
        match self {
            Kind::Any => !text.is_empty(),
            Kind::Int => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                (1..=19).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
            }
            Kind::Uuid => {
                text.len() == 36
                    && text.bytes().enumerate().all(|(at, byte)| match at {
                        8 | 13 | 18 | 23 => byte == b'-',
                        _ => byte.is_ascii_hexdigit(),
                    })
            }
        }
    }
}

impl Shape {
    /// The parameter's value, when this segment has the shape.
    pub(super) fn value<'a>(&self, segment: &'a str) -> Option<&'a str> {
        // Empty texts are not compared: see `starts_with`.
        let value = match (&*self.before, &*self.after) {
            ("", "") => segment,
            (before, "") => segment.strip_prefix(before)?,
            ("", after) => segment.strip_suffix(after)?,
            (before, after) => segment.strip_prefix(before)?.strip_suffix(after)?,
        };
        self.kind.matches(value).then_some(value)
    }

    /// Whether some segment may have both shapes.
    pub(super) fn overlaps(&self, other: &Shape) -> bool {
        let kinds = self.kind == other.kind || self.kind == Kind::Any || other.kind == Kind::Any;
        kinds
            && (self.before.starts_with(&*other.before) || other.before.starts_with(&*self.before))
            && (self.after.ends_with(&*other.after) || other.after.ends_with(&*self.after))
    }
}

impl Segment {
    /// Parses the segment that starts at byte `start` of the template.
    pub(super) fn parse(text: &str, start: usize) -> Result<Segment, Complaint> {
        let at = |from: usize, to: usize| start + from..start + to;
        let (before, open) = literal(text, 0, start)?;
        let Some(open) = open else { return Ok(Segment::Literal(plain(&before, at(0, text.len()))?)) };
        let close = open
            + text[open..].find('}').ok_or_else(|| {
                Complaint::new("this brace is not closed", "write {{ for a brace that is meant literally")
                    .part(at(open, text.len()))
            })?;
        let (after, second) = literal(text, close + 1, start)?;
        if let Some(second) = second {
            let complaint = Complaint::new(
                "a segment holds one parameter",
                "put a slash between the two, or match the segment with path_regex",
            );
            return Err(complaint.part(at(second, text.len())));
        }
        let (before, after) = (plain(&before, at(0, open))?, plain(&after, at(close + 1, text.len()))?);
        parameter(&text[open + 1..close], before, after)
            .map_err(|complaint| complaint.part(at(open, close + 1)))
    }

    /// Its parameter's name.
    pub(super) fn name(&self) -> Option<&Arc<str>> {
        match self {
            Segment::Literal(_) => None,
            Segment::Enum { name, .. } | Segment::Capture { name, .. } | Segment::Tail { name } => Some(name),
        }
    }

    /// Whether this segment of a path matches. Not for a tail, which is more than a segment.
    pub(super) fn matches(&self, segment: &str) -> bool {
        match self {
            Segment::Literal(text) => **text == *segment,
            Segment::Enum { texts, .. } => texts.binary_search_by(|text| (**text).cmp(segment)).is_ok(),
            Segment::Capture { shape, .. } => shape.value(segment).is_some(),
            Segment::Tail { .. } => false,
        }
    }

    /// Its parameter's name and value, given the segment of a path that matches, and all that follows with it.
    pub(super) fn parameter<'a>(&self, segment: &'a str, rest: &'a str) -> Option<(&Arc<str>, &'a str)> {
        match self {
            Segment::Literal(_) => None,
            Segment::Enum { name, around: (before, after), .. } => {
                Some((name, segment.get(*before..segment.len().checked_sub(*after)?)?))
            }
            Segment::Capture { name, shape } => Some((name, shape.value(segment)?)),
            Segment::Tail { name } => Some((name, rest)),
        }
    }

    /// How specific it is; less comes first. Segments that are equal by this are equally specific.
    pub(super) fn order(&self) -> u32 {
        match self {
            Segment::Literal(_) => 0,
            Segment::Enum { .. } => 1 << 24,
            Segment::Capture { shape, .. } => {
                2 << 24 | longer_first(shape.before.len() + shape.after.len()) << 4 | shape.kind as u32
            }
            Segment::Tail { .. } => 3 << 24,
        }
    }
}

/// Whether a text starts with another. An empty boxed text has no address of its own, and comparing zero
/// bytes at such an address costs 250 ns on CPUs where memcmp uses masked loads: so it is not compared.
pub(super) fn starts_with(text: &str, start: &str) -> bool {
    start.is_empty() || text.starts_with(start)
}

/// A number that is less for a longer text; fits 16 bits.
pub(super) fn longer_first(length: usize) -> u32 {
    u32::from(u16::MAX) - u32::try_from(length).unwrap_or(u32::MAX).min(u32::from(u16::MAX))
}

/// Reads literal text from byte `from` up to a parameter or the end: the text without doubled braces, and
/// where the parameter opens.
fn literal(text: &str, from: usize, start: usize) -> Result<(String, Option<usize>), Complaint> {
    let mut out = String::new();
    let mut chars = text[from..].char_indices().map(|(at, c)| (from + at, c)).peekable();
    while let Some((at, c)) = chars.next() {
        match (c, chars.peek().map(|(_, next)| *next)) {
            ('{', Some('{')) | ('}', Some('}')) => {
                chars.next();
                out.push(c);
            }
            ('{', _) => return Ok((out, Some(at))),
            ('}', _) => {
                let complaint = Complaint::new("this brace closes nothing", "write }} for a literal brace");
                return Err(complaint.part(start + at..start + at + 1));
            }
            _ => out.push(c),
        }
    }
    Ok((out, None))
}

fn plain(text: &str, part: std::ops::Range<usize>) -> Result<Box<str>, Complaint> {
    match decode::path(text) {
        Some(text) => Ok(text.into()),
        None => Err(Complaint::new("this is not UTF-8 when decoded", "encode the text as UTF-8").part(part)),
    }
}

fn parameter(inner: &str, before: Box<str>, after: Box<str>) -> Result<Segment, Complaint> {
    if let Some(name) = inner.strip_prefix('*') {
        if !before.is_empty() || !after.is_empty() {
            let message = "a tail is the whole last segment";
            return Err(Complaint::new(message, format!("write \"/{{*{name}}}\" at the end of the path")));
        }
        return Ok(Segment::Tail { name: checked(name)? });
    }
    let (name, form) = inner.split_once(':').map_or((inner, None), |(name, form)| (name, Some(form)));
    let name = checked(name)?;
    let kind = match form {
        Some(form) if form.contains('|') => {
            let mut texts = Vec::new();
            for word in form.split('|') {
                let word = decode::path(word).filter(|word| !word.is_empty());
                let word = word.ok_or_else(|| Complaint::new("a word is missing", "write {kind:a|b}"))?;
                texts.push(format!("{before}{word}{after}").into());
            }
            texts.sort();
            texts.dedup();
            return Ok(Segment::Enum { name, texts, around: (before.len(), after.len()) });
        }
        Some(form) => Kind::named(form).ok_or_else(|| {
            let hint =
                "write {id}, {id:int}, {id:uuid}, or words: {kind:a|b}; one word alone is written literally";
            Complaint::new(format!("there is no parameter form `{form}`"), hint)
        })?,
        None => Kind::Any,
    };
    Ok(Segment::Capture { name, shape: Shape { before, after, kind } })
}

fn checked(name: &str) -> Result<Arc<str>, Complaint> {
    let good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit();
    match good {
        true => Ok(name.into()),
        false => {
            let hint = "a name is letters, digits and _: {id}; write {{ and }} for braces meant literally";
            Err(Complaint::new(format!("`{name}` is not a parameter name"), hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is captured, "" for a literal, when it matches.
    fn value<'a>(segment: &str, text: &'a str) -> Option<&'a str> {
        let segment = Segment::parse(segment, 0).unwrap();
        let value = segment.parameter(text, text).map_or("", |(_, value)| value);
        segment.matches(text).then_some(value)
    }

    #[test]
    fn segments_match_and_capture() {
        for (segment, text, expected) in [
            ("about", "about", Some("")),
            ("about", "About", None),
            ("a%3Ab", "a:b", Some("")),
            ("{{id}}", "{id}", Some("")),
            ("{id}", "x:(y)|z", Some("x:(y)|z")),
            ("{id}", "", None),
            ("{id:int}", "-42", Some("-42")),
            ("{id:int}", "4.2", None),
            ("{id:int}", "-", None),
            ("{id:int}", "12345678901234567890", None),
            (
                "{id:uuid}",
                "00000000-0000-4000-8000-00000000000F",
                Some("00000000-0000-4000-8000-00000000000F"),
            ),
            ("{id:uuid}", "00000000-0000-4000-8000-00000000000g", None),
            ("{kind:a|b}", "b", Some("b")),
            ("{kind:a|b}", "c", None),
            ("v{n:1|2}.x", "v2.x", Some("2")),
            ("{id}.json", "x.json", Some("x")),
            ("{id}.json", ".json", None),
            ("v{major:int}-{{x}}", "v3-{x}", Some("3")),
        ] {
            assert_eq!(value(segment, text), expected, "{segment} {text}");
        }
    }

    #[test]
    fn wrong_segments_are_refused_where_they_are_wrong() {
        for (segment, part) in [
            ("{id", 0..3),
            ("a}b", 1..2),
            ("{a}{b}", 3..6),
            ("{}", 0..2),
            ("{1a}", 0..4),
            ("{a-b}", 0..5),
            ("{id:integer}", 0..12),
            ("{id:}", 0..5),
            ("{k:a|}", 0..6),
            ("x{*rest}", 1..8),
            ("%ff", 0..3),
        ] {
            let complaint = Segment::parse(segment, 10).unwrap_err();
            assert_eq!(complaint.part, Some(part.start + 10..part.end + 10), "{segment}: {complaint:?}");
            assert!(complaint.hint.is_some(), "{segment}");
        }
    }

    #[test]
    fn the_more_a_segment_says_the_earlier_it_comes() {
        let order: Vec<_> =
            ["a", "{k:a|b}", "xy{id}", "x{id:int}", "x{id}", "{id:int}", "{id:uuid}", "{id}", "{*r}"]
                .iter()
                .map(|segment| Segment::parse(segment, 0).unwrap().order())
                .collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    }
}
