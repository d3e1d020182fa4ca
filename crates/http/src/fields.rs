//! The fields of a message: received bytes, an index over them, and an arena for edits.
//!
//! Promise: order and case of received fields are kept; reading allocates nothing; an edit writes into one
//! arena, never into a string per field. Looking a name up is a walk over the index (a head has some twenty
//! fields; hashing them costs more than it saves).

use bytes::Bytes;

use crate::name::{Name, NameId, is_value};

/// A range of the received bytes, or (top bit of `start`) of the arena.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

const ARENA: u32 = 1 << 31;

/// Bytes of an arena that nobody has made room in.
const FIRST_ROOM: usize = 256;

impl Span {
    /// Whether it lies in the received bytes; what was added or changed since lies in the arena.
    pub(crate) fn is_received(self) -> bool {
        self.start & ARENA == 0
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: Span,
    pub(crate) value: Span,
    pub(crate) id: NameId,
}

/// The bytes a head is made of: what was received, and what was added since.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    raw: Bytes,
    arena: Vec<u8>,
}

impl Text {
    pub(crate) fn new(raw: Bytes) -> Text {
        debug_assert!(raw.len() < ARENA as usize, "a head limit keeps heads far below 2 GiB");
        Text { raw, arena: Vec::new() }
    }

    /// The span of `part`, which must be a slice of the received bytes.
    pub(crate) fn span_of(&self, part: &[u8]) -> Span {
        let start = (part.as_ptr() as usize).wrapping_sub(self.raw.as_ptr() as usize);
        debug_assert!(start + part.len() <= self.raw.len(), "not a slice of this head");
        Span { start: start as u32, len: part.len() as u32 }
    }

    pub(crate) fn get(&self, span: Span) -> &[u8] {
        let (from, text) = match span.start & ARENA {
            0 => (span.start, &self.raw[..]),
            _ => (span.start & !ARENA, &self.arena[..]),
        };
        &text[from as usize..(from + span.len) as usize]
    }

    /// The bytes of a span; `arena` is a copy of the arena.
    pub(crate) fn share(&self, span: Span, arena: &Bytes) -> Bytes {
        let text = if span.is_received() { &self.raw } else { arena };
        let from = (span.start & !ARENA) as usize;
        text.slice(from..from + span.len as usize)
    }

    pub(crate) fn arena(&self) -> &[u8] {
        &self.arena
    }

    #[inline]
    pub(crate) fn add(&mut self, text: &[u8]) -> Span {
        if self.arena.capacity() == 0 {
            // What a gateway adds to a head fits: it does not grow name by name.
            self.arena.reserve(text.len().max(FIRST_ROOM));
        }
        let start = self.arena.len() as u32 | ARENA;
        self.arena.extend_from_slice(text);
        Span { start, len: text.len() as u32 }
    }
}

/// The fields of one message, in order.
#[derive(Clone, Default)]
pub struct Fields {
    pub(crate) text: Text,
    pub(crate) list: Vec<Field>,
}

impl Fields {
    /// No fields.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// No fields, and room for so many lines whose names and values have so many bytes together.
    pub fn with_capacity(lines: usize, bytes: usize) -> Fields {
        let text = Text { raw: Bytes::new(), arena: Vec::with_capacity(bytes) };
        Fields { text, list: Vec::with_capacity(lines) }
    }

    /// Makes room for so many more lines whose names and values have so many bytes together.
    pub fn reserve(&mut self, lines: usize, bytes: usize) {
        self.list.reserve(lines);
        self.text.arena.reserve(bytes);
    }

    /// Number of field lines.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no field line.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The value of the first field line of this name.
    pub fn get<'a>(&self, name: impl Into<Name<'a>>) -> Option<&[u8]> {
        let name = name.into();
        self.list.iter().find(|field| self.is(field, name)).map(|field| self.text.get(field.value))
    }

    /// The value of the first field line of this name, if it is UTF-8.
    pub fn get_str<'a>(&self, name: impl Into<Name<'a>>) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all field lines of this name, in order.
    pub fn get_all<'s, 'a: 's>(&'s self, name: impl Into<Name<'a>>) -> impl Iterator<Item = &'s [u8]> + 's {
        let name = name.into();
        self.list.iter().filter(move |field| self.is(field, name)).map(|field| self.text.get(field.value))
    }

    /// Whether a field line of this name exists.
    pub fn contains<'a>(&self, name: impl Into<Name<'a>>) -> bool {
        let name = name.into();
        self.list.iter().any(|field| self.is(field, name))
    }

    /// All field lines: id, name as spelled, value.
    pub fn iter(&self) -> impl Iterator<Item = (NameId, &[u8], &[u8])> {
        self.list.iter().map(|field| (field.id, self.text.get(field.name), self.text.get(field.value)))
    }

    /// Adds a field line at the end. A byte that may not stand in a value is replaced by a space, so that
    /// no edit can ever break framing.
    pub fn append<'a>(&mut self, name: impl Into<Name<'a>>, value: &[u8]) {
        let name = name.into();
        let field =
            Field { name: self.text.add(name.text.as_bytes()), value: self.value(&[value]), id: name.id };
        self.list.push(field);
    }

    /// The same with a value that is in parts.
    pub fn append_parts<'a>(&mut self, name: impl Into<Name<'a>>, parts: &[&[u8]]) {
        let name = name.into();
        let (id, name) = (name.id, self.text.add(name.text.as_bytes()));
        let value = self.value(parts);
        self.list.push(Field { name, value, id });
    }

    /// Replaces the first field line of this name in place and removes the others; adds it when absent.
    pub fn set<'a>(&mut self, name: impl Into<Name<'a>>, value: &[u8]) {
        let name = name.into();
        let Some(first) = self.list.iter().position(|field| self.is(field, name)) else {
            return self.append(name, value);
        };
        let value = self.value(&[value]);
        self.list[first].value = value;
        let text = &self.text;
        let mut index = 0;
        self.list.retain(|field| {
            index += 1;
            index - 1 <= first || !is(text, field, name)
        });
    }

    /// Removes all field lines of this name; says how many there were.
    pub fn remove<'a>(&mut self, name: impl Into<Name<'a>>) -> usize {
        let name = name.into();
        let before = self.list.len();
        let text = &self.text;
        self.list.retain(|field| !is(text, field, name));
        before - self.list.len()
    }

    /// Keeps the field lines for which `keep` holds (id, name as spelled, value).
    pub fn retain(&mut self, mut keep: impl FnMut(NameId, &[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.list.retain(|field| keep(field.id, text.get(field.name), text.get(field.value)));
    }

    /// Gives every field line of name `from` the name `to`; values and order stay. Says how many.
    pub fn rename<'a, 'b>(&mut self, from: impl Into<Name<'a>>, to: impl Into<Name<'b>>) -> usize {
        let (from, to): (Name<'_>, Name<'_>) = (from.into(), to.into());
        let name = self.text.add(to.text.as_bytes());
        let text = &self.text;
        let mut renamed = 0;
        for field in self.list.iter_mut().filter(|field| is(text, field, from)) {
            (field.name, field.id) = (name, to.id);
            renamed += 1;
        }
        renamed
    }

    fn is(&self, field: &Field, name: Name<'_>) -> bool {
        is(&self.text, field, name)
    }

    #[inline]
    fn value(&mut self, parts: &[&[u8]]) -> Span {
        let start = self.text.arena.len();
        let len = parts.iter().map(|part| self.text.add(part).len).sum();
        // Nearly always nothing is wrong: that is found out many bytes at a time.
        let added = &mut self.text.arena[start..];
        if !added.iter().fold(true, |good, byte| good & is_value(*byte)) {
            for byte in added.iter_mut().filter(|byte| !is_value(**byte)) {
                *byte = b' ';
            }
        }
        Span { start: start as u32 | ARENA, len }
    }
}

#[inline]
fn is(text: &Text, field: &Field, name: Name<'_>) -> bool {
    match name.id {
        NameId::Other => {
            field.id == NameId::Other && text.get(field.name).eq_ignore_ascii_case(name.text.as_bytes())
        }
        id => field.id == id,
    }
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Names only: values may hold secrets, and Debug output ends in logs.
        f.debug_list()
            .entries(self.iter().map(|(_, name, _)| String::from_utf8_lossy(name).into_owned()))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::FieldName;

    fn lines(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(_, name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn edits_keep_order_and_case() {
        let custom = FieldName::new("x-Custom").unwrap();
        let mut fields = Fields::new();
        fields.append(NameId::Host, b"a");
        fields.append(&custom, b"1");
        fields.append(NameId::Accept, b"*/*");
        fields.append(&custom, b"2");
        assert_eq!(fields.get_all(&custom).collect::<Vec<_>>(), [b"1", b"2"]);
        fields.set(&custom, b"3");
        let expected = [("Host", "a"), ("x-Custom", "3"), ("Accept", "*/*")];
        assert_eq!(lines(&fields), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(fields.rename(NameId::Accept, &FieldName::new("X-Accept").unwrap()), 1);
        assert_eq!(fields.get(&FieldName::new("x-accept").unwrap()), Some(&b"*/*"[..]));
        assert_eq!(fields.remove(NameId::Host), 1);
        assert_eq!(fields.get(NameId::Host), None);
    }

    #[test]
    fn an_edit_cannot_split_a_head() {
        let mut fields = Fields::new();
        fields.append_parts(NameId::Accept, &[b"a", b"", b"\r\nb"]);
        assert_eq!(fields.get(NameId::Accept), Some(&b"a  b"[..]));
        fields.set(NameId::Location, b"/a\r\nX-Evil: 1\0");
        assert_eq!(fields.get(NameId::Location), Some(&b"/a  X-Evil: 1 "[..]));
    }
}
