//! Constant parts are computed at load.
//!
//! Promise: by the same code that evaluates at run time, so that folding cannot change a meaning. Each node
//! looks at its own children only, which are folded already: the whole costs one evaluation.

use std::net::IpAddr;
use std::ops::Range;

use sluice_http::RequestHead;

use super::check::Checker;
use super::tree::{Bool, Int, Text};
use crate::facts::{Facts, Params, Scheme};

impl Checker<'_> {
    /// The value of a node over constants, or the node; a fault when it can never have a value.
    pub(super) fn fold_int(&mut self, int: Int, constant: bool, part: &Range<usize>) -> Option<Int> {
        if !constant {
            return Some(int);
        }
        match without_request(|facts| int.number(facts)) {
            Some(value) => Some(Int::Const(value)),
            None => {
                self.fault(part, "this has no result", "it divides by zero, overflows or is not a number")
            }
        }
    }
}

impl Bool {
    pub(super) fn is_const(&self) -> bool {
        matches!(self, Bool::Const(_))
    }
}

impl Text {
    pub(super) fn is_const(&self) -> bool {
        matches!(self, Text::Const(_))
    }
}

impl Int {
    pub(super) fn is_const(&self) -> bool {
        matches!(self, Int::Const(_))
    }
}

/// The value of a node over constants, or the node.
pub(super) fn fold(node: Bool, constant: bool) -> Bool {
    match constant {
        true => Bool::Const(without_request(|facts| node.holds(facts))),
        false => node,
    }
}

/// `node`, or its opposite.
pub(super) fn negated_if(negated: bool, node: Bool) -> Bool {
    match node {
        Bool::Const(value) => Bool::Const(value != negated),
        node if negated => Bool::Not(Box::new(node)),
        node => node,
    }
}

/// Evaluates a node that asks nothing of the request.
fn without_request<T>(evaluate: impl FnOnce(&Facts<'_>) -> T) -> T {
    let head = RequestHead::new("GET", "/");
    evaluate(&Facts {
        head: &head,
        path: "/",
        client: IpAddr::from([0, 0, 0, 0]),
        scheme: Scheme::Http,
        listener: "",
        tls: None,
        request_id: "",
        route: "",
        params: &Params::default(),
        identity: Default::default(),
    })
}
