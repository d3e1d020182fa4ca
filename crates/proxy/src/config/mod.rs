//! What people write: text -> [`Document`](document::Document) -> model.
//!
//! [`load`] reads a [`Source`] in any of our languages, fills in `${...}`, checks it against the schema of the
//! document's own types and gives the [`Document`](document::Document), or every problem with its place.
//!
//! The steps, each a file: `source` -> `read_toml`, `read_yaml`, `read_json` -> `tree` -> `expand` ->
//! `validate` (with `shape`, `choose`, `suggest`) -> serde. `report`, `locate` and `render` show what is
//! wrong; `show` writes a document back.

mod certificates;
pub mod check;
mod choose;
mod deserialize;
pub mod document;
pub mod expand;
mod locate;
pub mod model;
mod read_json;
mod read_toml;
mod read_yaml;
pub mod render;
pub mod report;
pub mod requests;
mod secrecy;
mod shape;
pub mod show;
pub mod source;
mod streams;
mod suggest;
pub mod tree;
mod validate;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::problem::{At, Problems};
use document::Document;

pub use expand::{Environment, SystemEnvironment};
pub use render::Style;
pub use report::Report;
pub use show::show;
pub use source::{Format, Source};
pub use tree::Node;

/// A document that was read without a problem, and what places later problems in its source.
#[derive(Clone, Debug)]
pub struct Loaded<T = Document> {
    /// The document.
    pub document: T,
    /// The document as a tree: every value with its place.
    pub tree: Node,
    /// What it was read from.
    pub source: Source,
}

impl<T> Loaded<T> {
    /// Places problems that a later check found by path.
    pub fn report(&self, problems: &Problems) -> Report {
        Report::locate(&self.source, &self.tree, problems)
    }
}

/// Reads a document.
///
/// # Errors
/// Every problem found.
pub fn load(source: &Source, environment: &dyn Environment) -> Result<Loaded, Report> {
    load_as(source, environment)
}

/// Reads a document of any type whose schema is known.
///
/// # Errors
/// Every problem found.
pub fn load_as<T>(source: &Source, environment: &dyn Environment) -> Result<Loaded<T>, Report>
where
    T: DeserializeOwned + JsonSchema,
{
    let (tree, mut findings) = tree::read(source);
    let Some(mut tree) = tree else { return Err(Report::new(source.clone(), findings)) };
    findings.extend(expand::expand(&mut tree, source, environment));
    let shapes = shape::Shapes::compile(schemars::schema_for!(T).as_value());
    findings.extend(validate::validate(&mut tree, &shapes));

    match serde_path_to_error::deserialize::<_, T>(&tree) {
        Ok(document) if findings.is_empty() => Ok(Loaded { document, tree, source: source.clone() }),
        Ok(_) => Err(Report::new(source.clone(), findings)),
        Err(error) => {
            let at = place(error.path());
            // What the schema check says about a place is better than what serde says about it.
            if !findings.iter().any(|finding| overlaps(&finding.problem.at, &at)) {
                let mut problems = Problems::new();
                problems.add(&at, error.into_inner().to_string());
                findings.extend(Report::locate(source, &tree, &problems).findings().iter().cloned());
            }
            Err(Report::new(source.clone(), findings))
        }
    }
}

/// The JSON Schema (draft 2020-12) of a document.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Document);
    schema.insert("$id".to_owned(), "https://example.invalid/sluice/config.schema.json".into());
    schema.insert("title".to_owned(), "Sluice configuration".into());
    schema.to_value()
}

fn place(path: &serde_path_to_error::Path) -> At {
    use serde_path_to_error::Segment;
    path.iter().fold(At::root(), |at, segment| match segment {
        Segment::Seq { index } => at.index(*index),
        Segment::Map { key } => at.key(key),
        Segment::Enum { variant } => at.key(variant),
        Segment::Unknown => at,
    })
}

/// Whether one place is the other or stands in it.
fn overlaps(one: &At, other: &At) -> bool {
    one.steps().iter().zip(other.steps()).all(|(one, other)| one == other)
}
