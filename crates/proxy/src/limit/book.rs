//! Quotas on local disk: how much each key has used of its period, exact to the request.
//!
//! Promise: a request is written down, with one write, before it passes: killing the process at any moment
//! forgets none and counts none twice. A record that was half written is noticed and the one before it counts.
//! Processes that share the directory count together (the one that goes and the one that comes, while the
//! program is replaced). What the kernel had not brought to disk when the machine failed is lost.
//!
//! The file is a table: sets of [`WAYS`] slots, a key's place given by its hash, each slot with two records that
//! are written in turn. It is sparse: what no key has used takes no room. It holds [`SETS`] x [`WAYS`] keys; a
//! slot is free again when its period has ended.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::key::Key;
use crate::purpose::could_make;

/// The name of the file in the directory.
const FILE: &str = "quotas";
/// What the file begins with; another layout has another number.
const MAGIC: &[u8; 16] = b"sluice quotas 1\n";
/// Keys of one set.
const WAYS: usize = 16;
/// Sets, and at how many of them a key may stand.
const SETS: u64 = 1 << 16;
const REACH: u64 = 4;
/// Bytes of a record, of a set, and of what stands before the first one.
const RECORD: usize = 32;
const SET: usize = WAYS * 2 * RECORD;
const HEAD: u64 = SET as u64;
/// How often the file's lock is tried: another process holds it for microseconds.
const TRIES: usize = 100_000;

/// A key's use of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    key: u64,
    /// Requests.
    count: u64,
    /// When the period ends, in seconds since 1970.
    end: u64,
}

/// What a period has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// How many more may pass; `None`: this one may not.
    pub remaining: Option<u64>,
    /// When the period ends, in seconds since 1970.
    pub end: u64,
}

/// How much keys have used.
pub struct Book {
    /// Keys are hashed with what is only in the file: nobody can choose a key that meets another's.
    secret: [u8; 16],
    pages: Mutex<Pages>,
}

enum Pages {
    File(File),
    Memory(Memory),
}

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
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Book(..)")
    }
}

impl Book {
    /// The one in this directory, which is made when it is not there.
    ///
    /// # Errors
    /// It cannot be made, or the file there is none of ours.
    pub fn open(directory: &Path) -> io::Result<Book> {
        std::fs::create_dir_all(directory)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).mode(0o600).open(directory.join(FILE))?;
        let _locked = Locked::take(&file)?;
        let mut head = [0; 32];
        if file.metadata()?.len() < HEAD {
            head[..16].copy_from_slice(MAGIC);
            head[16..24].copy_from_slice(&fastrand::u64(..).to_le_bytes());
            head[24..].copy_from_slice(&fastrand::u64(..).to_le_bytes());
            file.write_all_at(&head, 0)?;
            file.set_len(HEAD + SETS * SET as u64)?;
        }
        file.read_exact_at(&mut head, 0)?;
        check_magic(&head[..16])?;
        let mut secret = [0; 16];
        secret.copy_from_slice(&head[16..]);
        drop(_locked);
        Ok(Book { secret, pages: Mutex::new(Pages::File(file)) })
    }

    /// Whether there is one in this directory, or one could be made, without touching it.
    ///
    /// # Errors
    /// As [`Book::open`].
    pub fn look(directory: &Path) -> io::Result<()> {
        let path = directory.join(FILE);
        could_make(&path)?;
        let mut magic = [0; MAGIC.len()];
        match File::open(path) {
            // One that is shorter is being made.
            Ok(file) if file.metadata()?.len() < HEAD => Ok(()),
            Ok(file) => file.read_exact_at(&mut magic, 0).and_then(|()| check_magic(&magic)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One that is forgotten with the process.
    pub fn in_memory() -> Book {
        Book {
            secret: [0; 16].map(|_: u8| fastrand::u8(..)),
            pages: Mutex::new(Pages::Memory(Memory::default())),
        }
    }

    /// Stands for a key of a quota in this book.
    pub(super) fn hash(&self, quota: &str, key: Key<'_>) -> u64 {
        let kind = [key.kind as u8];
        let length = (quota.len() as u64).to_le_bytes();
        let parts: [&[u8]; 5] = [&self.secret, &length, quota.as_bytes(), &kind, key.bytes];
        let digest = parts.iter().fold(Sha256::new(), Sha256::chain_update).finalize();
        digest[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }

    /// Takes one of `limit` in the period that ends at `end`; `now` and `end` are seconds since 1970. A period
    /// that was begun ends when it was to end, also when the clock is set back.
    ///
    /// # Errors
    /// It cannot be written down: then nothing was taken.
    pub fn take(&self, key: u64, limit: u64, (now, end): (u64, u64)) -> io::Result<Left> {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *pages {
            Pages::Memory(memory) => {
                if !memory.known.contains_key(&key) && !memory.has_room(SETS as usize * WAYS, now) {
                    return Err(full());
                }
                let record = memory.known.entry(key).or_insert(Record { key, count: 0, end });
                let (left, taken) = record.take(limit, (now, end));
                *record = taken.unwrap_or(*record);
                Ok(left)
            }
            Pages::File(file) => {
                let _locked = Locked::take(file)?;
                let found = find(file, key, now)?;
                let record = found.record.unwrap_or(Record { key, count: 0, end });
                let (left, taken) = record.take(limit, (now, end));
                if let Some(taken) = taken {
                    file.write_all_at(&taken.write(), found.offset)?;
                }
                Ok(left)
            }
        }
    }
}

fn check_magic(found: &[u8]) -> io::Result<()> {
    let foreign =
        || io::Error::new(io::ErrorKind::InvalidData, format!("`{FILE}` there is no file of quotas"));
    if found == MAGIC { Ok(()) } else { Err(foreign()) }
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "there are too many keys with a quota")
}

/// The lock of the file, between processes.
struct Locked<'a>(&'a File);

impl Locked<'_> {
    fn take(file: &File) -> io::Result<Locked<'_>> {
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Locked(file)),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "another process keeps the file locked"))
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // An open file that was locked can be unlocked.
        let _ = self.0.unlock();
    }
}

/// Where a key's next record goes, and its last one.
struct Found {
    record: Option<Record>,
    offset: u64,
}

/// Looks for a key; else for a slot that is free.
fn find(file: &File, key: u64, now: u64) -> io::Result<Found> {
    let mut free = None;
    for step in 0..REACH {
        let offset = HEAD + (key.wrapping_add(step) % SETS) * SET as u64;
        let mut set = [0; SET];
        file.read_exact_at(&mut set, offset)?;
        for (slot, place) in set.as_chunks::<{ 2 * RECORD }>().0.iter().zip(0..) {
            let offset = offset + place * 2 * RECORD as u64;
            let (last, half) = last(slot);
            // The other half is written: a torn record leaves this one.
            let offset = offset + if half == 0 { RECORD as u64 } else { 0 };
            match last {
                Some(record) if record.key == key => return Ok(Found { record: Some(record), offset }),
                Some(record) if record.end > now => {}
                Some(_) => free = free.or(Some(offset)),
                // A slot that nobody has used: behind it the key is not.
                None => return Ok(Found { record: None, offset: free.unwrap_or(offset) }),
            }
        }
    }
    free.map(|offset| Found { record: None, offset }).ok_or_else(full)
}

/// The last record of a slot that is whole, and in which half it stands.
fn last(slot: &[u8; 2 * RECORD]) -> (Option<Record>, usize) {
    let halves = slot.as_chunks::<RECORD>().0;
    let [first, second] = [0, 1].map(|half: usize| halves.get(half).and_then(Record::read));
    match (first, second) {
        (Some(first), Some(second)) if (second.end, second.count) > (first.end, first.count) => {
            (Some(second), 1)
        }
        (Some(first), _) => (Some(first), 0),
        (None, second) => (second, 1),
    }
}

impl Record {
    /// What is left after one more, and what is to be written down.
    fn take(self, limit: u64, (now, end): (u64, u64)) -> (Left, Option<Record>) {
        let current = if self.end > now { self } else { Record { count: 0, end, ..self } };
        if current.count >= limit {
            return (Left { remaining: None, end: current.end }, None);
        }
        let taken = Record { count: current.count + 1, ..current };
        (Left { remaining: Some(limit - taken.count), end: current.end }, Some(taken))
    }

    fn read(bytes: &[u8; RECORD]) -> Option<Record> {
        let word = |place: usize| {
            bytes[place * 8..][..8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        let record = Record { key: word(0), count: word(1), end: word(2) };
        (word(3) == record.sum()).then_some(record)
    }

    fn write(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let words = [self.key, self.count, self.end, self.sum()];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }

    /// Tells a whole record from one that was half written, and from none.
    fn sum(self) -> u64 {
        let mut bytes = [0; 24];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip([self.key, self.count, self.end]) {
            *place = word.to_le_bytes();
        }
        xxh3_64_with_seed(&bytes, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

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

    fn remaining(book: &Book, key: u64, times: (u64, u64)) -> Option<u64> {
        book.take(key, 3, times).unwrap().remaining
    }

    #[test]
    fn a_quota_is_used_up_and_comes_back_with_the_next_period() {
        let directory = Directory::new("quota-periods");
        for book in [Book::open(&directory.0).unwrap(), Book::in_memory()] {
            let take = |times| remaining(&book, 7, times);
            assert_eq!(
                [take((5, 10)), take((5, 10)), take((9, 10)), take((9, 10))],
                [Some(2), Some(1), Some(0), None]
            );
            // The clock was set back by a period: what was begun ends when it was to end.
            assert_eq!(take((1, 5)), None);
            assert_eq!(take((10, 20)), Some(2));
            assert_eq!(remaining(&book, 8, (10, 20)), Some(2));
        }
    }

    #[test]
    fn what_was_written_down_is_there_when_it_is_opened_again() {
        let directory = Directory::new("quota-again");
        let book = Book::open(&directory.0).unwrap();
        let key = book.hash("q", Key::value(b"anna"));
        assert_ne!(key, book.hash("q", Key::value(b"bob")));
        assert_eq!(remaining(&book, key, (5, 10)), Some(2));
        // Two that are open at the same time count together.
        let other = Book::open(&directory.0).unwrap();
        assert_eq!(other.hash("q", Key::value(b"anna")), key);
        assert_eq!(remaining(&other, key, (5, 10)), Some(1));
        assert_eq!(remaining(&book, key, (5, 10)), Some(0));
        drop((book, other));
        assert_eq!(remaining(&Book::open(&directory.0).unwrap(), key, (5, 10)), None);
    }

    #[test]
    fn of_a_torn_record_the_one_before_counts() {
        let directory = Directory::new("quota-torn");
        let book = Book::open(&directory.0).unwrap();
        (0..2).for_each(|_| _ = remaining(&book, 7, (5, 10)));
        // The second record of the slot: half of another one is written over it.
        let file = OpenOptions::new().write(true).open(directory.0.join(FILE)).unwrap();
        file.write_all_at(&[0xff; 9], HEAD + 7 * SET as u64 + RECORD as u64).unwrap();
        assert_eq!(remaining(&book, 7, (5, 10)), Some(1));
        assert_eq!(remaining(&book, 7, (5, 10)), Some(0));
    }

    #[test]
    fn a_place_is_taken_over_when_its_period_has_ended_and_not_before() {
        let directory = Directory::new("quota-full");
        let book = Book::open(&directory.0).unwrap();
        let all = WAYS as u64 * REACH;
        // All of them want the same set.
        let key = |number: u64| number * SETS + 3;
        (0..all).for_each(|number| assert_eq!(remaining(&book, key(number), (5, 10)), Some(2), "{number}"));
        assert_eq!(book.take(key(all), 3, (5, 10)).unwrap_err().kind(), io::ErrorKind::StorageFull);
        (0..all).for_each(|number| assert_eq!(remaining(&book, key(number), (5, 10)), Some(1), "{number}"));
        assert_eq!(remaining(&book, key(all), (10, 20)), Some(2));
        assert_eq!(remaining(&book, key(all), (10, 20)), Some(1));
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

    #[test]
    fn looking_for_a_book_makes_none() {
        let directory = Directory::new("quota-look");
        Book::look(&directory.0).unwrap();
        assert!(!directory.0.exists());
        Book::open(&directory.0).unwrap();
        Book::look(&directory.0).unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_is_not_touched() {
        let directory = Directory::new("quota-foreign");
        std::fs::create_dir_all(&directory.0).unwrap();
        let foreign = vec![b'x'; SET];
        std::fs::write(directory.0.join(FILE), &foreign).unwrap();
        assert_eq!(Book::open(&directory.0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Book::look(&directory.0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(directory.0.join(FILE)).unwrap(), foreign);
    }
}
