//! How a client breaks the rules of HTTP/2 other than by doing too much.

use crate::reasons::reasons;

reasons! {
    /// A broken rule that ends a connection or a stream. The code is stable: it labels a counter.
    pub enum Breach {
        Protocol "h2-protocol-error" "a frame that may not come, or not there, or that cannot be decoded (RFC 9113 section 7)",
        FlowControl "h2-flow-control-error" "more content than the window allowed",
        FrameSize "h2-frame-size-error" "a frame of a size it may not have",
        StreamClosed "h2-stream-closed" "a frame on a stream that was closed",
        Fields "h2-malformed-fields" "fields that may not stand in an HTTP/2 message (RFC 9113 section 8.2)",
        StalledWindow "h2-stalled-window" "the client kept its window shut for the listener's stall timeout",
    }
}

impl Breach {
    /// The breach behind an error code (RFC 9113 section 7); `None` for codes that are nobody's fault.
    pub const fn of_code(code: u32) -> Option<Breach> {
        Some(match code {
            // The frame layer says 1 of a header block that it cannot decode, too.
            1 | 9 => Breach::Protocol,
            3 => Breach::FlowControl,
            5 => Breach::StreamClosed,
            6 => Breach::FrameSize,
            _ => return None,
        })
    }
}
