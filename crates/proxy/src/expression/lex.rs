//! Text to tokens.
//!
//! Promise: every byte of the text is in a token, in white space, in a comment or in a fault; no panic on
//! any input; time linear in its length.

use std::ops::Range;

use super::Fault;

/// After so many faults the text is something else than an expression.
const MOST_FAULTS: usize = 20;

/// The smallest part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind<'t>,
    pub(super) part: Range<usize>,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind<'t> {
    Name(&'t str),
    Text(String),
    /// Without its sign: that is an operator until the parser joins the two.
    Int(u64),
    /// An operator or a bracket; `in` is one too.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: &[&str] = &[
    "||", "&&", "==", "!=", "<=", ">=", "!", "<", ">", "+", "-", "*", "/", "%", "?", ":", "(", ")", "[", "]",
    ",", ".",
];

/// What other languages write, and what is written here.
const FOREIGN: &[(&str, &str)] = &[
    ("=", "write `==` to compare"),
    ("&", "write `&&` for \"and\""),
    ("|", "write `||` for \"or\""),
    ("~", "write `x.matches(\"regex\")`"),
    ("{", "a list stands in `[` `]`"),
    ("$", "names stand alone: `request.path`"),
];

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    faults: Vec<Fault>,
}

/// The tokens of `text`, the last one `End`; or all characters that belong to none.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Vec<Fault>> {
    let mut lexer = Lexer { text, at: 0, faults: Vec::new() };
    let mut tokens = Vec::new();
    while lexer.faults.len() < MOST_FAULTS {
        lexer.skip_space();
        let start = lexer.at;
        let Some(first) = lexer.peek() else {
            tokens.push(Token { kind: Kind::End, part: start..start });
            break;
        };
        if let Some(kind) = lexer.token(first) {
            tokens.push(Token { kind, part: start..lexer.at });
        }
    }
    if lexer.faults.is_empty() { Ok(tokens) } else { Err(lexer.faults) }
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn fault(&mut self, part: Range<usize>, message: impl Into<String>, hint: &str) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.faults.push(Fault { part, message: message.into(), hint });
    }

    fn token(&mut self, first: char) -> Option<Kind<'t>> {
        let start = self.at;
        if first.is_ascii_digit() {
            return self.number();
        }
        if first == '"' || first == '\'' {
            return self.quoted(first);
        }
        if let Some(quote @ ('"' | '\'')) =
            self.rest().strip_prefix(['r', 'R']).and_then(|s| s.chars().next())
        {
            return self.raw(quote);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let name = word(self.rest());
            self.at += name.len();
            return Some(if name == "in" { Kind::Sign("in") } else { Kind::Name(name) });
        }
        if let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(**sign)) {
            self.at += sign.len();
            return Some(Kind::Sign(sign));
        }
        self.at += first.len_utf8();
        let hint = FOREIGN.iter().find(|(sign, _)| sign.starts_with(first)).map_or("", |(_, hint)| hint);
        self.fault(start..self.at, format!("`{}` has no meaning here", first.escape_debug()), hint);
        None
    }

    fn number(&mut self) -> Option<Kind<'t>> {
        let start = self.at;
        let text = word(self.rest());
        self.at += text.len();
        let decimals =
            self.rest().strip_prefix('.').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(decimals) = decimals {
            self.at += 1 + word(decimals).len();
            self.fault(start..self.at, "numbers are whole", "scale it: compare thousandths, not fractions");
            return None;
        }
        let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        match value {
            Ok(value) if value <= 1 << 63 => Some(Kind::Int(value)),
            _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.fault(start..self.at, "this number is too large", "ints have 64 bits with a sign");
                None
            }
            _ => {
                let hint = "numbers are decimal or start with `0x`; a text stands in quotes";
                self.fault(start..self.at, format!("`{text}` is not a number"), hint);
                None
            }
        }
    }

    fn unterminated(&mut self, start: usize, quote: char) -> Option<Kind<'t>> {
        self.at = self.text.len();
        self.fault(start..self.at, "this text has no end", &format!("close it with {quote}"));
        None
    }

    /// r"..." keeps backslashes: for regexes.
    fn raw(&mut self, quote: char) -> Option<Kind<'t>> {
        let start = self.at;
        let inside = &self.rest()[2..];
        let Some(end) = inside.find(quote) else { return self.unterminated(start, quote) };
        self.at += 2 + end + 1;
        Some(Kind::Text(inside[..end].to_owned()))
    }

    fn quoted(&mut self, quote: char) -> Option<Kind<'t>> {
        let start = self.at;
        let faults = self.faults.len();
        let mut out = String::new();
        self.at += 1;
        loop {
            let Some(next) = self.peek() else { return self.unterminated(start, quote) };
            if next == '\\' {
                if let Some(escaped) = self.escape() {
                    out.push(escaped);
                }
                continue;
            }
            self.at += next.len_utf8();
            if next == quote {
                return (self.faults.len() == faults).then_some(Kind::Text(out));
            }
            out.push(next);
        }
    }

    /// One escape of a quoted text; `at` is on its backslash.
    fn escape(&mut self) -> Option<char> {
        let start = self.at;
        self.at += 1;
        let kind = self.peek()?;
        self.at += kind.len_utf8();
        let digits = match kind {
            '\\' | '"' | '\'' => return Some(kind),
            'n' => return Some('\n'),
            'r' => return Some('\r'),
            't' => return Some('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => {
                let shown = kind.escape_debug();
                let hint = format!("write `\\\\{shown}`, or a raw text: r\"\\{shown}\"");
                self.fault(start..self.at, format!("`\\{shown}` is not an escape"), &hint);
                return None;
            }
        };
        let code = self.rest().get(..digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let char = code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        match char {
            Some(_) => self.at += digits,
            None => {
                let message = format!("`\\{kind}` needs {digits} hexadecimal digits that name a character");
                self.fault(start..self.at, message, "");
            }
        }
        char
    }
}

/// The letters, digits and underscores `text` starts with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}
