//! Paths that an authenticating filter passes over.
//!
//! Promise: they are compared with the normalised path, which the route was chosen by: no spelling of another path
//! (`/public/../inside`, `%2e`) becomes an exempt one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exchange::Exchange;
use crate::problem::{At, Problems};

/// Paths for which nobody is asked for credentials: "/login", or "/public/*" for all that begins so. They are
/// compared with the path that routes match, before any rewrite.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[serde(transparent)]
pub struct Except(Vec<String>);

impl Except {
    /// Whether none is given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is wrong with them.
    pub fn check(&self, at: &At, problems: &mut Problems) {
        for (index, path) in self.0.iter().enumerate() {
            let fixed = path.strip_suffix('*').unwrap_or(path);
            if !path.starts_with('/') || fixed.contains(['*', '?', '#']) {
                problems
                    .add(&at.index(index), format!("`{path}` is not a path, or the beginning of one"))
                    .hint("write \"/login\", or \"/public/*\" for all that begins so");
            }
        }
    }

    /// Whether the exchange's path is one of them.
    pub fn covers(&self, exchange: &Exchange) -> bool {
        self.0.iter().any(|path| match path.strip_suffix('*') {
            Some(beginning) => exchange.path.starts_with(beginning),
            None => exchange.path == *path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::fixture;

    #[test]
    fn whole_paths_and_beginnings_are_exempt() {
        let except = Except(vec!["/login".to_owned(), "/public/*".to_owned()]);
        for (path, expected) in [
            ("/login", true),
            ("/login/", false),
            ("/loginx", false),
            ("/public/", true),
            ("/public/a/b", true),
            ("/public", false),
            ("/Public/a", false),
        ] {
            assert_eq!(except.covers(&fixture::exchange(path)), expected, "{path}");
        }
        assert!(!Except::default().covers(&fixture::exchange("/")));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let mut problems = Problems::new();
        let list = ["/a", "/a/*", "/*", "a", "", "*", "/a/*/b", "/a?b"].map(str::to_owned);
        Except(list.into()).check(&At::root().key("except"), &mut problems);
        let places: Vec<String> = problems.iter().map(|problem| problem.at.to_string()).collect();
        assert_eq!(places, ["except[3]", "except[4]", "except[5]", "except[6]", "except[7]"]);
    }
}
