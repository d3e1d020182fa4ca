//! The `body_limit` filter: how long a request's body may be on one route.
//!
//! Promise: a body whose length is declared is refused before a byte of it is read or sent; one whose length
//! is not is counted while it passes, and ends with 413 at the first byte too many.

use std::task::{Context, Poll, ready};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_http::{Body, BodyError, Frame, Request, Source};

use super::{Filter, Flow};
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::problem::{At, Problems};
use crate::scene::Scene;
use crate::value::ByteSize;

/// Limits the bodies of a route's requests. Longer ones get 413. The listener's `limits.body` is looked at
/// first: a route can allow less, not more.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The most bytes: "1MiB". "0B" allows no body.
    pub limit: ByteSize,
}

/// The checked filter.
#[derive(Debug)]
pub struct BodyLimit {
    limit: u64,
}

impl Filter for BodyLimit {
    type Config = Config;

    const NAME: &'static str = "body_limit";

    fn build(config: &Config, _at: &At, _problems: &mut Problems) -> Option<BodyLimit> {
        Some(BodyLimit { limit: config.limit.0 })
    }

    async fn on_request(
        &self,
        _scene: &Scene<'_>,
        _exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Flow, Failure> {
        match request.body.length() {
            Some(length) if length > self.limit => return Err(Failure::BodyTooLarge),
            Some(_) => {}
            None => {
                let body = std::mem::take(&mut request.body);
                request.body = Body::Stream(Box::new(Counted { body, left: self.limit }));
            }
        }
        Ok(Flow::Continue)
    }
}

/// A body of unknown length, counted.
struct Counted {
    body: Body,
    /// Bytes that may still come.
    left: u64,
}

impl Source for Counted {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = ready!(self.body.poll_frame(cx));
        if let Some(Ok(Frame::Data(piece))) = &frame {
            match self.left.checked_sub(piece.len() as u64) {
                Some(left) => self.left = left,
                None => {
                    // What was sent before cannot make a whole message any more: the endpoint is left.
                    self.body = Body::Empty;
                    self.left = 0;
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bytes::Bytes;

    use super::*;
    use crate::filter::fixture;

    struct Pieces(VecDeque<&'static [u8]>);

    impl Source for Pieces {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::Data(Bytes::from_static(piece)))))
        }

        fn length(&self) -> Option<u64> {
            None
        }
    }

    /// How a body fares: the bytes that passed, and how it ended.
    async fn pass(limit: u64, body: Body) -> Result<(usize, Option<BodyError>), Failure> {
        let filter = BodyLimit { limit };
        let mut request = Request { body, ..fixture::request("POST", "/") };
        filter.on_request(&fixture::stage().scene(), &mut fixture::exchange("/"), &mut request).await?;
        let mut passed = 0;
        loop {
            match request.body.frame().await {
                Some(Ok(Frame::Data(piece))) => passed += piece.len(),
                Some(Ok(Frame::Trailers(_))) | None => return Ok((passed, None)),
                Some(Err(error)) => return Ok((passed, Some(error))),
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_declared_length_is_judged_at_once_and_an_undeclared_one_as_it_passes() {
        let full = |text: &'static str| Body::Full(Bytes::from_static(text.as_bytes()));
        let pieces =
            |pieces: &[&'static [u8]]| Body::Stream(Box::new(Pieces(pieces.iter().copied().collect())));
        assert_eq!(pass(3, full("abc")).await, Ok((3, None)));
        assert_eq!(pass(3, full("abcd")).await, Err(Failure::BodyTooLarge));
        assert_eq!(pass(0, Body::Empty).await, Ok((0, None)));
        assert_eq!(pass(0, full("a")).await, Err(Failure::BodyTooLarge));
        assert_eq!(pass(3, pieces(&[b"ab", b"c"])).await, Ok((3, None)));
        assert_eq!(pass(3, pieces(&[b"ab", b"cd", b"e"])).await, Ok((2, Some(BodyError::TooLarge))));
    }
}
