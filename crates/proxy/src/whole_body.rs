//! A request's body in one piece, for those few who need it so.

use std::future::poll_fn;

use bytes::Bytes;
use sluice_http::{Body, BodyError, Frame};

/// Why there is no whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is longer than allowed.
    TooLong,
    /// It ended early.
    Body(BodyError),
}

/// Reads a body to its end, and leaves it empty. Trailers are passed over. Not cancel-safe: what was read is lost.
///
/// # Errors
/// It is longer than `cap` bytes, or broken.
pub async fn take(body: &mut Body, cap: usize) -> Result<Bytes, Broken> {
    match std::mem::take(body) {
        Body::Empty => Ok(Bytes::new()),
        Body::Full(bytes) if bytes.len() <= cap => Ok(bytes),
        Body::Full(_) => Err(Broken::TooLong),
        Body::Stream(mut source) => {
            if source.length().is_some_and(|length| length > cap as u64) {
                return Err(Broken::TooLong);
            }
            let mut whole = Vec::new();
            while let Some(frame) = poll_fn(|cx| source.poll_frame(cx)).await {
                if let Frame::Data(bytes) = frame.map_err(Broken::Body)? {
                    if whole.len() + bytes.len() > cap {
                        return Err(Broken::TooLong);
                    }
                    whole.extend_from_slice(&bytes);
                }
            }
            Ok(whole.into())
        }
    }
}
