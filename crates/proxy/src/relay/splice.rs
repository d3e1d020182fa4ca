//! Bytes from one TCP socket to another without a copy: splice(2) through a pipe.
//!
//! Promise: the pipe is emptied before it is filled again, so that "would block" always speaks of one
//! socket; a pipe goes back to its worker's few only when it is empty.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Broke;

/// What a pipe should hold. The kernel lets a user have 64 MiB of pipes (pipe-user-pages-soft); beyond, a
/// pipe stays small.
const SIZE: usize = 256 * 1024;
/// With a smaller pipe than this, copying is no worse.
const LEAST: usize = 64 * 1024;
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
/// Empty pipes a worker keeps.
const KEPT: usize = 16;

thread_local! {
    /// A worker is a thread: these are its pipes.
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and what stands in it.
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    size: usize,
    filled: usize,
}

impl Pipe {
    /// An empty pipe of this worker, or a new one.
    ///
    /// # Errors
    /// There are no descriptors left, or only small pipes.
    pub(super) fn take() -> io::Result<Pipe> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        let size = match fcntl_setpipe_size(&writer, SIZE) {
            Ok(size) => size,
            Err(_) => fcntl_getpipe_size(&writer)?,
        };
        match size >= LEAST {
            true => Ok(Pipe { reader, writer, size, filled: 0 }),
            false => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }

    /// Keeps it for the next tunnel, if it is empty.
    pub(super) fn give_back(self) {
        POOL.with_borrow_mut(|pool| {
            if self.filled == 0 && pool.len() < KEPT {
                pool.push(self);
            }
        });
    }

    /// Empties the pipe into `to`; `stirred` is counted up when something moved. Cancel-safe.
    pub(super) fn poll_drain(
        &mut self,
        to: &TcpStream,
        stirred: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broke>> {
        while self.filled > 0 {
            ready!(to.poll_write_ready(cx)).map_err(|_| Broke::Sink)?;
            let moved = to.try_io(Interest::WRITABLE, || {
                splice(&self.reader, None, to, None, self.filled, FLAGS).map_err(io::Error::from)
            });
            match moved {
                Ok(moved) => {
                    self.filled -= moved;
                    *stirred += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Broke::Sink)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Fills the empty pipe from `from`: gives how many bytes came, 0 at the end. Cancel-safe.
    pub(super) fn poll_fill(
        &mut self,
        from: &TcpStream,
        stirred: &mut u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Broke>> {
        loop {
            ready!(from.poll_read_ready(cx)).map_err(|_| Broke::Source)?;
            let moved = from.try_io(Interest::READABLE, || {
                splice(from, None, &self.writer, None, self.size, FLAGS).map_err(io::Error::from)
            });
            match moved {
                Ok(moved) => {
                    self.filled = moved;
                    *stirred += 1;
                    return Poll::Ready(Ok(moved));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Broke::Source)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_used_again_only_when_it_is_empty() {
        let mut pipe = Pipe::take().unwrap();
        assert!(pipe.size >= LEAST);
        pipe.filled = 1;
        pipe.give_back();
        assert_eq!(POOL.with_borrow(Vec::len), 0);
        Pipe::take().unwrap().give_back();
        assert_eq!(POOL.with_borrow(Vec::len), 1);
        Pipe::take().unwrap();
        assert_eq!(POOL.with_borrow(Vec::len), 0);
    }
}
