//! Tokens to a syntax tree: a Pratt parser.
//!
//! Promise: the tree is never deeper than [`DEEPEST`], however the text is nested or chained, so that
//! checking, evaluating and dropping it may recurse. Stops at the first fault: what follows a wrong bracket
//! is guesswork.

use std::ops::Range;

use super::Fault;
use super::lex::{Kind as TokenKind, Token, tokens};

/// Levels of a tree.
pub(super) const DEEPEST: usize = 64;

/// Bytes of a text.
pub(super) const LONGEST: usize = 64 << 10;

/// A node of the syntax tree.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) part: Range<usize>,
    depth: usize,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Kind {
    Bool(bool),
    Text(String),
    Int(i64),
    Name(String),
    /// `of.name`
    Member {
        of: Box<Node>,
        name: String,
        name_part: Range<usize>,
    },
    /// `of[key]`
    Entry(Box<(Node, Node)>),
    /// `name(arguments)` or `on.name(arguments)`
    Call {
        on: Option<Box<Node>>,
        name: String,
        name_part: Range<usize>,
        arguments: Vec<Node>,
    },
    List(Vec<Node>),
    Not(Box<Node>),
    Negated(Box<Node>),
    /// Terms joined by `&&`
    All(Vec<Node>),
    /// Terms joined by `||`
    Any(Vec<Node>),
    /// Two operands of another operator
    Pair {
        sign: &'static str,
        sign_part: Range<usize>,
        pair: Box<(Node, Node)>,
    },
    /// `condition ? yes : no`
    If(Box<(Node, Node, Node)>),
}

type Parsed<T = Node> = Result<T, Fault>;

struct Parser<'t> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'t>>>,
    nesting: usize,
    /// Where the last token taken ended.
    end: usize,
}

/// How tightly a binary operator binds; CEL's precedence.
fn binding(sign: &str) -> Option<u8> {
    Some(match sign {
        "||" => 1,
        "&&" => 2,
        "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" => 3,
        "+" | "-" => 4,
        "*" | "/" | "%" => 5,
        _ => return None,
    })
}

/// The syntax tree of `text`.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Fault>> {
    if text.len() > LONGEST {
        let message = format!("this expression is longer than {} KiB", LONGEST >> 10);
        return Err(vec![Fault { part: text.floor_char_boundary(LONGEST)..text.len(), message, hint: None }]);
    }
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), nesting: 0, end: 0 };
    parser.whole().map_err(|fault| vec![fault])
}

impl<'t> Parser<'t> {
    fn whole(&mut self) -> Parsed {
        if self.peek() == &TokenKind::End {
            let hint = "for instance `request.path == \"/\"`";
            return Err(fault(self.next().part, "there is no expression", hint));
        }
        let node = self.expression()?;
        let after = self.next();
        match after.kind {
            TokenKind::End => Ok(node),
            TokenKind::Name("and") => Err(fault(after.part, "`and` is not an operator", "write `&&`")),
            TokenKind::Name("or") => Err(fault(after.part, "`or` is not an operator", "write `||`")),
            TokenKind::Sign(")" | "]") => {
                let message = format!("{} closes nothing", spelled(&after.kind));
                Err(Fault { part: after.part, message, hint: None })
            }
            _ => {
                let message = format!("an operator was expected, but here is {}", spelled(&after.kind));
                Err(fault(after.part, message, "join conditions with `&&` or `||`"))
            }
        }
    }

    fn peek(&mut self) -> &TokenKind<'t> {
        self.tokens.peek().map_or(&TokenKind::End, |token| &token.kind)
    }

    fn next(&mut self) -> Token<'t> {
        let end = self.end;
        let token = self.tokens.next().unwrap_or(Token { kind: TokenKind::End, part: end..end });
        self.end = token.part.end;
        token
    }

    /// Takes the next token if it is this sign; gives its range.
    fn take(&mut self, sign: &str) -> Option<Range<usize>> {
        matches!(self.peek(), TokenKind::Sign(found) if *found == sign).then(|| self.next().part)
    }

    fn expect(&mut self, sign: &str, what: &str) -> Parsed<Range<usize>> {
        if let Some(part) = self.take(sign) {
            return Ok(part);
        }
        let found = self.next();
        let message = format!("`{sign}` was expected {what}, but here is {}", spelled(&found.kind));
        Err(Fault { part: found.part, message, hint: None })
    }

    /// Runs a step one level deeper in the text.
    fn deeper<T>(&mut self, step: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting == DEEPEST {
            return Err(too_deep(self.next().part));
        }
        self.nesting += 1;
        let result = step(self);
        self.nesting -= 1;
        result
    }

    fn expression(&mut self) -> Parsed {
        let condition = self.operators(1)?;
        if self.take("?").is_none() {
            return Ok(condition);
        }
        let yes = self.deeper(Self::expression)?;
        self.expect(":", "between the two values of `?`")?;
        let no = self.deeper(Self::expression)?;
        let part = condition.part.start..no.part.end;
        node(Kind::If(Box::new((condition, yes, no))), part)
    }

    /// Operands joined by operators that bind at least as tightly as `least`; all associate to the left.
    fn operators(&mut self, least: u8) -> Parsed {
        let mut left = self.unary()?;
        while let TokenKind::Sign(sign) = *self.peek() {
            let Some(binds) = binding(sign).filter(|binds| *binds >= least) else { break };
            let sign_part = self.next().part;
            let right = self.operators(binds + 1)?;
            left = join(sign, sign_part, left, right)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        if let Some(sign) = self.take("!") {
            let inner = self.deeper(Self::unary)?;
            let part = sign.start..inner.part.end;
            return node(Kind::Not(Box::new(inner)), part);
        }
        let Some(sign) = self.take("-") else { return self.postfix() };
        if let TokenKind::Int(value) = *self.peek() {
            let literal = self.next().part;
            let value = i64::try_from(-i128::from(value)).map_err(|_| {
                fault(literal.clone(), "this number is too small", "ints have 64 bits with a sign")
            })?;
            let literal = Node { kind: Kind::Int(value), part: sign.start..literal.end, depth: 1 };
            return self.suffixes(literal);
        }
        let inner = self.deeper(Self::unary)?;
        let part = sign.start..inner.part.end;
        node(Kind::Negated(Box::new(inner)), part)
    }

    fn postfix(&mut self) -> Parsed {
        let operand = self.operand()?;
        self.suffixes(operand)
    }

    fn suffixes(&mut self, mut left: Node) -> Parsed {
        loop {
            let start = left.part.start;
            if self.take(".").is_some() {
                let (name, name_part) = self.member_name()?;
                let of = Box::new(left);
                let kind = match self.take("(") {
                    Some(_) => {
                        let arguments = self.deeper(|parser| parser.items(")", "after the arguments"))?;
                        Kind::Call { on: Some(of), name, name_part, arguments }
                    }
                    None => Kind::Member { of, name, name_part },
                };
                left = node(kind, start..self.end)?;
            } else if self.take("[").is_some() {
                let key = self.deeper(Self::expression)?;
                self.expect("]", "after the key")?;
                left = node(Kind::Entry(Box::new((left, key))), start..self.end)?;
            } else {
                return Ok(left);
            }
        }
    }

    fn member_name(&mut self) -> Parsed<(String, Range<usize>)> {
        let token = self.next();
        match token.kind {
            TokenKind::Name(name) => Ok((name.to_owned(), token.part)),
            // A keyword is an ordinary name after a dot.
            TokenKind::Sign("in") => Ok(("in".to_owned(), token.part)),
            other => {
                let message = format!("a name was expected after `.`, but here is {}", spelled(&other));
                Err(fault(token.part, message, "other names stand in brackets: request.headers[\"x-beta\"]"))
            }
        }
    }

    fn operand(&mut self) -> Parsed {
        let token = self.next();
        let part = token.part;
        let kind = match token.kind {
            TokenKind::Text(text) => Kind::Text(text),
            TokenKind::Int(value) => Kind::Int(i64::try_from(value).map_err(|_| {
                fault(part.clone(), "this number is too large", "ints have 64 bits with a sign")
            })?),
            TokenKind::Name("true") => Kind::Bool(true),
            TokenKind::Name("false") => Kind::Bool(false),
            TokenKind::Name("not") => return Err(fault(part, "`not` is not an operator", "write `!`")),
            TokenKind::Name(name) if self.take("(").is_some() => {
                let arguments = self.deeper(|parser| parser.items(")", "after the arguments"))?;
                let name = name.to_owned();
                return node(
                    Kind::Call { on: None, name, name_part: part.clone(), arguments },
                    part.start..self.end,
                );
            }
            TokenKind::Name(name) => Kind::Name(name.to_owned()),
            TokenKind::Sign("[") => {
                let items = self.deeper(|parser| parser.items("]", "after the list"))?;
                return node(Kind::List(items), part.start..self.end);
            }
            TokenKind::Sign("(") => {
                let inner = self.deeper(Self::expression)?;
                let close = self.expect(")", "to close this bracket")?;
                return Ok(Node { part: part.start..close.end, ..inner });
            }
            other => {
                let message = format!("a value was expected, but here is {}", spelled(&other));
                return Err(Fault { part, message, hint: None });
            }
        };
        Ok(Node { kind, part, depth: 1 })
    }

    /// Expressions separated by commas up to `close`; a comma may stand after the last one.
    fn items(&mut self, close: &str, what: &str) -> Parsed<Vec<Node>> {
        let mut items = Vec::new();
        while self.take(close).is_none() {
            items.push(self.expression()?);
            if self.take(",").is_none() {
                self.expect(close, what)?;
                break;
            }
        }
        Ok(items)
    }
}

/// Joins two operands; `a && b && c` becomes one flat node, so that a long chain is not a deep tree.
fn join(sign: &'static str, sign_part: Range<usize>, left: Node, right: Node) -> Parsed {
    let part = left.part.start..right.part.end;
    let depth = left.depth.max(right.depth + 1);
    let kind = match (sign, left.kind) {
        ("&&", Kind::All(mut terms)) => {
            terms.push(right);
            return shallow(Kind::All(terms), part, depth);
        }
        ("||", Kind::Any(mut terms)) => {
            terms.push(right);
            return shallow(Kind::Any(terms), part, depth);
        }
        (_, kind) => {
            let left = Node { kind, part: left.part, depth: left.depth };
            match sign {
                "&&" => Kind::All(vec![left, right]),
                "||" => Kind::Any(vec![left, right]),
                _ => Kind::Pair { sign, sign_part, pair: Box::new((left, right)) },
            }
        }
    };
    node(kind, part)
}

fn node(kind: Kind, part: Range<usize>) -> Parsed {
    let deepest = |nodes: &[Node]| nodes.iter().map(|node| node.depth).max().unwrap_or(0);
    let below = match &kind {
        Kind::Bool(_) | Kind::Text(_) | Kind::Int(_) | Kind::Name(_) => 0,
        Kind::Member { of, .. } => of.depth,
        Kind::Entry(pair) | Kind::Pair { pair, .. } => pair.0.depth.max(pair.1.depth),
        Kind::Call { on, arguments, .. } => deepest(arguments).max(on.as_ref().map_or(0, |on| on.depth)),
        Kind::List(items) | Kind::All(items) | Kind::Any(items) => deepest(items),
        Kind::Not(inner) | Kind::Negated(inner) => inner.depth,
        Kind::If(parts) => parts.0.depth.max(parts.1.depth).max(parts.2.depth),
    };
    shallow(kind, part, below + 1)
}

fn shallow(kind: Kind, part: Range<usize>, depth: usize) -> Parsed {
    if depth > DEEPEST {
        return Err(too_deep(part));
    }
    Ok(Node { kind, part, depth })
}

fn too_deep(part: Range<usize>) -> Fault {
    fault(part, format!("this is nested more than {DEEPEST} levels deep"), "split it over several routes")
}

fn fault(part: Range<usize>, message: impl Into<String>, hint: &str) -> Fault {
    Fault { part, message: message.into(), hint: Some(hint.to_owned()) }
}

fn spelled(token: &TokenKind<'_>) -> String {
    match token {
        TokenKind::Name(name) => format!("`{name}`"),
        TokenKind::Sign(sign) => format!("`{sign}`"),
        TokenKind::Text(_) => "a text".to_owned(),
        TokenKind::Int(_) => "a number".to_owned(),
        TokenKind::End => "the end".to_owned(),
    }
}
