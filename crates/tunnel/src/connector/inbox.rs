//! The content of a request between its tunnel and its target.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use sluice_http::{BodyError, Frame, Source};

use super::tunnel::Tunnel;
use crate::event::StreamId;

/// What has arrived and was not taken yet. The tunnel's protocol bounds it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    end: Option<Result<(), BodyError>>,
    reader: Option<Waker>,
    is_abandoned: bool,
}

impl Inbox {
    /// Adds a piece; gives it back when nobody will take it.
    pub(super) fn push(&self, frame: Frame) -> Result<(), Frame> {
        let mut state = self.state.borrow_mut();
        if state.is_abandoned {
            return Err(frame);
        }
        state.queue.push_back(frame);
        state.wake();
        Ok(())
    }

    /// Nothing more will come.
    pub(super) fn finish(&self, end: Result<(), BodyError>) {
        let mut state = self.state.borrow_mut();
        state.end.get_or_insert(end);
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The end that a target pulls at.
pub(super) struct Arriving {
    pub(super) inbox: Rc<Inbox>,
    pub(super) tunnel: Rc<Tunnel>,
    pub(super) stream: StreamId,
    /// What is left, when that was announced.
    pub(super) left: Option<u64>,
}

impl Source for Arriving {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut state = self.inbox.state.borrow_mut();
        let Some(frame) = state.queue.pop_front() else {
            return match state.end {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(error)) => Poll::Ready(Some(Err(error))),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        drop(state);
        if let Frame::Data(bytes) = &frame {
            self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
            self.tunnel.consumed(self.stream, bytes.len());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn length(&self) -> Option<u64> {
        self.left
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut state = self.inbox.state.borrow_mut();
        state.is_abandoned = true;
        let waiting: usize = state
            .queue
            .drain(..)
            .map(|frame| if let Frame::Data(bytes) = frame { bytes.len() } else { 0 })
            .sum();
        drop(state);
        // What nobody takes must not hold up the sender.
        self.tunnel.consumed(self.stream, waiting);
    }
}
