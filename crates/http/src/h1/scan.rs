//! Where does a head end? An incremental search that never looks at a byte twice.
//!
//! Promise: a head that arrives in any pieces gives the same answer, at linear cost, as one that arrives at
//! once; what can be refused without its end (binary noise, a line or head over its limit, a bare LF) is
//! refused as soon as its byte is there. What the lines say is the business of `parse`.

use memchr::memchr;

use super::{Limits, Refusal};
use crate::name::is_token;

/// Empty lines tolerated before a start line (RFC 9112 section 2.2 asks for at least one).
pub(super) const BLANKS: u8 = 2;

/// The search for the end of one head. Small and cheap: one lives in every connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Everything before holds no unseen LF.
    seen: usize,
    /// Where the current line starts.
    line: usize,
    fields: usize,
    blanks: u8,
    part: Part,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    StartLine,
    Fields,
}

impl Scanner {
    /// A search over field lines without a start line: a trailer section.
    pub(super) fn trailers() -> Scanner {
        Scanner { part: Part::Fields, ..Scanner::default() }
    }

    /// Forgets everything: the next bytes are a new head.
    pub fn reset(&mut self) {
        *self = Scanner::default();
    }

    /// Goes on where the last call stopped; `buf` holds all bytes of the head so far, and maybe more.
    ///
    /// Gives the length of the complete head: up to two empty lines, the start line, the field lines and the
    /// empty line (RFC 9112 section 2.1). `None` asks for more bytes. After an answer it starts over.
    ///
    /// # Errors
    /// A [`Refusal`] as soon as no continuation could make the head acceptable. The limits count bytes: a
    /// line without its CRLF, a head with everything that [`Scanner::scan`] counts.
    #[inline]
    pub fn scan(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, Refusal> {
        if buf.len() < self.seen {
            // A shorter buffer than before cannot be the same head.
            self.reset();
        }
        loop {
            if self.part == Part::StartLine {
                self.check_first_byte(buf)?;
            }
            let Some(found) = memchr(b'\n', &buf[self.seen..]) else {
                self.seen = buf.len();
                self.check_unfinished(buf, limits)?;
                return Ok(None);
            };
            let lf = self.seen + found;
            self.seen = lf + 1;
            if self.end_line(buf, lf, limits)? {
                let len = self.seen;
                self.reset();
                return Ok(Some(len));
            }
        }
    }

    /// Takes the line that ends with the LF at `lf`; true when it ends the head.
    #[inline]
    fn end_line(&mut self, buf: &[u8], lf: usize, limits: &Limits) -> Result<bool, Refusal> {
        let has_cr = lf > self.line && buf[lf - 1] == b'\r';
        let len = lf - self.line - usize::from(has_cr);
        if len > limits.line || lf >= limits.head {
            return Err(self.first_exceeded(buf, len, limits));
        }
        if !has_cr {
            return Err(Refusal::BareLf);
        }
        self.line = lf + 1;
        match (self.part, len) {
            (Part::Fields, 0) => return Ok(true),
            (Part::Fields, _) => {
                self.fields += 1;
                if self.fields > limits.fields {
                    return Err(Refusal::TooManyFields);
                }
            }
            (Part::StartLine, 0) => {
                self.blanks += 1;
                if self.blanks > BLANKS {
                    return Err(Refusal::BadStartLine);
                }
            }
            (Part::StartLine, _) => self.part = Part::Fields,
        }
        Ok(false)
    }

    /// A TLS hello or other noise is refused on its first byte, not when the head's deadline ends.
    #[inline]
    fn check_first_byte(&self, buf: &[u8]) -> Result<(), Refusal> {
        match buf.get(self.line) {
            None | Some(b'\n') => Ok(()),
            Some(b'\r') => match buf.get(self.line + 1) {
                None | Some(b'\n') => Ok(()),
                Some(_) => Err(Refusal::BareCr),
            },
            Some(&byte) if is_token(byte) => Ok(()),
            Some(_) => Err(Refusal::BadStartLine),
        }
    }

    fn check_unfinished(&self, buf: &[u8], limits: &Limits) -> Result<(), Refusal> {
        // A CR at the end may belong to the line's end.
        let has_cr = buf.len() > self.line && buf.last() == Some(&b'\r');
        let len = buf.len() - self.line - usize::from(has_cr);
        if len > limits.line || buf.len() > limits.head {
            return Err(self.first_exceeded(buf, len, limits));
        }
        Ok(())
    }

    /// Which limit the bytes crossed first: so the answer does not depend on the pieces they came in.
    #[cold]
    fn first_exceeded(&self, buf: &[u8], len: usize, limits: &Limits) -> Refusal {
        let mut excess = self.line.saturating_add(limits.line);
        if buf.get(excess) == Some(&b'\r') {
            // Only the byte after it told that this CR does not end the line.
            excess += 1;
        }
        match (len > limits.line && excess <= limits.head, self.part) {
            (false, _) => Refusal::HeadTooLarge,
            (true, Part::StartLine) => Refusal::TargetTooLong,
            (true, Part::Fields) => Refusal::LineTooLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { line: 30, head: 100, fields: 3 };

    fn scan(text: &[u8]) -> Result<Option<usize>, Refusal> {
        Scanner::default().scan(text, &LIMITS)
    }

    /// The answer when the bytes come one by one, and how many there were then.
    fn dribble(text: &[u8]) -> (usize, Result<Option<usize>, Refusal>) {
        let mut scanner = Scanner::default();
        for end in 0..=text.len() {
            match scanner.scan(&text[..end], &LIMITS) {
                Ok(None) => {}
                answer => return (end, answer),
            }
        }
        (text.len(), Ok(None))
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(scan(&[head, &b"GET"[..]].concat()), Ok(Some(head.len())));
        assert_eq!(dribble(head), (head.len(), Ok(Some(head.len()))));
        assert_eq!(scan(&head[..head.len() - 1]), Ok(None));
        assert_eq!(scan(b""), Ok(None));
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r\n"), Ok(Some(18)));
    }

    #[test]
    fn two_empty_lines_may_stand_before_a_head() {
        assert_eq!(scan(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Ok(Some(22)));
        assert_eq!(scan(b"\r\n\r\n\r\n"), Err(Refusal::BadStartLine));
        assert_eq!(scan(b"\r\n\r\n"), Ok(None));
        assert_eq!(scan(b"\rG"), Err(Refusal::BareCr));
        assert_eq!(scan(b"\n"), Err(Refusal::BareLf));
    }

    #[test]
    fn noise_is_refused_on_its_first_byte() {
        for noise in [b"\x16\x03\x01", &b" GET"[..], b"\0", b"\x80", b"\r\n\x16", b"\tGET", b"{"] {
            let first = if noise[0] == b'\r' { 3 } else { 1 };
            assert_eq!(dribble(noise), (first, Err(Refusal::BadStartLine)), "{noise:?}");
        }
    }

    #[test]
    fn a_line_feed_needs_its_carriage_return() {
        assert_eq!(scan(b"GET / HTTP/1.1\nHost: a\r\n\r\n"), Err(Refusal::BareLf));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\n\r\n"), Err(Refusal::BareLf));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r\n\n"), Err(Refusal::BareLf));
        assert_eq!(dribble(b"GET / HTTP/1.1\nHost").0, 15);
    }

    #[test]
    fn a_line_over_its_limit_is_refused_before_it_ends() {
        let line = |len: usize| [b"G".repeat(len), b"\r\n\r\n".to_vec()].concat();
        assert_eq!(scan(&line(30)), Ok(Some(34)));
        assert_eq!(dribble(&line(30)), (34, Ok(Some(34))));
        assert_eq!(scan(&line(31)), Err(Refusal::TargetTooLong));
        assert_eq!(dribble(&line(31)), (31, Err(Refusal::TargetTooLong)));
        let field = [b"G\r\n".to_vec(), line(31)].concat();
        assert_eq!(dribble(&field), (34, Err(Refusal::LineTooLong)));
        assert_eq!(scan(&field), Err(Refusal::LineTooLong));
    }

    #[test]
    fn a_head_over_its_limit_is_refused_before_it_ends() {
        let limits = Limits { line: 30, head: 60, fields: 9 };
        let head = |last: usize| [&b"G\r\n"[..], &b"abcde: 89\r\n".repeat(4), &b"a".repeat(last)].concat();
        let mut fits = head(9);
        fits.extend(b"\r\n\r\n");
        assert_eq!(fits.len(), 60);
        assert_eq!(Scanner::default().scan(&fits, &limits), Ok(Some(60)));
        assert_eq!(Scanner::default().scan(&[&fits[..], b"body"].concat(), &limits), Ok(Some(60)));
        let mut long = head(10);
        long.extend(b"\r\n\r\n");
        assert_eq!(Scanner::default().scan(&long, &limits), Err(Refusal::HeadTooLarge));
        assert_eq!(Scanner::default().scan(&head(14), &limits), Err(Refusal::HeadTooLarge));
    }

    #[test]
    fn one_field_too_many_is_refused() {
        assert_eq!(scan(b"G\r\na:\r\nb:\r\nc:\r\n\r\n"), Ok(Some(17)));
        assert_eq!(scan(b"G\r\na:\r\nb:\r\nc:\r\nd:\r\n"), Err(Refusal::TooManyFields));
    }

    #[test]
    fn a_scanner_starts_over_after_an_answer() {
        let mut scanner = Scanner::default();
        let head = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(scanner.scan(head, &LIMITS), Ok(Some(18)));
        assert_eq!(scanner.scan(head, &LIMITS), Ok(Some(18)));
        assert_eq!(scanner.scan(&head[..10], &LIMITS), Ok(None));
        scanner.reset();
        assert_eq!(scanner.scan(b"\x16", &LIMITS), Err(Refusal::BadStartLine));
        // Also when the caller forgot to reset: no panic.
        assert_eq!(scanner.scan(head, &LIMITS), Ok(Some(18)));
        assert_eq!(scanner.scan(&head[..10], &LIMITS), Ok(None));
        assert_eq!(scanner.scan(b"G", &LIMITS), Ok(None));
    }
}
