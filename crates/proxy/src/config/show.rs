//! A document written back as text: `sluice config show`, conversion between languages.

use std::fmt;

use serde_json::Value as Json;

use super::Loaded;
use super::source::{Format, Source};
use super::tree::{Node, Value};

/// Why a document cannot be written.
#[derive(Debug)]
pub struct ShowError(String);

impl fmt::Display for ShowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShowError {}

/// Writes a document in a language. Reading the text gives the same document again.
///
/// # Errors
/// When a number does not fit the language (TOML has no integers above 2^63 - 1).
pub fn show<T: serde::Serialize>(document: &T, format: Format) -> Result<String, ShowError> {
    let mut json = serde_json::to_value(document).map_err(|error| ShowError(error.to_string()))?;
    prune(&mut json);
    write(&json, format)
}

impl<T: serde::Serialize> Loaded<T> {
    /// Writes the document in a language, with `${file:...}` where the source has it: secrets stay in their
    /// files.
    ///
    /// # Errors
    /// As [`show`].
    pub fn show(&self, format: Format) -> Result<String, ShowError> {
        let mut json = serde_json::to_value(&self.document).map_err(|error| ShowError(error.to_string()))?;
        prune(&mut json);
        conceal(&mut json, &self.tree, &self.source);
        write(&json, format)
    }
}

/// Puts the written text back where a value came from a file.
fn conceal(json: &mut Json, node: &Node, source: &Source) {
    if node.is_secret() {
        let written = source.slice(&node.span);
        *json = written.trim_matches(['"', '\'']).trim().into();
        return;
    }
    match (json, &node.value) {
        (Json::Object(entries), Value::Table(nodes)) => {
            for (key, node) in nodes {
                if let Some(json) = entries.get_mut(&key.text) {
                    conceal(json, node, source);
                }
            }
        }
        (Json::Array(items), Value::Array(nodes)) => {
            for (json, node) in items.iter_mut().zip(nodes) {
                conceal(json, node, source);
            }
        }
        _ => {}
    }
}

fn write(json: &Json, format: Format) -> Result<String, ShowError> {
    match format {
        Format::Toml => toml_edit::ser::to_string_pretty(json).map_err(|error| ShowError(error.to_string())),
        Format::Yaml => serde_saphyr::to_string(json).map_err(|error| ShowError(error.to_string())),
        Format::Json => serde_json::to_string_pretty(json)
            .map(|text| text + "\n")
            .map_err(|error| ShowError(error.to_string())),
    }
}

/// Drops the keys that hold nothing: TOML has no null, and an absent key says the same.
fn prune(json: &mut Json) {
    match json {
        Json::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.values_mut().for_each(prune);
        }
        Json::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}
