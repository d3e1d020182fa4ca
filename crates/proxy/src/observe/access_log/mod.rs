//! The access log: one line for each exchange.
//!
//! Promise: formatting happens in the worker's own buffer ([`LogWriter`]); a thread of the log's own does the
//! writing. When it cannot keep up, lines are dropped and counted (`sluice_access_log_dropped_total`): the
//! data plane never waits for a log. Credentials are not written (`redact`), control bytes are escaped
//! (`escape`), and a file that was renamed and opened again loses no line.

mod config;
pub(crate) mod escape;
mod line;
mod output;
mod queue;
mod redact;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use config::{Config, Layout, Place, Plan, Redact};
pub use line::{Captured, Record};
pub use queue::Counts;
use queue::Queue;
use sluice_http::RequestHead;

use super::diagnostic::Diagnostics;
use super::metrics::Registry;
use super::timestamp::{Style, Timestamp};
use crate::purpose::could_write;

/// A worker's buffer is handed over when it holds this many bytes.
const FLUSH_AT: usize = 16 << 10;

/// How often a worker calls [`LogWriter::flush`], so that a quiet gateway's lines appear too.
pub const FLUSH_EVERY: Duration = Duration::from_millis(200);

/// An open access log.
#[derive(Debug)]
pub struct AccessLog {
    plan: Plan,
    queue: Arc<Queue>,
}

impl AccessLog {
    /// Opens the file, made when there is none, and starts the thread that writes. Failures of writing go to
    /// `diagnostics`, counts to `registry`.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or the thread cannot be started.
    pub fn open(plan: Plan, registry: &Registry, diagnostics: &Diagnostics) -> io::Result<Arc<AccessLog>> {
        let output = output::open(&plan.place)?;
        AccessLog::start(plan, output, registry, diagnostics)
    }

    /// Whether it could be opened, without making its file.
    ///
    /// # Errors
    /// As [`AccessLog::open`].
    pub fn look(plan: &Plan) -> io::Result<()> {
        match &plan.place {
            Place::Stdout => Ok(()),
            Place::File(path) => could_write(path),
        }
    }

    fn start(
        plan: Plan,
        mut output: Box<dyn output::Output>,
        registry: &Registry,
        diagnostics: &Diagnostics,
    ) -> io::Result<Arc<AccessLog>> {
        let queue = Arc::new(Queue::new(registry.access_log()));
        let (worked, diagnostics) = (queue.clone(), diagnostics.clone());
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || worked.run(&mut *output, &diagnostics))?;
        Ok(Arc::new(AccessLog { plan, queue }))
    }

    /// A writer for one worker.
    pub fn writer(self: &Arc<AccessLog>) -> LogWriter {
        let style = match self.plan.layout {
            Layout::Json => Style::Rfc3339,
            Layout::Combined => Style::CommonLog,
        };
        let buffer = Vec::with_capacity(FLUSH_AT + FLUSH_AT / 4);
        LogWriter { log: self.clone(), buffer, lines: 0, timestamp: Timestamp::new(style) }
    }

    /// What it writes, and where: a reload whose plan is equal keeps this log.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Opens the file again by its name, after what was flushed so far is written. Returns at once; a failure
    /// is told to the operator and leaves the old file in use.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Takes no more lines, and waits until those that were flushed are written. Drop the writers first.
    ///
    /// # Errors
    /// `TimedOut` when they were not written within `patience`; the thread goes on trying.
    pub fn close(&self, patience: Duration) -> io::Result<()> {
        self.queue.close();
        self.queue.wait(patience)
    }
}

impl Drop for AccessLog {
    /// The last writer may be dropped on a worker, so this does not wait: the thread writes what is left.
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// One worker's end of an access log. Dropping it flushes it.
#[derive(Debug)]
pub struct LogWriter {
    log: Arc<AccessLog>,
    buffer: Vec<u8>,
    lines: u64,
    timestamp: Timestamp,
}

impl LogWriter {
    /// Copies what a line will say of a request, before filters edit it.
    pub fn capture(&self, head: &RequestHead, into: &mut Captured) {
        into.take(head, &self.log.plan);
    }

    /// Adds the line of an exchange that ended at `now`.
    pub fn record(&mut self, record: &Record<'_>, now: SystemTime) {
        let plan = &self.log.plan;
        if !record.is_wanted(plan) {
            return;
        }
        record.write(plan, &mut self.timestamp, now, &mut self.buffer);
        self.lines += 1;
        if self.buffer.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Hands the lines to the writing thread. Never waits for it; call it every [`FLUSH_EVERY`].
    pub fn flush(&mut self) {
        if self.lines > 0 {
            self.log.queue.push(&mut self.buffer, std::mem::take(&mut self.lines));
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
