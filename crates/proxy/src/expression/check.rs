//! Syntax tree to compiled tree: types, names and constants.
//!
//! Promise: goes on after a fault wherever the rest still has a meaning, so that one look shows all of
//! them; what it gives needs no further checks when it runs. Constant parts are computed here.

use std::net::IpAddr;
use std::ops::Range;

use super::Fault;
use super::constant::{fold, negated_if};
use super::fact::Fact;
use super::names::{Map, Place};
use super::parse::{Kind, Node};
use super::tree::{Bool, Int, Networks, Operator, Order, Scalar, Text};
use crate::value::Network;

/// What an expression can stand for while it is checked; only a [`Scalar`] is left in the end.
pub(super) enum Typed {
    Scalar(Scalar),
    /// `request`, `client`: something with members.
    Place(Place),
    Map(Map),
    List(Vec<(Typed, Range<usize>)>),
    Networks(Vec<Network>),
}

/// The state of one check.
pub(super) struct Checker<'t> {
    pub(super) text: &'t str,
    pub(super) faults: Vec<Fault>,
    pub(super) moment: super::Moment,
}

impl Scalar {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Scalar::Bool(_) => "a bool",
            Scalar::Text(_) => "a text",
            Scalar::Int(_) => "an int",
            Scalar::Address => "an address",
        }
    }
}

impl Checker<'_> {
    /// Notes a fault; an empty hint is none.
    pub(super) fn fault<T>(
        &mut self,
        part: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Option<T> {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self.faults.push(Fault { part: part.clone(), message: message.into(), hint });
        None
    }

    /// How a part is written.
    pub(super) fn source(&self, part: &Range<usize>) -> &str {
        self.text.get(part.clone()).unwrap_or_default()
    }

    /// A node that must have a value of its own.
    pub(super) fn value(&mut self, node: &Node) -> Option<Scalar> {
        let source = self.source(&node.part).to_owned();
        match self.check(node)? {
            Typed::Scalar(scalar) => Some(scalar),
            Typed::Place(place) => match place.value() {
                Some(fact) => Some(Scalar::Text(Text::Fact(fact))),
                None => {
                    let hint = place.hint();
                    self.fault(&node.part, format!("`{source}` has no value of its own"), hint)
                }
            },
            Typed::Map(_) => {
                let hint = format!("take one of its entries: {source}[\"name\"]");
                self.fault(&node.part, format!("`{source}` holds many values"), hint)
            }
            Typed::List(_) => self.fault(
                &node.part,
                "a list has no value of its own",
                "it stands after `in`: x in [\"a\", \"b\"]",
            ),
            Typed::Networks(_) => self.fault(
                &node.part,
                "a network has no value of its own",
                "ask whether it holds an address: client.address in cidr(\"10.0.0.0/8\")",
            ),
        }
    }

    pub(super) fn bool(&mut self, node: &Node, what: &str) -> Option<Bool> {
        match self.value(node)? {
            Scalar::Bool(found) => Some(found),
            other => {
                let source = self.source(&node.part);
                let hint = match other {
                    Scalar::Text(Text::Fact(_)) => format!("compare it: {source} == \"...\""),
                    Scalar::Int(_) => format!("compare it: {source} > 0"),
                    Scalar::Address => format!("ask for networks: {source} in [\"10.0.0.0/8\"]"),
                    _ => String::new(),
                };
                self.fault(&node.part, format!("{what} must be a bool, but this is {}", other.kind()), hint)
            }
        }
    }

    pub(super) fn text(&mut self, node: &Node, what: &str) -> Option<Text> {
        match self.value(node)? {
            Scalar::Text(found) => Some(found),
            other => {
                let hint = format!("string({}) is its text", self.source(&node.part));
                self.fault(&node.part, format!("{what} must be a text, but this is {}", other.kind()), hint)
            }
        }
    }

    fn int(&mut self, node: &Node, what: &str) -> Option<Int> {
        match self.value(node)? {
            Scalar::Int(found) => Some(found),
            Scalar::Text(_) => {
                let hint = format!("int({}) is its number", self.source(&node.part));
                self.fault(&node.part, format!("{what} must be an int, but this is a text"), hint)
            }
            other => {
                self.fault(&node.part, format!("{what} must be an int, but this is {}", other.kind()), "")
            }
        }
    }

    pub(super) fn check(&mut self, node: &Node) -> Option<Typed> {
        let scalar = match &node.kind {
            Kind::Bool(value) => Scalar::Bool(Bool::Const(*value)),
            Kind::Text(value) => Scalar::Text(Text::Const(value.as_bytes().into())),
            Kind::Int(value) => Scalar::Int(Int::Const(*value)),
            Kind::Name(name) => return self.name(name, &node.part),
            Kind::Member { of, name, name_part } => return self.member(of, name, name_part),
            Kind::Entry(pair) => return self.entry(&pair.0, &pair.1),
            Kind::Call { on: None, name, name_part, arguments } => {
                return self.function(name, name_part, arguments, &node.part);
            }
            Kind::Call { on: Some(on), name, name_part, arguments } => {
                return self.method(on, name, name_part, arguments).map(Typed::Scalar);
            }
            Kind::List(items) => {
                let typed: Vec<_> =
                    items.iter().map(|item| Some((self.check(item)?, item.part.clone()))).collect();
                return typed.into_iter().collect::<Option<_>>().map(Typed::List);
            }
            Kind::Not(inner) => match self.bool(inner, "what `!` negates")? {
                Bool::Const(value) => Scalar::Bool(Bool::Const(!value)),
                Bool::Not(twice) => Scalar::Bool(*twice),
                other => Scalar::Bool(Bool::Not(Box::new(other))),
            },
            Kind::Negated(inner) => {
                let inner = self.int(inner, "what `-` negates")?;
                let constant = inner.is_const();
                Scalar::Int(self.fold_int(Int::Negated(Box::new(inner)), constant, &node.part)?)
            }
            Kind::All(terms) => Scalar::Bool(self.chain(terms, "&&", false, Bool::All)?),
            Kind::Any(terms) => Scalar::Bool(self.chain(terms, "||", true, Bool::Any)?),
            Kind::Pair { sign: "in", pair, .. } => Scalar::Bool(self.membership(&pair.0, &pair.1)?),
            Kind::Pair { sign, sign_part, pair } => match Order::of(sign) {
                Some(order) => Scalar::Bool(self.comparison(order, sign_part, pair, &node.part)?),
                None => Scalar::Int(self.arithmetic(sign, sign_part, pair, &node.part)?),
            },
            Kind::If(parts) => self.choice(parts, &node.part)?,
        };
        Some(Typed::Scalar(scalar))
    }

    /// Terms of `&&` (`decides` false) or `||` (`decides` true): a constant that decides is the result, one
    /// that does not is dropped.
    fn chain(
        &mut self,
        terms: &[Node],
        sign: &str,
        decides: bool,
        join: fn(Box<[Bool]>) -> Bool,
    ) -> Option<Bool> {
        let what = format!("each side of `{sign}`");
        let checked: Vec<_> = terms.iter().map(|term| self.bool(term, &what)).collect();
        let mut kept: Vec<Bool> = Vec::with_capacity(checked.len());
        let mut decided = false;
        for term in checked {
            match term? {
                Bool::Const(value) => decided |= value == decides,
                other => kept.push(other),
            }
        }
        Some(match kept.len() {
            _ if decided => Bool::Const(decides),
            0 => Bool::Const(!decides),
            1 => kept.remove(0),
            _ => join(kept.into()),
        })
    }

    fn choice(&mut self, parts: &(Node, Node, Node), part: &Range<usize>) -> Option<Scalar> {
        let condition = self.bool(&parts.0, "the condition of `?`");
        let (yes, no) = (self.value(&parts.1), self.value(&parts.2));
        let (condition, yes, no) = (condition?, yes?, no?);
        let kinds = (yes.kind(), no.kind());
        Some(match (condition, yes, no) {
            (Bool::Const(value), yes, no) if kinds.0 == kinds.1 => {
                if value {
                    yes
                } else {
                    no
                }
            }
            (c, Scalar::Bool(a), Scalar::Bool(b)) => Scalar::Bool(Bool::If(Box::new((c, a, b)))),
            (c, Scalar::Text(a), Scalar::Text(b)) => Scalar::Text(Text::If(Box::new((c, a, b)))),
            (c, Scalar::Int(a), Scalar::Int(b)) => Scalar::Int(Int::If(Box::new((c, a, b)))),
            (_, Scalar::Address, Scalar::Address) => Scalar::Address,
            _ => {
                let message =
                    format!("both values of `?` need one type, but these are {} and {}", kinds.0, kinds.1);
                return self.fault(part, message, "string(x) makes a text of each");
            }
        })
    }

    fn arithmetic(
        &mut self,
        sign: &str,
        sign_part: &Range<usize>,
        pair: &(Node, Node),
        part: &Range<usize>,
    ) -> Option<Int> {
        let left = self.value(&pair.0);
        if sign == "-"
            && let Kind::Name(_) = &pair.1.kind
        {
            let Some(left) = &left else { return None };
            if let (Some(_), Kind::Member { of, name_part, .. }) = (entry_of(left), &pair.0.kind) {
                return self.dashed_name(of, name_part, part);
            }
        }
        if sign == "+" && matches!(left, Some(Scalar::Text(_))) {
            self.value(&pair.1);
            return self.fault(
                sign_part,
                "texts cannot be joined",
                "compare their parts one by one with `&&`",
            );
        }
        let what = format!("each side of `{sign}`");
        let left = match left {
            Some(Scalar::Int(left)) => Some(left),
            Some(_) => self.int(&pair.0, &what),
            None => None,
        };
        let right = self.int(&pair.1, &what);
        let (left, right, operator) = (left?, right?, Operator::of(sign)?);
        let constant = left.is_const() && right.is_const();
        self.fold_int(Int::Arithmetic(operator, Box::new((left, right))), constant, part)
    }

    /// `request.headers.x-beta` is read as x minus beta: say so, not that there is no `beta`.
    fn dashed_name(&mut self, of: &Node, name_part: &Range<usize>, part: &Range<usize>) -> Option<Int> {
        let rest = self.text.get(name_part.start..).unwrap_or_default();
        let end =
            rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
        let hint =
            format!("a name with a dash stands in brackets: {}[\"{}\"]", self.source(&of.part), &rest[..end]);
        self.fault(part, "`-` subtracts ints", hint)
    }

    fn comparison(
        &mut self,
        order: Order,
        sign_part: &Range<usize>,
        pair: &(Node, Node),
        part: &Range<usize>,
    ) -> Option<Bool> {
        let (left, right) = (self.value(&pair.0), self.value(&pair.1));
        let (left, right) = (left?, right?);
        match (left, right) {
            (Scalar::Text(left), Scalar::Text(right)) => {
                for (text, other, part) in [(&left, &right, &pair.1.part), (&right, &left, &pair.0.part)] {
                    if let (true, Text::Const(bytes)) = (order.is_equality(), other) {
                        self.upper_case(text, bytes, part)?;
                    }
                }
                let constant = left.is_const() && right.is_const();
                Some(fold(Bool::Texts(order, Box::new((left, right))), constant))
            }
            (Scalar::Int(left), Scalar::Int(right)) => {
                let constant = left.is_const() && right.is_const();
                Some(fold(Bool::Ints(order, Box::new((left, right))), constant))
            }
            (Scalar::Bool(left), Scalar::Bool(right)) if order.is_equality() => {
                let constant = left.is_const() && right.is_const();
                let same = fold(Bool::Same(Box::new((left, right))), constant);
                Some(negated_if(order == Order::Different, same))
            }
            (Scalar::Address, Scalar::Address) if order.is_equality() => {
                Some(Bool::Const(order == Order::Equal))
            }
            (Scalar::Address, Scalar::Text(Text::Const(text))) if order.is_equality() => {
                self.same_address(order, &text, &pair.1.part)
            }
            (Scalar::Text(Text::Const(text)), Scalar::Address) if order.is_equality() => {
                self.same_address(order, &text, &pair.0.part)
            }
            (left, right) if left.kind() == right.kind() => {
                let message = format!("{} has no order", left.kind());
                self.fault(sign_part, message, "compare it with `==` or `!=`")
            }
            (left, right) => self.mismatch(&left, &right, pair, part),
        }
    }

    fn mismatch(
        &mut self,
        left: &Scalar,
        right: &Scalar,
        pair: &(Node, Node),
        part: &Range<usize>,
    ) -> Option<Bool> {
        let (a, b) = (self.source(&pair.0.part), self.source(&pair.1.part));
        let hint = match (left, right) {
            (Scalar::Text(_), Scalar::Int(Int::Const(_))) => {
                format!("write \"{b}\" to compare texts, or int({a}) to compare numbers")
            }
            (Scalar::Text(_), Scalar::Int(_)) => format!("int({a}) is its number"),
            (Scalar::Int(_), Scalar::Text(_)) => format!("int({b}) is its number"),
            (Scalar::Text(_), Scalar::Bool(_)) => format!("write \"{b}\" to compare texts"),
            (Scalar::Address, _) => format!("string({a}) is its text"),
            (_, Scalar::Address) => format!("string({b}) is its text"),
            _ => String::new(),
        };
        self.fault(part, format!("{} cannot be compared with {}", left.kind(), right.kind()), hint)
    }

    fn same_address(&mut self, order: Order, text: &[u8], part: &Range<usize>) -> Option<Bool> {
        let text = String::from_utf8_lossy(text);
        let Ok(address) = text.parse::<IpAddr>() else {
            let hint = match text.parse::<Network>() {
                Ok(_) => format!("write `in cidr(\"{text}\")` for a network"),
                Err(_) => "for instance \"192.0.2.7\" or \"2001:db8::7\"".to_owned(),
            };
            return self.fault(part, format!("`{text}` is not an address"), hint);
        };
        let network = Network(ipnet::IpNet::from(address.to_canonical()));
        Some(negated_if(order == Order::Different, Bool::ClientIn(Networks::new(&[network]))))
    }

    /// A text in lower case never equals or holds a constant with upper-case letters: nobody means that.
    pub(super) fn upper_case(&mut self, text: &Text, bytes: &[u8], part: &Range<usize>) -> Option<()> {
        let Text::Lower(_) = text else { return Some(()) };
        if !bytes.iter().any(u8::is_ascii_uppercase) {
            return Some(());
        }
        let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
        let hint = format!("write \"{}\"", lower.escape_default());
        self.fault(part, "this has upper-case letters, but is compared with a text in lower case", hint)
    }
}

/// The fact a text is, when it is one that can be absent.
pub(super) fn entry_of(scalar: &Scalar) -> Option<&Fact> {
    match scalar {
        Scalar::Text(Text::Fact(
            fact @ (Fact::Header(_)
            | Fact::Parameter(_)
            | Fact::Cookie(_)
            | Fact::Param(_)
            | Fact::Group(_)
            | Fact::Claim(_)
            | Fact::Consumer),
        )) => Some(fact),
        _ => None,
    }
}
