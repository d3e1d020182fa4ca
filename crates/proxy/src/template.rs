//! Texts with variables: "{request_id}", "https://{host}{path}". (Under construction.)

use crate::facts::Facts;

/// How a variable's value is written into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// As it is: for field values.
    None,
    /// Percent-encoded where a path segment needs it ("/" too): for path parameters in targets.
    Segment,
}

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {}

impl Template {
    /// Compiles a text; the error says which variable is unknown and which there are.
    pub fn compile(_text: &str, _escape: Escape) -> Result<Template, String> {
        Ok(Template {})
    }

    /// Appends the text with its variables filled in.
    pub fn render(&self, _facts: &Facts<'_>, _out: &mut String) {}
}
