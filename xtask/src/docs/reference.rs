//! The JSON Schema of a document as a page for people: one section for each object, in the order in which a
//! reader meets them.

use std::fmt::Write;

use serde_json::Value;

/// The whole page.
pub(super) fn page(schema: &Value) -> String {
    let mut page = Page { schema, text: String::new(), queue: Vec::new() };
    page.text.push_str(
        "# Configuration\n\n<!-- Written by `cargo xtask docs` from the types. Do not edit. -->\n\n",
    );
    page.text.push_str(
        "Every key that a document may hold. TOML, YAML and JSON have the same shape; unknown keys are errors.\n\
         Times are written \"250ms\", \"1.5s\", \"2m\"; sizes \"16KiB\", \"10MiB\".\n\n",
    );
    page.section("The document", schema);
    let mut at = 0;
    // The queue grows while it is worked off: each section names the ones below it.
    while let Some(name) = page.queue.get(at).cloned() {
        page.section(&name, &schema["$defs"][name.as_str()]);
        at += 1;
    }
    page.text.truncate(page.text.trim_end().len());
    page.text.push('\n');
    page.text
}

struct Page<'a> {
    schema: &'a Value,
    text: String,
    /// Names of objects that were mentioned, in order; each once.
    queue: Vec<String>,
}

impl Page<'_> {
    fn section(&mut self, name: &str, object: &Value) {
        let _ = writeln!(self.text, "## {name}\n");
        if let Some(about) = object["description"].as_str() {
            let _ = writeln!(self.text, "{}\n", about.trim());
        }
        if object["properties"].is_object() {
            self.keys(object);
        }
        for list in ["oneOf", "anyOf"] {
            if let Some(choices) = object[list].as_array() {
                self.choices(choices);
            }
        }
        if let Some(words) = object["enum"].as_array() {
            let words: Vec<String> = words.iter().map(code).collect();
            let _ = writeln!(self.text, "One of {}.\n", words.join(", "));
        }
    }

    fn keys(&mut self, object: &Value) {
        self.text.push_str("| key | value | meaning |\n|---|---|---|\n");
        let required = object["required"].as_array().cloned().unwrap_or_default();
        for (key, value) in object["properties"].as_object().into_iter().flatten() {
            let needed = if required.iter().any(|name| name == key.as_str()) { " (required)" } else { "" };
            let kind = self.kind(value);
            let _ = writeln!(self.text, "| `{key}`{needed} | {kind} | {} |", self.meaning(value));
        }
        self.text.push('\n');
    }

    fn choices(&mut self, choices: &[Value]) {
        self.text.push_str("One of:\n\n");
        for choice in choices {
            let shown = match choice["properties"].as_object().and_then(|keys| keys.iter().next()) {
                Some((key, value)) => format!("`{{ {key} = … }}`: {}", self.kind(value)),
                None => self.kind(choice),
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

    /// What a key is about: its own words, or those of the object it names. One line, safe in a table.
    fn meaning(&self, value: &Value) -> String {
        let named = reference(value).map(|name| &self.schema["$defs"][name]["description"]);
        let text = value["description"].as_str().or_else(|| named.and_then(Value::as_str)).unwrap_or("");
        text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
    }

    /// What may stand after a key, in a few words, with links to the sections of objects.
    fn kind(&mut self, value: &Value) -> String {
        if let Some(name) = reference(value) {
            return self.link(name);
        }
        if let Some(constant) = value.get("const") {
            return code(constant);
        }
        if let Some(words) = value["enum"].as_array() {
            return words.iter().map(code).collect::<Vec<_>>().join(" or ");
        }
        if let Some(choices) = value["anyOf"].as_array().or_else(|| value["oneOf"].as_array()) {
            let real = choices.iter().filter(|choice| choice["type"] != "null");
            return real.map(|choice| self.kind(choice)).collect::<Vec<_>>().join(" or ");
        }
        let kind = match &value["type"] {
            Value::Array(kinds) => {
                kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("")
            }
            kind => kind.as_str().unwrap_or(""),
        };
        match kind {
            "array" => format!("list of {}", self.kind(&value["items"])),
            "object" if value["additionalProperties"].is_object() => {
                format!("table of {}, by name", self.kind(&value["additionalProperties"]))
            }
            "object" => "table".into(),
            "string" => text_kind(value["format"].as_str()).into(),
            "boolean" => "true or false".into(),
            "integer" | "number" => "number".into(),
            _ => "any value".into(),
        }
    }

    fn link(&mut self, name: &str) -> String {
        if !self.queue.iter().any(|known| known == name) {
            self.queue.push(name.to_owned());
        }
        format!("[{name}](#{})", name.to_lowercase())
    }
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
    fn each_object_has_one_section_and_every_key_a_row() {
        let schema = serde_json::json!({
            "description": "All of it.",
            "type": "object",
            "properties": {
                "web": { "$ref": "#/$defs/Listener" },
                "more": { "type": "array", "items": { "$ref": "#/$defs/Listener" } },
                "after": { "type": ["string", "null"], "format": "period", "description": "A | B." },
            },
            "required": ["web"],
            "$defs": {
                "Listener": { "description": "A socket.", "type": "object",
                    "properties": { "how": { "anyOf": [{ "$ref": "#/$defs/How" }, { "type": "null" }] } } },
                "How": { "oneOf": [
                    { "type": "string", "const": "fast", "description": "Without delay." },
                    { "type": "object", "properties": { "slow": { "type": "integer" } } },
                ] },
            },
        });
        let page = page(&schema);
        assert_eq!(page.matches("## Listener\n").count(), 1);
        assert!(page.contains("| `web` (required) | [Listener](#listener) | A socket. |"), "{page}");
        assert!(page.contains("| `more` | list of [Listener](#listener) |  |"), "{page}");
        assert!(page.contains("| `after` | time | A \\| B. |"), "{page}");
        assert!(page.contains("| `how` | [How](#how) |"), "{page}");
        assert!(page.contains("* `\"fast\"` — Without delay."), "{page}");
        assert!(page.contains("* `{ slow = … }`: number"), "{page}");
    }
}
