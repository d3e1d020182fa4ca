//! Where the writing thread writes.
//!
//! Promise: each buffer is one write to a file opened for appending, so lines of several writers, even of
//! two processes during a hand-over, never mix inside a line. After a write that ended in the middle of a
//! line, the next one starts a new line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::config::Place;

/// A place for lines.
pub(super) trait Output: Send {
    /// Writes whole lines.
    fn write(&mut self, text: &[u8]) -> io::Result<()>;
    /// Opens the place again by its name; the old one stays when that fails.
    fn reopen(&mut self) -> io::Result<()>;
    /// For messages to the operator.
    fn name(&self) -> String;
}

pub(super) fn open(place: &Place) -> io::Result<Box<dyn Output>> {
    Ok(match place {
        Place::Stdout => Box::new(Stdout { torn: false }),
        Place::File(path) => Box::new(Appended { file: append(path)?, path: path.clone(), torn: false }),
    })
}

struct Stdout {
    torn: bool,
}

impl Output for Stdout {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        write_lines(&mut out, text, &mut self.torn)?;
        out.flush()
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "-".to_owned()
    }
}

struct Appended {
    path: PathBuf,
    file: File,
    torn: bool,
}

impl Output for Appended {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        write_lines(&mut self.file, text, &mut self.torn)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.torn = false;
        Ok(())
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The file belongs to its owner and group: what clients ask for is nobody else's business.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

/// `write_all`, but it keeps in mind whether a failure left half a line behind.
fn write_lines(out: &mut dyn Write, text: &[u8], torn: &mut bool) -> io::Result<()> {
    if *torn {
        out.write_all(b"\n")?;
        *torn = false;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let error = match out.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(length) => {
                rest = &rest[length..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let written = &text[..text.len() - rest.len()];
        *torn = written.last().is_some_and(|last| *last != b'\n');
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes, then fails until it is given more.
    struct Disk {
        room: usize,
        text: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room);
            if length == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= length;
            self.text.extend_from_slice(&bytes[..length]);
            Ok(length)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn after_half_a_line_the_next_write_starts_a_new_one() {
        let (mut disk, mut torn) = (Disk { room: 6, text: Vec::new() }, false);
        assert!(write_lines(&mut disk, b"one\ntwo\n", &mut torn).is_err());
        assert!(torn);
        assert!(write_lines(&mut disk, b"three\n", &mut torn).is_err());
        disk.room = 100;
        write_lines(&mut disk, b"four\n", &mut torn).unwrap();
        write_lines(&mut disk, b"five\n", &mut torn).unwrap();
        assert_eq!(disk.text, b"one\ntw\nfour\nfive\n");
    }

    #[test]
    fn a_write_that_failed_between_lines_leaves_nothing_to_repair() {
        let (mut disk, mut torn) = (Disk { room: 4, text: Vec::new() }, false);
        assert!(write_lines(&mut disk, b"one\ntwo\n", &mut torn).is_err());
        disk.room = 100;
        write_lines(&mut disk, b"three\n", &mut torn).unwrap();
        assert_eq!(disk.text, b"one\nthree\n");
    }
}
