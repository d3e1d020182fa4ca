//! What is wrong in a document, and where.
//!
//! Promise: a check never stops at the first problem; every problem names the place it is about, says what
//! is wrong in one sentence, and when it can, what to write instead.

use std::fmt;

/// A place in a document, as a path of keys and positions: `routes[3].match.path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct At(Vec<Step>);

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a table.
    Key(String),
    /// A position in a list, from 0.
    Index(usize),
}

impl At {
    /// The document itself.
    pub fn root() -> At {
        At::default()
    }

    /// The place under `key`.
    pub fn key(&self, key: impl Into<String>) -> At {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.into()));
        At(steps)
    }

    /// The place at `index`.
    pub fn index(&self, index: usize) -> At {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        At(steps)
    }

    /// The steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: At,
    /// A byte range inside the string value at `at`, when the problem is about a part of it (an expression).
    pub part: Option<std::ops::Range<usize>>,
    /// What: one sentence, lower-case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the line it stands on may be shown.
    pub excerpt: Excerpt,
}

/// Whether the line of a document on which a problem stands may be shown with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excerpt {
    /// It may.
    #[default]
    Shown,
    /// A secret stands on it.
    Withheld,
}

/// All problems found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// None so far.
    pub fn new() -> Problems {
        Problems::default()
    }

    /// Adds one; the hint can be set on what comes back.
    pub fn add(&mut self, at: &At, message: impl Into<String>) -> &mut Problem {
        self.0.push(Problem::new(at.clone(), message));
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// Takes what a parse or build step gave, or notes why it failed.
    pub fn take<T, E: fmt::Display>(&mut self, at: &At, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(at, error.to_string())).ok()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All, in the order found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }
}

impl Problem {
    /// A problem of the value at a place.
    pub fn new(at: At, message: impl Into<String>) -> Problem {
        Problem { at, part: None, message: message.into(), hint: None, excerpt: Excerpt::Shown }
    }

    /// Keeps the line it stands on from being shown: a secret stands there.
    pub fn withhold(&mut self) -> &mut Problem {
        self.excerpt = Excerpt::Withheld;
        self
    }

    /// Sets what to do about it.
    pub fn hint(&mut self, hint: impl Into<String>) -> &mut Problem {
        self.hint = Some(hint.into());
        self
    }

    /// Points at a part of the string value.
    pub fn part(&mut self, part: std::ops::Range<usize>) -> &mut Problem {
        self.part = Some(part);
        self
    }
}
