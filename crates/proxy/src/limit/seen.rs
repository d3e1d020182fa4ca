//! Which limits of a document have been seen while it is loaded: so that equal ones on a route are told apart, and
//! those of one name agree.
//!
//! Promise: what tells a limit from its equals is its number among them alone, so it stays what it is when something
//! else of its route changes.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::problem::{At, Problems};

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often, by route and what defines a limit.
    times: RefCell<HashMap<(String, String), u32>>,
    /// What was said under a name.
    said: RefCell<HashMap<String, String>>,
}

impl Seen {
    /// What defines a limit of a route that has no name: with its number, when others before it were the same.
    pub fn apart(&self, route: &str, identity: String) -> String {
        match self.count(route, &identity) {
            1 => identity,
            number => format!("{identity}\nnumber {number}"),
        }
    }

    /// Takes note of a limit with a name. Twice on a route it would count each request twice: a problem.
    pub fn once(&self, route: &str, identity: &str, at: &At, problems: &mut Problems) {
        if self.count(route, identity) > 1 {
            problems
                .add(at, "this limit stands on the route already: it would count each request twice")
                .hint("give it another name, or none: then it is a limit of its own");
        }
    }

    /// Takes note of what is said of a limit with a name: all filters of that name say the same, or it is a problem.
    pub fn agree(&self, name: &str, what: &str, at: &At, problems: &mut Problems) {
        let mut said = self.said.borrow_mut();
        let first = said.entry(name.to_owned()).or_insert_with(|| what.to_owned());
        if *first != what {
            problems
                .add(at, format!("another filter of the name `{name}` has {first}, and this one {what}"))
                .hint("filters of one name have one limit: write the same, or give it another name");
        }
    }

    fn count(&self, route: &str, identity: &str) -> u32 {
        let mut times = self.times.borrow_mut();
        let times = times.entry((route.to_owned(), identity.to_owned())).or_insert(0);
        *times += 1;
        *times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_limits_of_a_route_are_numbered_and_those_of_others_are_not() {
        let seen = Seen::default();
        let apart = |route, identity: &str| seen.apart(route, identity.to_owned());
        assert_eq!([apart("a", "x"), apart("a", "y"), apart("a", "x")], ["x", "y", "x\nnumber 2"]);
        assert_eq!(apart("b", "x"), "x");
    }

    #[test]
    fn a_name_is_used_once_on_a_route_and_says_one_thing() {
        let (seen, mut problems) = (Seen::default(), Problems::new());
        let at = At::root().key("name");
        seen.once("a", "n", &at, &mut problems);
        seen.once("b", "n", &at, &mut problems);
        seen.agree("n", "a limit of 5", &at, &mut problems);
        seen.agree("n", "a limit of 5", &at, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        seen.once("b", "n", &at, &mut problems);
        seen.agree("n", "a limit of 6", &at, &mut problems);
        assert_eq!(problems.iter().count(), 2);
    }
}
