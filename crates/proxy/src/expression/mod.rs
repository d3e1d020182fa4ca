//! Expressions over a request: our subset of CEL, typed, compiled at load.
//!
//! Promise: an expression that compiles cannot fail when it runs; its cost is linear in its length and in
//! what it reads; every fault says where it is, what is wrong and, when that can be known, what to write.
//!
//! ```text
//! request.headers["x-beta"] == "1" && request.query.v in ["1", "2"]
//! hash(request.cookies.uid) % 100 < 10
//! client.address in ["10.0.0.0/8", "2001:db8::/32"] || has(request.headers.authorization)
//! ```
//!
//! Names:
//!
//! | name | type | |
//! |---|---|---|
//! | `request.method`, `request.scheme`, `request.version`, `request.id` | text | version is "1.0", "1.1" or "2" |
//! | `request.path` | text | normalised: what routes match |
//! | `request.target` | text | path and query as received |
//! | `request.host` | text | without port, in lower case |
//! | `request.headers["x-a"]`, `request.headers.a` | text | the first field line of that name, in any case |
//! | `request.query.a`, `request.cookies.a`, `params.id` | text | query values and names are decoded |
//! | `client.address` | address | the trusted client address |
//! | `consumer`, `consumer.name`, `consumer.groups["a"]`, `jwt.claims.a` | text | in filters and actions: not known when a route is chosen |
//! | `listener`, `listener.name`, `route`, `route.name` | text | |
//!
//! Operators, from loose to tight: `? :`, `||`, `&&`, `== != < <= > >= in`, `+ - * / %` on ints, `! -`.
//! Texts are in "double" or 'single' quotes with CEL's escapes, or raw: r"\d+". Texts compare byte by byte.
//!
//! Functions: `has(entry)`, `size(text)` (characters), `int(text)`, `string(x)`, `hash(text or address)`
//! (XXH3 64 without its lowest bit: the same everywhere, never negative), `lower(text)` (ASCII),
//! `cidr("10.0.0.0/8")`. Methods: `startsWith`, `endsWith`, `contains`, `matches("regex")` (anywhere in the
//! text unless anchored), `lower`, `size`; `cidr(...).contains(client.address)`.
//!
//! **What is absent** (a header that was not sent, `int("x")` of a text that is no number, a division by
//! zero, an overflow) is equal to nothing, in no list, in no order, matches nothing; only `!=` with it is
//! true, as `!(a == b)` is. `has(request.headers.x)` and `"x" in request.headers` ask for presence.
//!
//! Left out of CEL on purpose: fractions, maps, loops and macros, joining texts, `null`, time.

mod calls;
mod check;
mod constant;
pub(crate) mod fact;
mod lex;
mod names;
mod parse;
#[cfg(test)]
mod tests;
mod tree;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use self::check::Checker;
use self::tree::Scalar;
use crate::facts::Facts;
use crate::problem::{At, Problems};

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: Box<str>,
    root: Scalar,
}

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

/// What an expression is compiled for.
#[derive(Clone, Copy)]
enum Wanted {
    Condition,
    Value,
}

/// When an expression is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A route is chosen: nobody has asked who the client is.
    Match,
    /// In a filter or an action.
    Route,
}

impl Fault {
    /// Notes it as a problem of the string value at `at`.
    pub fn report(self, at: &At, problems: &mut Problems) {
        let problem = problems.add(at, self.message);
        problem.part(self.part);
        problem.hint = self.hint;
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// An expression, when it compiled; else its faults become problems of the string value at `at`.
pub fn checked(
    compiled: Result<Expression, Vec<Fault>>,
    at: &At,
    problems: &mut Problems,
) -> Option<Expression> {
    compiled.map_err(|faults| faults.into_iter().for_each(|fault| fault.report(at, problems))).ok()
}

impl Expression {
    /// Compiles a condition: the expression's type must be bool.
    pub fn condition(text: &str) -> Result<Expression, Vec<Fault>> {
        Expression::compile(text, Wanted::Condition, Moment::Match)
    }

    /// The same for a filter or an action, where it can be known who is asking.
    pub fn condition_on_route(text: &str) -> Result<Expression, Vec<Fault>> {
        Expression::compile(text, Wanted::Condition, Moment::Route)
    }

    /// Compiles an expression of any type, to be read with [`Expression::text`].
    pub fn value(text: &str) -> Result<Expression, Vec<Fault>> {
        Expression::compile(text, Wanted::Value, Moment::Route)
    }

    fn compile(text: &str, wanted: Wanted, moment: Moment) -> Result<Expression, Vec<Fault>> {
        let node = parse::parse(text)?;
        let mut checker = Checker { text, faults: Vec::new(), moment };
        let root = match wanted {
            Wanted::Condition => checker.bool(&node, "a condition").map(Scalar::Bool),
            Wanted::Value => checker.value(&node),
        };
        match root {
            Some(root) if checker.faults.is_empty() => Ok(Expression { source: text.into(), root }),
            _ => Err(checker.faults),
        }
    }

    /// Whether the condition holds; false for an expression that is not a bool.
    ///
    /// Allocates nothing, with these exceptions: a query value that has escapes is decoded; a text with
    /// upper-case letters is copied where `lower()` of it meets `contains`, `matches` or `hash`; `string()`
    /// of an int or an address is written out; a regex makes its scratch space when a thread first uses it.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        matches!(&self.root, Scalar::Bool(condition) if condition.holds(facts))
    }

    /// Its value as text, for using it as a key: a bool is "true" or "false"; `None` when it is absent.
    /// Bytes that are not UTF-8 become U+FFFD.
    pub fn text<'a>(&'a self, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
        match &self.root {
            Scalar::Bool(condition) => {
                Some(Cow::Borrowed(if condition.holds(facts) { "true" } else { "false" }))
            }
            Scalar::Int(int) => int.number(facts).map(|int| Cow::Owned(int.to_string())),
            Scalar::Address => Some(Cow::Owned(facts.client.to_canonical().to_string())),
            Scalar::Text(text) => text.bytes(facts).map(|bytes| match bytes {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
            }),
        }
    }

    /// The condition's value, when it does not depend on the request.
    pub fn constant(&self) -> Option<bool> {
        match self.root {
            Scalar::Bool(tree::Bool::Const(value)) => Some(value),
            _ => None,
        }
    }

    /// The text it was compiled from.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}
