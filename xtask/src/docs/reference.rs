//! The JSON Schema of a document as a page for people: one section for each table, named by where it stands in a
//! document, each followed by those that stand in it.

use std::collections::HashMap;
use std::fmt::Write;

use serde_json::Value;

const HEAD: &str = "\
# Configuration

<!-- Written by `cargo xtask docs` from the types. Do not edit. -->

Every key that a document may hold, by its place: `NAME` is a name you choose, `[]` an entry of a list. TOML, YAML and
JSON have the same shape; unknown keys are errors. Times are written \"250ms\", \"1.5s\", \"2m\"; sizes \"16KiB\",
\"10MiB\". How things are used is told in the [guide](guide/configuration.md).

";

/// The whole page.
pub(super) fn page(schema: &Value) -> String {
    let mut page = Page { schema, text: HEAD.to_owned(), places: HashMap::new() };
    page.section("", schema);
    page.text.truncate(page.text.trim_end().len());
    page.text.push('\n');
    page.text
}

struct Page<'a> {
    schema: &'a Value,
    text: String,
    /// Where each named object has its section: where it was met first.
    places: HashMap<&'a str, String>,
}

/// An object that was mentioned and has no section yet.
struct Waiting<'a> {
    place: String,
    object: &'a Value,
}

impl<'a> Page<'a> {
    fn section(&mut self, place: &str, object: &'a Value) {
        match place {
            "" => self.text.push_str("## The document\n\n"),
            _ => {
                let below = place.trim_end_matches("[]").trim_end_matches(".NAME").contains('.');
                let _ = writeln!(self.text, "{} `{place}`\n", if below { "###" } else { "##" });
            }
        }
        if let Some(about) = object["description"].as_str() {
            let _ = writeln!(self.text, "{}\n", one_line(about));
        }
        let mut below = Vec::new();
        if object["properties"].is_object() {
            self.keys(place, object, &mut below);
        }
        if let Some(choices) = choices(object) {
            self.choices(place, choices, &mut below);
        }
        for Waiting { place, object } in below {
            self.section(&place, object);
        }
    }

    fn keys(&mut self, place: &str, object: &'a Value, below: &mut Vec<Waiting<'a>>) {
        self.text.push_str("| key | value | meaning |\n|---|---|---|\n");
        let required = object["required"].as_array();
        for (key, value) in object["properties"].as_object().into_iter().flatten() {
            let needed = required.is_some_and(|names| names.iter().any(|name| name == key.as_str()));
            let needed = if needed { " (required)" } else { "" };
            let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            let kind = self.kind(value, &place, below);
            let _ = writeln!(self.text, "| `{key}`{needed} | {kind} | {} |", self.meaning(value));
        }
        self.text.push('\n');
    }

    fn choices(&mut self, place: &str, choices: &'a [Value], below: &mut Vec<Waiting<'a>>) {
        self.text.push_str("One of:\n\n");
        let tagged = |name: &Value| {
            let with = |choice: &&Value| tag(choice).is_some_and(|(tag, _)| name == tag);
            choices.iter().find(with).and_then(tag).filter(|(_, value)| !is_empty(value))
        };
        for choice in choices {
            let constant = choice.get("const");
            let shown = match (tag(choice), constant.and_then(tagged)) {
                // The name alone says the same.
                (Some((tag, _)), _) if choices.iter().any(|other| other["const"] == tag) => continue,
                (Some((tag, value)), _) => {
                    let kind = self.kind(value, &format!("{place}.{tag}"), below);
                    format!("`{{ {tag} = … }}`: {kind}")
                }
                (None, Some((tag, value))) => {
                    let kind = self.kind(value, &format!("{place}.{tag}"), below);
                    format!("`\"{tag}\"`, or `{{ {tag} = … }}`: {kind}")
                }
                (None, None) => self.kind(choice, place, below),
            };
            match self.meaning(choice).as_str() {
                "" => {
                    let _ = writeln!(self.text, "* {shown}");
                }
                about => {
                    let _ = writeln!(self.text, "* {shown} — {about}");
                }
            }
        }
        self.text.push('\n');
    }

    /// What a key is about: its own words, or those of the object it names; then what each of a few words
    /// means that may stand there. One line, safe in a table.
    fn meaning(&self, value: &Value) -> String {
        let named = reference(value).map(|name| &self.schema["$defs"][name]);
        let own = value["description"].as_str();
        let text = own.or_else(|| named.and_then(|named| named["description"].as_str())).unwrap_or("");
        let mut meaning = one_line(text).replace('|', "\\|");
        for choice in named.and_then(choices).filter(|choices| short(choices)).into_iter().flatten() {
            if let (Some(constant), Some(about)) = (choice.get("const"), choice["description"].as_str()) {
                let _ = write!(meaning, "<br>{}: {}", code(constant), one_line(about).replace('|', "\\|"));
            }
        }
        meaning
    }

    /// What may stand at a place, in a few words, with links to the sections of tables.
    fn kind(&mut self, value: &'a Value, place: &str, below: &mut Vec<Waiting<'a>>) -> String {
        if let Some(name) = reference(value) {
            return self.named(name, place, below);
        }
        if let Some(constant) = value.get("const") {
            return code(constant);
        }
        if let Some(words) = value["enum"].as_array() {
            return either(words.iter().map(code));
        }
        if let Some(choices) = choices(value) {
            let real = choices.iter().filter(|choice| choice["type"] != "null");
            return either(real.map(|choice| self.kind(choice, place, below)));
        }
        let kind = match &value["type"] {
            Value::Array(kinds) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
            }
            kind => kind.as_str().unwrap_or(""),
        };
        match kind {
            "array" => format!("list of {}", self.kind(&value["items"], &format!("{place}[]"), below)),
            "object" if value["additionalProperties"].is_object() => {
                let inside = self.kind(&value["additionalProperties"], &format!("{place}.NAME"), below);
                format!("{inside}, by name")
            }
            "object" if value["properties"].is_object() => {
                below.push(Waiting { place: place.to_owned(), object: value });
                link(place)
            }
            "object" => "table".into(),
            "string" => text_kind(value["format"].as_str()).into(),
            "boolean" => "true or false".into(),
            "integer" => "whole number".into(),
            "number" => "number".into(),
            _ => "any value".into(),
        }
    }

    /// An object with a name: a link to its section, or what may stand there when that is short.
    fn named(&mut self, name: &'a str, place: &str, below: &mut Vec<Waiting<'a>>) -> String {
        let schema = self.schema;
        let object = &schema["$defs"][name];
        if let Some(choices) = choices(object).filter(|choices| short(choices)) {
            return either(choices.iter().map(|choice| self.kind(choice, place, below)));
        }
        if let Some(known) = self.places.get(name) {
            return link(known);
        }
        self.places.insert(name, place.to_owned());
        below.push(Waiting { place: place.to_owned(), object });
        link(place)
    }
}

/// The alternatives of an object that is a choice.
fn choices(object: &Value) -> Option<&[Value]> {
    object["oneOf"].as_array().or_else(|| object["anyOf"].as_array()).map(Vec::as_slice)
}

/// The name and the value of `{ name = … }`.
fn tag(choice: &Value) -> Option<(&str, &Value)> {
    let (key, value) = choice["properties"].as_object()?.iter().next()?;
    Some((key, value))
}

/// Whether it is a table that holds no key.
fn is_empty(value: &Value) -> bool {
    value["additionalProperties"] == false
        && value["properties"].as_object().is_none_or(serde_json::Map::is_empty)
}

/// Whether the choices are told in a line: none is a table named by its key.
fn short(choices: &[Value]) -> bool {
    choices.iter().all(|choice| tag(choice).is_none())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// "a, b or c", each once.
fn either(all: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in all {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    // A whole number is a number.
    if words.iter().any(|word| word == "number") {
        words.retain(|word| word != "whole number");
    }
    match words.split_last() {
        Some((last, most)) if !most.is_empty() => format!("{} or {last}", most.join(", ")),
        _ => words.concat(),
    }
}

/// A link to the section of a place; the anchor is the heading as GitHub and others spell it.
fn link(place: &str) -> String {
    let anchor: String =
        place.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect::<String>().to_lowercase();
    format!("[table](#{anchor})")
}

fn text_kind(format: Option<&str>) -> &'static str {
    match format {
        Some("period") => "time",
        Some("byte-size") => "size",
        Some("network") => "address or network",
        _ => "text",
    }
}

fn reference(value: &Value) -> Option<&str> {
    value["$ref"].as_str()?.strip_prefix("#/$defs/")
}

fn code(value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("`\"{text}\"`"),
        None => format!("`{value}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_has_one_section_named_by_its_place_and_every_key_a_row() {
        let schema = serde_json::json!({
            "description": "All of it.",
            "type": "object",
            "properties": {
                "web": { "$ref": "#/$defs/Listener" },
                "more": { "type": "array", "items": { "$ref": "#/$defs/Listener" } },
                "named": { "type": "object", "additionalProperties": { "$ref": "#/$defs/Group" } },
                "after": { "type": ["string", "null"], "format": "period", "description": "A | B." },
            },
            "required": ["web"],
            "$defs": {
                "Listener": { "description": "A socket.", "type": "object",
                    "properties": { "how": { "anyOf": [{ "$ref": "#/$defs/How" }, { "type": "null" }] } } },
                "Group": { "type": "object", "properties": { "same": { "$ref": "#/$defs/Same" } } },
                "Same": { "oneOf": [
                    { "const": "lax", "description": "A little." }, { "const": "strict" },
                ] },
                "How": { "oneOf": [
                    { "type": "string", "const": "fast", "description": "Without delay." },
                    { "type": "string", "const": "slow", "description": "With one." },
                    { "type": "object", "properties": { "fast": { "type": "object", "additionalProperties": false } } },
                    { "type": "object", "properties": { "slow": { "type": "object",
                        "properties": { "by": { "type": "integer" } } } } },
                    { "type": "object", "properties": { "other": { "type": "string" } } },
                ] },
            },
        });
        let page = page(&schema);
        for expected in [
            "| `web` (required) | [table](#web) | A socket. |",
            "| `more` | list of [table](#web) |  |",
            "| `named` | [table](#namedname), by name |  |",
            "| `after` | time | A \\| B. |",
            "\n## `web`\n\nA socket.\n",
            "| `how` | [table](#webhow) |",
            "\n### `web.how`\n",
            "* `\"fast\"` — Without delay.\n* `\"slow\"`, or `{ slow = … }`: [table](#webhowslow) — With one.\n\
             * `{ other = … }`: text\n",
            "\n### `web.how.slow`\n\n| key | value | meaning |\n|---|---|---|\n| `by` | whole number |  |",
            "| `same` | `\"lax\"` or `\"strict\"` | <br>`\"lax\"`: A little. |",
        ] {
            assert!(page.contains(expected), "{expected}\n--\n{page}");
        }
        assert_eq!(page.matches("\n## `web`\n").count(), 1);
        let (web, how) = (page.find("## `web`"), page.find("### `web.how`"));
        assert!(web < how && how < page.find("\n## `named.NAME`"), "{page}");
    }
}
