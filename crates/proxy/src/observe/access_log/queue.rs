//! Between the workers, which format lines, and the thread that writes them.
//!
//! Promise: a worker never waits for a disk or a pipe. It hands over a full buffer under a lock that nobody
//! holds while writing, once for some fifty lines; when too much is waiting, its lines are dropped and
//! counted. Buffers come back and are used again.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::output::Output;
use crate::observe::diagnostic::Diagnostics;

/// How much may wait to be written, in bytes.
pub(super) const WAITING_LIMIT: usize = 4 << 20;

/// Buffers kept for use again, and the largest that is.
const SPARE_BUFFERS: usize = 32;
const SPARE_CAPACITY: usize = 64 << 10;

/// What became of the lines. Lives as long as the process, so that counters go on when the log is replaced.
#[derive(Debug, Default)]
pub struct Counts {
    /// Lines written.
    pub written: AtomicU64,
    /// Lines dropped because too much was waiting.
    pub overflowed: AtomicU64,
    /// Lines dropped because writing failed.
    pub failed: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when there is something to do for the writing thread.
    work: Condvar,
    /// Told when the writing thread has ended.
    ended: Condvar,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Of the lines in `items`, and of those being written.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    closed: bool,
    ended: bool,
}

#[derive(Debug)]
enum Item {
    Lines { text: Vec<u8>, count: u64 },
    Reopen,
}

impl Queue {
    pub(super) fn new(counts: Arc<Counts>) -> Queue {
        Queue { state: Mutex::default(), work: Condvar::new(), ended: Condvar::new(), counts }
    }

    /// Takes the lines out of `text` and leaves an empty buffer.
    pub(super) fn push(&self, text: &mut Vec<u8>, count: u64) {
        let mut state = self.lock();
        if state.closed || state.bytes + text.len() > WAITING_LIMIT {
            drop(state);
            self.counts.overflowed.fetch_add(count, Relaxed);
            text.clear();
            return;
        }
        state.bytes += text.len();
        let empty = state.spare.pop().unwrap_or_default();
        state.items.push_back(Item::Lines { text: std::mem::replace(text, empty), count });
        drop(state);
        self.work.notify_one();
    }

    /// What was pushed before goes to the old file, what is pushed after to the new one.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        // Two in a row are one: they may not pile up behind a writer that is stuck.
        if !matches!(state.items.back(), Some(Item::Reopen)) {
            state.items.push_back(Item::Reopen);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Takes no more; the writing thread ends when it has written what is waiting.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// Waits until the writing thread has ended.
    pub(super) fn wait(&self, patience: Duration) -> io::Result<()> {
        let state = self.lock();
        let waited = self.ended.wait_timeout_while(state, patience, |state| !state.ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.ended {
            true => Ok(()),
            false => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the access log could not be written in time"))
            }
        }
    }

    /// Writes until the queue is closed and empty: the body of the writing thread.
    pub(super) fn run(&self, output: &mut dyn Output, diagnostics: &Diagnostics) {
        let mut lost = 0;
        while let Some(items) = self.next() {
            for item in items {
                match item {
                    Item::Reopen => reopen(output, diagnostics),
                    Item::Lines { text, count } => {
                        let result = output.write(&text);
                        self.note(result, count, &mut lost, output, diagnostics);
                        self.give_back(text);
                    }
                }
            }
        }
    }

    /// Counts the lines; the first failure and the recovery are told, not every one between.
    fn note(
        &self,
        result: io::Result<()>,
        count: u64,
        lost: &mut u64,
        output: &dyn Output,
        diagnostics: &Diagnostics,
    ) {
        match result {
            Ok(()) => {
                self.counts.written.fetch_add(count, Relaxed);
                if *lost > 0 {
                    let fields: &[(&str, &dyn std::fmt::Display)] =
                        &[("path", &output.name()), ("lost", &*lost)];
                    diagnostics.info("the access log can be written again", fields);
                    *lost = 0;
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(count, Relaxed);
                if *lost == 0 {
                    let message = "the access log cannot be written; lines are dropped";
                    diagnostics.error(message, &[("path", &output.name()), ("error", &error)]);
                }
                *lost += count;
            }
        }
    }

    fn next(&self) -> Option<VecDeque<Item>> {
        let state = self.lock();
        let waited = self.work.wait_while(state, |state| state.items.is_empty() && !state.closed);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.items.is_empty() {
            state.ended = true;
            drop(state);
            self.ended.notify_all();
            return None;
        }
        Some(std::mem::take(&mut state.items))
    }

    fn give_back(&self, mut text: Vec<u8>) {
        let mut state = self.lock();
        state.bytes -= text.len();
        if state.spare.len() < SPARE_BUFFERS && text.capacity() <= SPARE_CAPACITY {
            text.clear();
            state.spare.push(text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reopen(output: &mut dyn Output, diagnostics: &Diagnostics) {
    match output.reopen() {
        Ok(()) => diagnostics.info("the access log was opened again", &[("path", &output.name())]),
        Err(error) => {
            let message = "the access log cannot be opened again; lines still go to the old file";
            diagnostics.error(message, &[("path", &output.name()), ("error", &error)]);
        }
    }
}
