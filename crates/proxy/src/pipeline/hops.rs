//! How far a request may still travel: Max-Forwards, and loops.

use sluice_http::{Body, Method, NameId, RequestHead, Response, ResponseHead};

use super::forwarded::PSEUDONYM;
use crate::failure::Failure;

/// How often Via may name a Sluice before a request counts as looping. Gateways that stand behind each other
/// on purpose all have the same name in it, hence not 0.
pub const MAX_HOPS: usize = 8;

/// Where a request ends, as far as Max-Forwards says.
#[derive(Debug)]
pub enum Hop {
    /// It goes on.
    On,
    /// It ends here, with this answer.
    Here(Response),
}

/// Counts Max-Forwards down (RFC 9110 section 7.6.2), which only means something on OPTIONS and TRACE. An
/// OPTIONS that ends here is answered with `allow`, the methods this gateway knows for the path; a TRACE that
/// ends here is refused, because echoing a request would show its credentials.
///
/// # Errors
/// [`Failure::BadRequest`] when Max-Forwards is not a number, [`Failure::MethodNotAllowed`] for TRACE.
pub fn max_forwards(head: &mut RequestHead, allow: &str) -> Result<Hop, Failure> {
    if !matches!(head.method, Method::Options | Method::Trace) {
        return Ok(Hop::On);
    }
    let Some(value) = head.fields.get(NameId::MaxForwards) else { return Ok(Hop::On) };
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let left: u32 = digits.and_then(|text| text.parse().ok()).ok_or(Failure::BadRequest)?;
    if left > 0 {
        head.fields.set(NameId::MaxForwards, (left - 1).to_string().as_bytes());
        return Ok(Hop::On);
    }
    if head.method == Method::Trace {
        return Err(Failure::MethodNotAllowed);
    }
    let mut answer = ResponseHead::new(200);
    // Empty where every method goes: an empty field would say that none does.
    if !allow.is_empty() {
        answer.fields.append(NameId::Allow, allow.as_bytes());
    }
    Ok(Hop::Here(Response { head: answer, body: Body::Empty }))
}

/// Refuses a request that has passed a Sluice too often (RFC 9110 section 7.6.3).
///
/// # Errors
/// [`Failure::LoopDetected`] when Via names us more than [`MAX_HOPS`] times.
pub fn check_loop(head: &RequestHead) -> Result<(), Failure> {
    let lines = head.fields.get_all(NameId::Via).filter_map(|line| std::str::from_utf8(line).ok());
    let ours = lines.flat_map(|line| line.split(',')).filter(|entry| received_by(entry) == Some(PSEUDONYM));
    match ours.count() > MAX_HOPS {
        true => Err(Failure::LoopDetected),
        false => Ok(()),
    }
}

/// The second word of an entry: `1.1 sluice (comment)`.
fn received_by(entry: &str) -> Option<&str> {
    entry.split_ascii_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, name: NameId, value: &str) -> RequestHead {
        let mut head = RequestHead::new(method, "/");
        head.fields.append(name, value.as_bytes());
        head
    }

    #[test]
    fn max_forwards_counts_down_to_an_answer() {
        let mut options = head("OPTIONS", NameId::MaxForwards, "1");
        assert!(matches!(max_forwards(&mut options, "GET"), Ok(Hop::On)));
        assert_eq!(options.fields.get(NameId::MaxForwards), Some(&b"0"[..]));
        let Ok(Hop::Here(answer)) = max_forwards(&mut options, "GET, PUT") else { panic!("it goes on") };
        assert_eq!(answer.head.status, 200);
        assert_eq!(answer.head.fields.get(NameId::Allow), Some(&b"GET, PUT"[..]));
    }

    #[test]
    fn trace_is_not_echoed_and_other_methods_are_not_counted() {
        let mut trace = head("TRACE", NameId::MaxForwards, "0");
        assert_eq!(max_forwards(&mut trace, "").unwrap_err(), Failure::MethodNotAllowed);
        let mut get = head("GET", NameId::MaxForwards, "0");
        assert!(matches!(max_forwards(&mut get, ""), Ok(Hop::On)));
        for bad in ["", "+1", "-1", "x", "99999999999"] {
            let mut options = head("OPTIONS", NameId::MaxForwards, bad);
            assert_eq!(max_forwards(&mut options, "").unwrap_err(), Failure::BadRequest, "{bad}");
        }
    }

    #[test]
    fn a_loop_is_more_than_eight_of_us() {
        let mut via = head("GET", NameId::Via, "1.1 sluice, 1.0 other (1.1 x), HTTP/1.1 sluice (a)");
        for _ in 0..6 {
            via.fields.append(NameId::Via, b"2 sluice");
        }
        assert_eq!(check_loop(&via), Ok(()));
        via.fields.append(NameId::Via, b"1.1 sluice");
        assert_eq!(check_loop(&via), Err(Failure::LoopDetected));
    }
}
