//! The file that quotas are kept in: a table of keys, written with one call for each request.
//!
//! Promise: what [`Sheet::take`] gave is written down when it returns, so killing the process at any moment
//! forgets none and counts none twice. A record that was half written is noticed and the one before it counts.
//! Processes that share the directory count together (the one that goes and the one that comes, while the
//! program is replaced): whoever reads or writes records holds the file's lock.
//!
//! A process that is alone keeps that lock, and remembers what it has read: a request costs one write then. The
//! second file tells who is there: each process holds its lock shared from the moment it comes, and whoever has
//! the first lock sees whether it could have this one for itself ([`Sheet::look`]). When somebody else is there
//! the first lock is taken for each request.
//!
//! The table has sets of [`WAYS`] slots, a key's place given by its hash, each slot with two records that are
//! written in turn. It is sparse: what no key has used takes no room. It holds [`SETS`] x [`WAYS`] keys; a slot
//! is free again when its period has ended.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::purpose::could_make;

/// The names of the files in the directory: the table, and who is there.
const FILE: &str = "quotas";
const PRESENT: &str = "quotas.lock";
/// What the table begins with; another layout has another number.
const MAGIC: &[u8; 16] = b"sluice quotas 1\n";
/// Keys of one set.
const WAYS: usize = 16;
/// Sets, and at how many of them a key may stand.
const SETS: u64 = 1 << 16;
const REACH: u64 = 4;
/// Keys that there is room for.
pub(super) const KEYS: usize = SETS as usize * WAYS;
/// Bytes of a record, of a set, and of what stands before the first one.
const RECORD: usize = 32;
const SLOT: u64 = 2 * RECORD as u64;
const SET: usize = WAYS * SLOT as usize;
const HEAD: u64 = SET as u64;
/// How often a lock is tried for a request: another process holds it for microseconds.
const TRIES: usize = 100_000;
/// How often it is tried by a process that starts, and the pause between: one that was alone lets go of it when it
/// looks again.
const LOOKS: usize = 5_000;
const PAUSE: Duration = Duration::from_millis(1);
/// The most keys that are remembered.
const KNOWN: usize = 1 << 16;

/// A key's use of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: u64,
    /// Requests.
    pub(super) count: u64,
    /// When the period ends, in seconds since 1970.
    pub(super) end: u64,
}

/// What a period has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// How many more may pass; `None`: this one may not.
    pub remaining: Option<u64>,
    /// When the period ends, in seconds since 1970.
    pub end: u64,
}

/// A moment, and the period it is in; in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The moment.
    pub now: u64,
    /// When the period ends.
    pub end: u64,
    /// About how long such periods are.
    pub length: u64,
}

/// The file, opened.
pub(super) struct Sheet {
    file: File,
    present: File,
    /// What was read and written since this process has been alone: as long as it keeps the lock.
    alone: Option<HashMap<u64, Place>>,
}

/// Where a key's next record goes, and its last one.
#[derive(Clone, Copy)]
struct Place {
    record: Option<Record>,
    offset: u64,
    /// Whose place it was, until the period ended.
    instead: Option<u64>,
}

impl Sheet {
    /// Whether there is one in this directory, or one could be made, without touching it.
    pub(super) fn check(directory: &Path) -> io::Result<()> {
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

    /// The one in this directory, which is made when it is not there, and what only it knows.
    ///
    /// # Errors
    /// It cannot be made, or the file there is none of ours.
    pub(super) fn open(directory: &Path) -> io::Result<(Sheet, [u8; 16])> {
        std::fs::create_dir_all(directory)?;
        let open = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(directory.join(name))
        };
        let (present, file) = (open(PRESENT)?, open(FILE)?);
        // In this order: who has the other lock sees that somebody waits for it.
        wait_for(|| present.try_lock_shared())?;
        wait_for(|| file.try_lock())?;
        let locked = Locked(&file);
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
        drop(locked);
        Ok((Sheet { file, present, alone: None }, secret))
    }

    /// Looks whether this process is alone, and from now on keeps the lock or takes it for each request. To be
    /// called again and again: who comes waits for it.
    pub(super) fn look(&mut self) {
        if self.alone.is_none() && self.file.try_lock().is_err() {
            return;
        }
        // Here the lock is ours, so nobody else looks: the other one cannot be lost to somebody who does.
        let alone = self.present.try_lock().is_ok();
        let present = self.present.try_lock_shared().is_ok();
        if alone && present {
            self.alone.get_or_insert_default();
        } else {
            self.alone = None;
            // An open file that was locked can be unlocked.
            let _ = self.file.unlock();
        }
    }

    /// Takes one; see [`Book::take`](super::book::Book::take).
    ///
    /// # Errors
    /// It cannot be written down: then nothing was taken.
    pub(super) fn take(&mut self, key: u64, limit: u64, times: Times) -> io::Result<Left> {
        let Sheet { file, alone, .. } = self;
        let Some(known) = alone else {
            let _locked = Locked::take(file)?;
            let place = find(file, key, times.now)?;
            let (left, taken) = place.take(key, limit, times);
            if let Some(taken) = taken {
                place.write(file, taken)?;
            }
            return Ok(left);
        };
        if let Some(place) = known.get_mut(&key) {
            let (left, taken) = place.take(key, limit, times);
            let Some(taken) = taken else { return Ok(left) };
            if let Err(error) = place.write(file, taken) {
                // Maybe half of it is written: it is read again.
                known.remove(&key);
                return Err(error);
            }
            *place = place.after(taken);
            return Ok(left);
        }
        let place = find(file, key, times.now)?;
        let (left, taken) = place.take(key, limit, times);
        if let Some(taken) = taken {
            place.write(file, taken)?;
            if known.len() >= KNOWN {
                known.clear();
            }
            if let Some(other) = place.instead {
                known.remove(&other);
            }
            known.insert(key, place.after(taken));
        }
        Ok(left)
    }

    /// Whether the lock is kept.
    #[cfg(test)]
    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }
}

impl Place {
    fn take(&self, key: u64, limit: u64, times: Times) -> (Left, Option<Record>) {
        self.record.unwrap_or(Record::new(key, times)).take(limit, times)
    }

    /// The place of the record after this one, which was written.
    fn after(&self, taken: Record) -> Place {
        Place { record: Some(taken), offset: self.offset ^ RECORD as u64, instead: None }
    }

    fn write(&self, file: &File, taken: Record) -> io::Result<()> {
        let bytes = taken.write();
        match self.record {
            // Of two, the one counts whose period ends later: this one is to count alone.
            Some(record) if record.end > taken.end => {
                file.write_all_at([bytes, bytes].as_flattened(), self.offset - self.offset % SLOT)
            }
            _ => file.write_all_at(&bytes, self.offset),
        }
    }
}

/// Tries for a lock until it is there.
fn wait_for(lock: impl Fn() -> Result<(), TryLockError>) -> io::Result<()> {
    for _ in 0..LOOKS {
        match lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::park_timeout(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(kept())
}

fn kept() -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, "another process keeps the file locked")
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
        Err(kept())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // An open file that was locked can be unlocked.
        let _ = self.0.unlock();
    }
}

/// Looks for a key; else for a slot that is free.
fn find(file: &File, key: u64, now: u64) -> io::Result<Place> {
    let mut free: Option<Place> = None;
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
                Some(record) if record.key == key => {
                    return Ok(Place { record: Some(record), offset, instead: None });
                }
                Some(record) if record.end > now => {}
                Some(Record { key: other, .. }) => {
                    free = free.or(Some(Place { record: None, offset, instead: Some(other) }));
                }
                // A slot that nobody has used: behind it the key is not.
                None => return Ok(free.unwrap_or(Place { record: None, offset, instead: None })),
            }
        }
    }
    free.ok_or_else(full)
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
    /// That of a key which has used nothing of a period.
    pub(super) fn new(key: u64, times: Times) -> Record {
        Record { key, count: 0, end: times.end }
    }

    /// What is left after one more, and the next record, if there may be one more. A period that was begun ends
    /// when it was to end, also when the clock is set back. But a clock that was ahead by more than a period was
    /// wrong: nobody is kept out until then, and what was counted by it counts in the present period.
    pub(super) fn take(self, limit: u64, Times { now, end, length }: Times) -> (Left, Option<Record>) {
        let current = match self.end {
            ended if ended <= now => Record { count: 0, end, ..self },
            ahead if ahead > end.saturating_add(2 * length) => Record { end, ..self },
            _ => self,
        };
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

pub(super) fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "there are too many keys with a quota")
}

fn check_magic(found: &[u8]) -> io::Result<()> {
    let foreign =
        || io::Error::new(io::ErrorKind::InvalidData, format!("`{FILE}` there is no file of quotas"));
    if found == MAGIC { Ok(()) } else { Err(foreign()) }
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

        fn sheet(&self) -> Sheet {
            Sheet::open(&self.0).unwrap().0
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn take(sheet: &mut Sheet, key: u64, (now, end): (u64, u64)) -> Option<u64> {
        sheet.take(key, 3, Times { now, end, length: 10 }).unwrap().remaining
    }

    #[test]
    fn whoever_is_alone_keeps_the_lock_until_somebody_comes() {
        let directory = Directory::new("sheet-alone");
        let mut sheet = directory.sheet();
        assert_eq!((take(&mut sheet, 7, (5, 10)), sheet.is_alone()), (Some(2), false));
        sheet.look();
        assert_eq!((take(&mut sheet, 7, (5, 10)), sheet.is_alone()), (Some(1), true));
        let come = std::thread::spawn({
            let path = directory.0.clone();
            move || Sheet::open(&path).unwrap().0
        });
        // It waits until the first one looks again.
        while !come.is_finished() {
            sheet.look();
            std::thread::yield_now();
        }
        let mut other = come.join().unwrap();
        sheet.look();
        other.look();
        assert_eq!((sheet.is_alone(), other.is_alone()), (false, false));
        assert_eq!((take(&mut other, 7, (5, 10)), take(&mut sheet, 7, (5, 10))), (Some(0), None));
        drop(sheet);
        other.look();
        assert_eq!((take(&mut other, 7, (5, 10)), other.is_alone()), (None, true));
    }

    #[test]
    fn of_a_torn_record_the_one_before_counts() {
        let directory = Directory::new("sheet-torn");
        let mut sheet = directory.sheet();
        (0..2).for_each(|_| _ = take(&mut sheet, 7, (5, 10)));
        // The second record of the slot: half of another one is written over it.
        let file = OpenOptions::new().write(true).open(directory.0.join(FILE)).unwrap();
        file.write_all_at(&[0xff; 9], HEAD + 7 * SET as u64 + RECORD as u64).unwrap();
        assert_eq!(take(&mut sheet, 7, (5, 10)), Some(1));
        assert_eq!(take(&mut sheet, 7, (5, 10)), Some(0));
    }

    #[test]
    fn a_place_is_taken_over_when_its_period_has_ended_and_not_before() {
        for is_alone in [false, true] {
            let directory = Directory::new("sheet-full");
            let mut sheet = directory.sheet();
            if is_alone {
                sheet.look();
            }
            let all = WAYS as u64 * REACH;
            // All of them want the same set.
            let key = |number: u64| number * SETS + 3;
            (0..all).for_each(|one| assert_eq!(take(&mut sheet, key(one), (5, 10)), Some(2), "{one}"));
            let full = sheet.take(key(all), 3, Times { now: 5, end: 10, length: 10 });
            assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
            (0..all).for_each(|one| assert_eq!(take(&mut sheet, key(one), (5, 10)), Some(1), "{one}"));
            assert_eq!(take(&mut sheet, key(all), (10, 20)), Some(2));
            // The one whose place that was takes that of another, and so on; the last one finds none.
            let again = |one: &u64| sheet.take(key(*one), 3, Times { now: 10, end: 20, length: 10 }).is_ok();
            assert_eq!((0..all).filter(again).count() as u64, all - 1);
            drop(sheet);
            let mut again = directory.sheet();
            assert_eq!(take(&mut again, key(all), (10, 20)), Some(1));
            assert_eq!(take(&mut again, key(0), (10, 20)), Some(1));
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_keeps_nobody_out_and_what_it_counted_counts() {
        let directory = Directory::new("sheet-ahead");
        for is_alone in [false, true] {
            let mut sheet = directory.sheet();
            if is_alone {
                sheet.look();
            }
            let key = 7 + u64::from(is_alone);
            assert_eq!(take(&mut sheet, key, (1_005, 1_010)), Some(2));
            assert_eq!(take(&mut sheet, key, (5, 10)), Some(1));
            drop(sheet);
            let mut again = directory.sheet();
            assert_eq!([take(&mut again, key, (5, 10)), take(&mut again, key, (5, 10))], [Some(0), None]);
            assert_eq!(take(&mut again, key, (10, 20)), Some(2));
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_not_touched() {
        let directory = Directory::new("sheet-foreign");
        std::fs::create_dir_all(&directory.0).unwrap();
        let foreign = vec![b'x'; SET];
        std::fs::write(directory.0.join(FILE), &foreign).unwrap();
        let opened = Sheet::open(&directory.0).map(|_| ());
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Sheet::check(&directory.0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(directory.0.join(FILE)).unwrap(), foreign);
    }

    #[test]
    fn looking_for_a_sheet_makes_none() {
        let directory = Directory::new("quota-look");
        Sheet::check(&directory.0).unwrap();
        assert!(!directory.0.exists());
        Sheet::open(&directory.0).unwrap();
        Sheet::check(&directory.0).unwrap();
    }
}
