//! Functions, methods and `in`.
//!
//! Promise: what can be prepared is prepared at load: regexes are compiled, lists become sorted sets,
//! networks become ranges.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};

use super::check::{Checker, Typed, entry_of};
use super::constant::fold;
use super::parse::{Kind, Node};
use super::tree::{Bool, Int, Networks, Scalar, Text};
use crate::closest::closest;
use crate::value::Network;

const FUNCTIONS: &[&str] = &["has", "size", "int", "string", "hash", "lower", "cidr"];

const METHODS: &[&str] = &["startsWith", "endsWith", "contains", "matches", "lower", "size"];

/// Bytes of one compiled regex.
const LARGEST_REGEX: usize = 1 << 20;

impl Checker<'_> {
    pub(super) fn function(
        &mut self,
        name: &str,
        name_part: &Range<usize>,
        arguments: &[Node],
        part: &Range<usize>,
    ) -> Option<Typed> {
        if !FUNCTIONS.contains(&name) {
            return self.unknown_function(name, name_part, arguments);
        }
        let argument = self.single(name, arguments, part)?;
        let scalar = match name {
            "cidr" => return self.network(argument).map(|network| Typed::Networks(vec![network])),
            "has" => Scalar::Bool(self.has(argument)?),
            "size" => Scalar::Int(self.size(argument)?),
            "lower" => Scalar::Text(self.lower(argument)?),
            "hash" => Scalar::Int(match self.value(argument)? {
                Scalar::Address => Int::HashClient,
                Scalar::Text(text) => {
                    let constant = text.is_const();
                    self.fold_int(Int::Hash(text), constant, part)?
                }
                other => {
                    let hint = format!("hash(string({}))", self.source(&argument.part));
                    return self.fault(
                        &argument.part,
                        format!("hash takes a text, but this is {}", other.kind()),
                        hint,
                    );
                }
            }),
            "int" => Scalar::Int(match self.value(argument)? {
                Scalar::Int(int) => int,
                Scalar::Text(text) => {
                    let constant = text.is_const();
                    self.fold_int(Int::Parsed(text), constant, part)?
                }
                other => {
                    let message = format!("int takes a text, but this is {}", other.kind());
                    return self.fault(&argument.part, message, "");
                }
            }),
            _ => Scalar::Text(match self.value(argument)? {
                Scalar::Text(text) => text,
                Scalar::Int(Int::Const(value)) => Text::Const(value.to_string().into_bytes().into()),
                Scalar::Int(int) => Text::OfInt(Box::new(int)),
                Scalar::Bool(value) => Text::OfBool(Box::new(value)),
                Scalar::Address => Text::Fact(super::fact::Fact::Client),
            }),
        };
        Some(Typed::Scalar(scalar))
    }

    fn unknown_function(&mut self, name: &str, part: &Range<usize>, arguments: &[Node]) -> Option<Typed> {
        let hint = if METHODS.contains(&name) {
            let on = arguments.first().map_or("x", |on| self.source(&on.part));
            format!("it is a method: {on}.{name}(...)")
        } else if name == "now" {
            "routes have `expires`; expressions do not know the time".to_owned()
        } else {
            match closest(name, FUNCTIONS.iter().copied()) {
                Some(function) => format!("did you mean `{function}`?"),
                None => format!("there are: {}", FUNCTIONS.join(", ")),
            }
        };
        self.fault(part, format!("there is no function `{name}`"), hint)
    }

    pub(super) fn method(
        &mut self,
        on: &Node,
        name: &str,
        name_part: &Range<usize>,
        arguments: &[Node],
    ) -> Option<Scalar> {
        if !METHODS.contains(&name) {
            let hint = match closest(name, METHODS.iter().copied()) {
                Some(method) => format!("did you mean `{method}`?"),
                None if FUNCTIONS.contains(&name) => {
                    format!("it is a function: {name}({})", self.source(&on.part))
                }
                None => format!("there are: {}", METHODS.join(", ")),
            };
            return self.fault(name_part, format!("there is no method `{name}`"), hint);
        }
        if name == "lower" || name == "size" {
            if let Some(first) = arguments.first() {
                return self.fault(&first.part, format!("`{name}` takes nothing in its brackets"), "");
            }
            return Some(match name {
                "lower" => Scalar::Text(self.lower(on)?),
                _ => Scalar::Int(self.size(on)?),
            });
        }
        let argument = self.single(name, arguments, name_part);
        if name == "contains"
            && let Kind::Call { on: None, name, .. } = &on.kind
            && name == "cidr"
        {
            return self.network_contains(on, argument?).map(Scalar::Bool);
        }
        let text = self.text(on, &format!("what `{name}` is asked of"));
        let argument = argument?;
        if name == "matches" {
            let regex = self.regex(argument);
            let (text, regex) = (text?, regex?);
            let constant = text.is_const();
            return Some(Scalar::Bool(fold(Bool::Matches(text, regex), constant)));
        }
        let other = self.text(argument, &format!("what `{name}` looks for"));
        let (text, other) = (text?, other?);
        if let Text::Const(bytes) = &other {
            self.upper_case(&text, bytes, &argument.part)?;
        }
        let constant = text.is_const() && other.is_const();
        let pair = Box::new((text, other));
        let node = match name {
            "startsWith" => Bool::StartsWith(pair),
            "endsWith" => Bool::EndsWith(pair),
            _ => Bool::Contains(pair),
        };
        Some(Scalar::Bool(fold(node, constant)))
    }

    /// The only argument of a call.
    fn single<'n>(&mut self, name: &str, arguments: &'n [Node], part: &Range<usize>) -> Option<&'n Node> {
        match arguments {
            [argument] => Some(argument),
            [] => self.fault(part, format!("`{name}` takes one argument, but here is none"), ""),
            [_, second, ..] => {
                self.fault(&second.part, format!("`{name}` takes one argument, but here are more"), "")
            }
        }
    }

    fn has(&mut self, argument: &Node) -> Option<Bool> {
        let typed = self.check(argument)?;
        let fact = match &typed {
            Typed::Scalar(scalar) => entry_of(scalar),
            _ => None,
        };
        match fact {
            Some(fact) => Some(Bool::Present(fact.clone())),
            None => self.fault(
                &argument.part,
                "has takes an entry of request.headers, request.query, request.cookies or params",
                "for instance has(request.headers[\"x-beta\"])",
            ),
        }
    }

    fn size(&mut self, of: &Node) -> Option<Int> {
        let text = self.text(of, "what `size` counts")?;
        let constant = text.is_const();
        self.fold_int(Int::Size(text), constant, &of.part)
    }

    fn lower(&mut self, of: &Node) -> Option<Text> {
        Some(match self.text(of, "what `lower` changes")? {
            Text::Const(bytes) => Text::Const(bytes.to_ascii_lowercase().into()),
            Text::Lower(inner) => Text::Lower(inner),
            other => Text::Lower(Box::new(other)),
        })
    }

    fn regex(&mut self, argument: &Node) -> Option<Regex> {
        let Kind::Text(pattern) = &argument.kind else {
            let hint = "for instance request.path.matches(r\"^/v[0-9]+/\")";
            return self.fault(
                &argument.part,
                "a regex must be a text in quotes: it is compiled at load",
                hint,
            );
        };
        match RegexBuilder::new(pattern).size_limit(LARGEST_REGEX).build() {
            Ok(regex) => Some(regex),
            Err(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.fault(
                    &argument.part,
                    format!("this regex is not valid: {}", last.trim_end_matches('.')),
                    "",
                )
            }
        }
    }

    fn network(&mut self, argument: &Node) -> Option<Network> {
        match &argument.kind {
            Kind::Text(text) => self.network_of(text, &argument.part),
            _ => {
                let hint = "for instance cidr(\"10.0.0.0/8\")";
                self.fault(&argument.part, "a network must be a text in quotes", hint)
            }
        }
    }

    fn network_of(&mut self, text: &str, part: &Range<usize>) -> Option<Network> {
        match text.parse() {
            Ok(network) => Some(network),
            Err(_) => {
                let hint = "write \"192.0.2.7\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
                self.fault(part, format!("`{}` is not an address or a network", text.escape_debug()), hint)
            }
        }
    }

    fn network_contains(&mut self, on: &Node, argument: &Node) -> Option<Bool> {
        let networks = self.check(on);
        match (networks?, self.value(argument)?) {
            (Typed::Networks(networks), Scalar::Address) => Some(Bool::ClientIn(Networks::new(&networks))),
            (_, other) => {
                let message = format!("a network contains addresses, but this is {}", other.kind());
                self.fault(&argument.part, message, "the address there is: client.address")
            }
        }
    }

    pub(super) fn membership(&mut self, left: &Node, right: &Node) -> Option<Bool> {
        let found = self.value(left);
        let (found, within) = (found, self.check(right)?);
        match (found?, within) {
            (Scalar::Address, Typed::Networks(networks)) => Some(Bool::ClientIn(Networks::new(&networks))),
            (Scalar::Address, Typed::List(items)) => self.networks(items),
            (Scalar::Text(text), Typed::List(items)) => self.texts(text, items),
            (Scalar::Int(int), Typed::List(items)) => self.ints(int, items),
            (Scalar::Text(Text::Const(name)), Typed::Map(map)) => {
                let name = String::from_utf8_lossy(&name).into_owned();
                self.fact_of(map, &name, &left.part).map(Bool::Present)
            }
            (Scalar::Text(_), Typed::Map(_)) => {
                let hint = "for instance \"x-beta\" in request.headers";
                self.fault(&left.part, "the name of an entry must be a text in quotes", hint)
            }
            (Scalar::Text(_), Typed::Scalar(Scalar::Text(_))) => {
                let hint = format!("{}.contains({})", self.source(&right.part), self.source(&left.part));
                self.fault(&right.part, "a text does not stand after `in`", hint)
            }
            (found, Typed::List(_) | Typed::Networks(_) | Typed::Map(_)) => {
                self.fault(&left.part, format!("{} cannot be in this", found.kind()), "")
            }
            _ => {
                let hint = "for instance request.method in [\"GET\", \"HEAD\"]";
                self.fault(&right.part, "after `in` stands a list, a network, or values by name", hint)
            }
        }
    }

    fn networks(&mut self, items: Vec<(Typed, Range<usize>)>) -> Option<Bool> {
        let checked: Vec<_> = items
            .into_iter()
            .map(|(item, part)| match item {
                Typed::Networks(networks) => Some(networks),
                Typed::Scalar(Scalar::Text(Text::Const(text))) => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    self.network_of(&text, &part).map(|network| vec![network])
                }
                _ => self.fault(&part, "this list holds networks", "for instance \"10.0.0.0/8\""),
            })
            .collect();
        let networks: Vec<Vec<Network>> = checked.into_iter().collect::<Option<_>>()?;
        Some(Bool::ClientIn(Networks::new(&networks.concat())))
    }

    fn texts(&mut self, text: Text, items: Vec<(Typed, Range<usize>)>) -> Option<Bool> {
        let checked: Vec<_> = items
            .into_iter()
            .map(|(item, part)| match item {
                Typed::Scalar(Scalar::Text(Text::Const(bytes))) => {
                    self.upper_case(&text, &bytes, &part).map(|()| bytes)
                }
                _ => self.fault(&part, "this list holds texts in quotes", ""),
            })
            .collect();
        let mut set: Vec<Box<[u8]>> = checked.into_iter().collect::<Option<_>>()?;
        set.sort_unstable();
        set.dedup();
        let constant = text.is_const() || set.is_empty();
        Some(fold(Bool::TextIn(text, set.into()), constant))
    }

    fn ints(&mut self, int: Int, items: Vec<(Typed, Range<usize>)>) -> Option<Bool> {
        let checked: Vec<_> = items
            .into_iter()
            .map(|(item, part)| match item {
                Typed::Scalar(Scalar::Int(Int::Const(value))) => Some(value),
                _ => self.fault(&part, "this list holds ints", ""),
            })
            .collect();
        let mut set: Vec<i64> = checked.into_iter().collect::<Option<_>>()?;
        set.sort_unstable();
        set.dedup();
        let constant = int.is_const() || set.is_empty();
        Some(fold(Bool::IntIn(int, set.into()), constant))
    }
}
