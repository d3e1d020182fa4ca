//! Tokens that were taken back before their end, by their ids (claim `jti`).
//!
//! What this process knows stands in [`Revoked`]; what the processes that use one directory know, in a file of it
//! ([`Ledger`]); what gateways know that use one Redis server, there ([`Elsewhere`]).
//!
//! Promise: an id is remembered until its token has ended, and no longer: neither a table nor a file only grows. Of
//! several that take the same token back at the same time, one is told that it was the first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{self, Locked};
use crate::redis::{Redis, Unavailable, cmd};

/// The most ids: beyond, those that end first give way.
const MOST: usize = 100_000;

/// The file's name in its directory.
const FILE: &str = "revoked";

/// What stands before an id in Redis.
const PREFIX: &str = "sluice:revoked:";

/// Tokens that were taken back.
#[derive(Debug, Default)]
pub struct Revoked {
    /// Most gateways take no token back: they pay for one load.
    count: AtomicUsize,
    ids: Mutex<HashMap<Box<str>, u64>>,
}

impl Revoked {
    /// Takes a token back that ends at `end`, in seconds since 1970. False: it was taken back before.
    pub fn add(&self, id: &str, end: u64, now: u64) -> bool {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MOST {
            ids.retain(|_, end| *end > now);
        }
        if ids.len() >= MOST
            && let Some(first) = ids.iter().min_by_key(|(_, end)| **end).map(|(id, _)| id.clone())
        {
            ids.remove(&first);
        }
        let known = ids.insert(id.into(), end);
        self.count.store(ids.len(), Relaxed);
        known.is_none()
    }

    /// Forgets those whose tokens have ended.
    pub fn tidy(&self, now: u64) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|_, end| *end > now);
        self.count.store(ids.len(), Relaxed);
    }

    /// Whether it was taken back.
    pub fn holds(&self, id: &str) -> bool {
        self.count.load(Relaxed) > 0
            && self.ids.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }
}

/// The file of a directory: an id and its token's end on each line. Every process that uses the directory adds to it,
/// and reads what others have added.
#[derive(Debug)]
pub(super) struct Ledger {
    directory: PathBuf,
    /// Up to where which file was read.
    place: Mutex<Place>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    inode: u64,
    offset: u64,
}

impl Ledger {
    pub(super) fn new(directory: &Path) -> Ledger {
        Ledger { directory: directory.to_owned(), place: Mutex::default() }
    }

    /// Takes over what was added since it was looked at last. Without the file none was taken back.
    pub(super) fn follow(&self, revoked: &Revoked, now: u64) -> io::Result<()> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match File::open(self.directory.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let found = file.metadata()?;
        let begun = Place { inode: found.ino(), offset: 0 };
        // Another file, which holds those of the one before that are still of use.
        let mut from = if place.inode == begun.inode && place.offset <= found.len() { *place } else { begun };
        if from.offset == found.len() {
            *place = from;
            return Ok(());
        }
        file.seek(SeekFrom::Start(from.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line without its end is being written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for (id, end) in lines(&text[..whole]).filter(|(_, end)| *end > now) {
            revoked.add(id, end, now);
        }
        from.offset += whole as u64;
        *place = from;
        Ok(())
    }

    /// Takes a token back, for all who use the directory. False: somebody was first.
    pub(super) fn take_back(&self, revoked: &Revoked, (id, end): (&str, u64), now: u64) -> io::Result<bool> {
        let _locked = Locked::take(&self.directory)?;
        self.follow(revoked, now)?;
        if revoked.holds(id) {
            return Ok(false);
        }
        let path = self.directory.join(FILE);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.write_all(format!("{id} {end}\n").as_bytes())?;
        Ok(revoked.add(id, end, now))
    }

    /// Drops the lines of tokens that have ended, when there are some.
    pub(super) fn tidy(&self, now: u64) -> io::Result<()> {
        let path = self.directory.join(FILE);
        let read = || std::fs::read_to_string(&path);
        let ended = |text: &str| lines(text).any(|(_, end)| end <= now);
        match read() {
            Ok(text) if ended(&text) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let _locked = Locked::take(&self.directory)?;
        let text = read()?;
        let kept = lines(&text).filter(|(_, end)| *end > now);
        let kept: String = kept.map(|(id, end)| format!("{id} {end}\n")).collect();
        file::replace(&path, kept.as_bytes(), 0o600)
    }
}

fn lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (id, end) = line.split_once(' ')?;
        Some((id, end.parse().ok()?))
    })
}

/// What gateways that share a Redis server have taken back: a key for each token, which goes when the token ends.
#[derive(Clone, Debug)]
pub struct Elsewhere(Arc<Redis>);

impl Elsewhere {
    /// Those of this server.
    pub fn new(redis: Arc<Redis>) -> Elsewhere {
        Elsewhere(redis)
    }

    /// Takes a token back. False: somebody was first.
    ///
    /// # Errors
    /// Redis has no answer: it may have been taken back.
    pub async fn take_back(&self, (id, end): (&str, u64), now: u64) -> Result<bool, Unavailable> {
        let mut set = cmd("SET");
        set.arg(format!("{PREFIX}{id}")).arg(1).arg("NX").arg("EX").arg(end.saturating_sub(now).max(1));
        Ok(self.0.call::<Option<String>>(&set).await?.is_some())
    }

    /// Whether it was taken back.
    ///
    /// # Errors
    /// Redis has no answer.
    pub async fn holds(&self, id: &str) -> Result<bool, Unavailable> {
        let mut exists = cmd("EXISTS");
        exists.arg(format!("{PREFIX}{id}"));
        self.0.call(&exists).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("sluice-revoked-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn text(&self) -> String {
            std::fs::read_to_string(self.0.join(FILE)).unwrap()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_one_process_takes_back_another_hears_of_and_one_of_them_was_first() {
        let directory = Directory::new("two");
        let (one, other) = (Ledger::new(&directory.0), Ledger::new(&directory.0));
        let (of_one, of_other) = (Revoked::default(), Revoked::default());
        assert!(one.take_back(&of_one, ("a", 100), 10).unwrap());
        assert!(!of_other.holds("a"));
        // Before it has looked: it looks then.
        assert!(!other.take_back(&of_other, ("a", 100), 10).unwrap());
        assert!(other.take_back(&of_other, ("b", 100), 10).unwrap());
        one.follow(&of_one, 10).unwrap();
        assert!(of_one.holds("b") && of_other.holds("a"));
        assert_eq!(directory.text(), "a 100\nb 100\n");
    }

    #[test]
    fn the_file_loses_what_has_ended_and_is_followed_on() {
        let directory = Directory::new("tidy");
        let (one, other) = (Ledger::new(&directory.0), Ledger::new(&directory.0));
        let (of_one, of_other) = (Revoked::default(), Revoked::default());
        for (id, end) in [("a", 50), ("b", 100), ("c", 200)] {
            one.take_back(&of_one, (id, end), 10).unwrap();
        }
        other.follow(&of_other, 10).unwrap();
        one.tidy(40).unwrap();
        assert_eq!(directory.text().lines().count(), 3);
        one.tidy(50).unwrap();
        assert_eq!(directory.text(), "b 100\nc 200\n");
        one.take_back(&of_one, ("d", 300), 60).unwrap();
        other.follow(&of_other, 60).unwrap();
        assert!(of_other.holds("d") && of_other.holds("c"));
        of_other.tidy(100);
        assert!(!of_other.holds("a") && !of_other.holds("b") && of_other.holds("c"));
        // One that starts later knows what is still of use; half a line is not yet one.
        let late = Revoked::default();
        std::fs::write(directory.0.join(FILE), "c 200\nd 30").unwrap();
        let ledger = Ledger::new(&directory.0);
        ledger.follow(&late, 100).unwrap();
        assert!(late.holds("c") && !late.holds("d"));
        std::fs::write(directory.0.join(FILE), "c 200\nd 300\n").unwrap();
        ledger.follow(&late, 100).unwrap();
        assert!(late.holds("d"));
    }

    #[test]
    fn the_table_is_bounded() {
        let revoked = Revoked::default();
        (0..=MOST as u64).for_each(|id| _ = revoked.add(&id.to_string(), 1000 + id, 10));
        assert!(!revoked.holds("0") && revoked.holds("1") && revoked.holds(&MOST.to_string()));
        assert_eq!(revoked.count.load(Relaxed), MOST);
    }
}
