//! Files that several processes write in one directory.
//!
//! Promise: a file is replaced whole or not at all; who holds the lock is alone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The name of what is locked: the files themselves are replaced.
const LOCK: &str = "lock";

/// How often the lock is tried: another process holds it for milliseconds.
const TRIES: usize = 100_000;

/// The lock of a directory, between processes and threads, until it is dropped.
pub(super) struct Locked(File);

impl Locked {
    pub(super) fn take(directory: &Path) -> io::Result<Locked> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(directory.join(LOCK))?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Locked(file)),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process keeps it locked"))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // An open file that was locked can be unlocked.
        let _ = self.0.unlock();
    }
}

/// Replaces a file whole or not at all; its directory is locked.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    // One that was left behind may have other rights.
    let _ = std::fs::remove_file(&new);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
