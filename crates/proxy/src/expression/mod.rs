//! Expressions over a request: our subset of CEL, typed, compiled at load. (Under construction.)

use std::ops::Range;

use crate::facts::Facts;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {}

/// What is wrong in the text of an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The byte range of the text it is about.
    pub part: Range<usize>,
    /// One sentence, lower-case, no full stop.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Expression {
    /// Compiles a condition: the expression's type must be bool.
    pub fn condition(_text: &str) -> Result<Expression, Vec<Fault>> {
        Ok(Expression {})
    }

    /// Whether the condition holds. Allocates nothing.
    pub fn holds(&self, _facts: &Facts<'_>) -> bool {
        true
    }
}
