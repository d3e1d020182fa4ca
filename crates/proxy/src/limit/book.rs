//! Quotas on this machine: how much each key has used of its period, exact to the request.
//!
//! Promise: on disk ([`sheet`](super::sheet)) a request is written down before it passes: killing the process at
//! any moment forgets none and counts none twice, and processes that share the directory count together. What the
//! kernel had not brought to disk when the machine failed is lost. In memory all is forgotten with the process.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::key::Key;
use super::sheet::{KEYS, Left, Record, Sheet, Times, full};

/// How often a process looks whether it is alone: one that comes waits for as long.
const LOOK: Duration = Duration::from_millis(50);

/// How much keys have used.
pub struct Book {
    /// Keys are hashed with what is only in the file: nobody can choose a key that meets another's.
    secret: [u8; 16],
    pages: Arc<Mutex<Pages>>,
    /// Its end is that of the thread which looks whether the process is alone.
    _looking: Option<Sender<()>>,
}

enum Pages {
    File(Sheet),
    Memory(Memory),
}

/// A quota's part of its keys' hashes, ready for the rest.
#[derive(Clone, Debug)]
pub struct Mark(Sha256);

/// What is forgotten with the process.
#[derive(Default)]
struct Memory {
    known: HashMap<u64, Record>,
    /// When those whose period has ended were last looked for, in seconds since 1970.
    swept: u64,
}

impl Memory {
    /// Whether one more key has room beside `most`. When it is full, all are looked over once a second and not
    /// for each new key: whoever brings many would stop everybody else.
    fn has_room(&mut self, most: usize, now: u64) -> bool {
        if self.known.len() >= most && self.swept != now {
            self.swept = now;
            self.known.retain(|_, record| record.end > now);
        }
        self.known.len() < most
    }

    fn take(&mut self, key: u64, limit: u64, times: Times) -> io::Result<Left> {
        if !self.known.contains_key(&key) && !self.has_room(KEYS, times.now) {
            return Err(full());
        }
        let record = self.known.entry(key).or_insert(Record::new(key, times));
        let (left, taken) = record.take(limit, times);
        *record = taken.unwrap_or(*record);
        Ok(left)
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Book(..)")
    }
}

impl Book {
    /// The one in this directory, which is made when it is not there. Waits for a process that is there alone.
    ///
    /// # Errors
    /// It cannot be made, or the file there is none of ours.
    pub fn open(directory: &Path) -> io::Result<Book> {
        let (sheet, secret) = Sheet::open(directory)?;
        let pages = Arc::new(Mutex::new(Pages::File(sheet)));
        let (looking, ended) = channel();
        let kept = Arc::clone(&pages);
        std::thread::Builder::new().name("quotas".to_owned()).spawn(move || look(&kept, &ended))?;
        Ok(Book { secret, pages, _looking: Some(looking) })
    }

    /// Whether there is one in this directory, or one could be made, without touching it.
    ///
    /// # Errors
    /// As [`Book::open`].
    pub fn check(directory: &Path) -> io::Result<()> {
        Sheet::check(directory)
    }

    /// One that is forgotten with the process.
    pub fn in_memory() -> Book {
        Book {
            secret: [0; 16].map(|_: u8| fastrand::u8(..)),
            pages: Arc::new(Mutex::new(Pages::Memory(Memory::default()))),
            _looking: None,
        }
    }

    /// Stands for a quota in this book.
    pub fn mark(&self, quota: &str) -> Mark {
        let length = (quota.len() as u64).to_le_bytes();
        let parts: [&[u8]; 3] = [&self.secret, &length, quota.as_bytes()];
        Mark(parts.iter().fold(Sha256::new(), Sha256::chain_update))
    }

    /// Takes one of `limit` in a period. One that was begun ends when it was to end, also when the clock is set
    /// back.
    ///
    /// # Errors
    /// It cannot be written down: then nothing was taken.
    pub fn take(&self, key: u64, limit: u64, times: Times) -> io::Result<Left> {
        match &mut *locked(&self.pages) {
            Pages::Memory(memory) => memory.take(key, limit, times),
            Pages::File(sheet) => sheet.take(key, limit, times),
        }
    }
}

impl Mark {
    /// Stands for a key of the quota.
    pub(super) fn hash(&self, key: Key<'_>) -> u64 {
        let digest = self.0.clone().chain_update([key.kind as u8]).chain_update(key.bytes).finalize();
        digest[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }
}

/// Looks whether the process is alone, until its book is dropped.
fn look(pages: &Mutex<Pages>, ended: &Receiver<()>) {
    loop {
        if let Pages::File(sheet) = &mut *locked(pages) {
            sheet.look();
        }
        if ended.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn locked(pages: &Mutex<Pages>) -> MutexGuard<'_, Pages> {
    pages.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn take(book: &Book, key: u64, (now, end): (u64, u64)) -> Option<u64> {
        book.take(key, 3, Times { now, end, length: 10 }).unwrap().remaining
    }

    #[test]
    fn a_quota_is_used_up_and_comes_back_with_the_next_period() {
        let directory = Directory::new("quota-periods");
        for book in [Book::open(&directory.0).unwrap(), Book::in_memory()] {
            let of = |times| take(&book, 7, times);
            assert_eq!(
                [of((5, 10)), of((5, 10)), of((9, 10)), of((9, 10))],
                [Some(2), Some(1), Some(0), None]
            );
            // The clock was set back by a period: what was begun ends when it was to end.
            assert_eq!(of((1, 5)), None);
            assert_eq!(of((10, 20)), Some(2));
            assert_eq!(take(&book, 8, (10, 20)), Some(2));
        }
    }

    #[test]
    fn what_was_written_down_is_there_when_it_is_opened_again() {
        let directory = Directory::new("quota-again");
        let hash = |book: &Book, name: &[u8]| book.mark("q").hash(Key::value(name));
        let book = Book::open(&directory.0).unwrap();
        let key = hash(&book, b"anna");
        assert_ne!(key, hash(&book, b"bob"));
        assert_ne!(key, book.mark("p").hash(Key::value(b"anna")));
        assert_eq!(take(&book, key, (5, 10)), Some(2));
        // Two that are open at the same time count together.
        let other = Book::open(&directory.0).unwrap();
        assert_eq!(hash(&other, b"anna"), key);
        assert_eq!(take(&other, key, (5, 10)), Some(1));
        assert_eq!(take(&book, key, (5, 10)), Some(0));
        drop((book, other));
        assert_eq!(take(&Book::open(&directory.0).unwrap(), key, (5, 10)), None);
    }

    #[test]
    fn those_that_come_and_go_while_others_count_give_together_what_there_is() {
        const LIMIT: u64 = 20_000;
        let (directory, times) = (Directory::new("quota-together"), Times { now: 5, end: 10, length: 10 });
        let count = |most: u64| {
            let book = Book::open(&directory.0).unwrap();
            (0..most).filter(|_| book.take(7, LIMIT, times).unwrap().remaining.is_some()).count() as u64
        };
        let passed: u64 = std::thread::scope(|scope| {
            let long: Vec<_> = (0..2).map(|_| scope.spawn(|| count(LIMIT))).collect();
            let short: u64 = (0..20).map(|_| count(100)).sum();
            short + long.into_iter().map(|long| long.join().unwrap()).sum::<u64>()
        });
        assert_eq!(passed, LIMIT);
        assert_eq!(count(1), 0);
    }

    #[test]
    fn a_full_memory_is_looked_over_once_a_second_and_makes_room_then() {
        let mut memory = Memory::default();
        let fill = |memory: &mut Memory, end| {
            for key in 0..4 {
                memory.known.insert(key, Record { key, count: 1, end });
            }
        };
        fill(&mut memory, 6);
        assert!(memory.has_room(5, 5));
        assert_eq!([memory.has_room(4, 5), memory.has_room(4, 6)], [false, true]);
        fill(&mut memory, 6);
        // Their period has ended, which nobody has looked for again within the second.
        assert_eq!([memory.has_room(4, 6), memory.has_room(4, 7)], [false, true]);
    }
}
