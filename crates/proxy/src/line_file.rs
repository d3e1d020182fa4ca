//! Files with one entry on each line: lists of users and of networks.
//!
//! Promise: an empty line, and one that begins with "#", says nothing; what is wrong is told with the file's
//! name and the line's number, and a file that is wrong everywhere does not fill the screen.

use std::path::Path;

use crate::problem::{At, Problems};

/// The most wrong lines of one file that are told one by one.
const MOST_TOLD: usize = 20;

/// Reads a file, which the document names at `at`, and gives each entry with its line's number, from 1. What
/// `take` says against an entry becomes a problem: one sentence, lower-case, no full stop.
pub fn read(
    path: &Path,
    at: &At,
    problems: &mut Problems,
    take: &mut dyn FnMut(&str, usize) -> Result<(), String>,
) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.add(at, format!("{} cannot be read: {error}", path.display()));
            return;
        }
    };
    let mut wrong = 0;
    for (index, line) in text.lines().enumerate() {
        let entry = line.trim();
        if entry.is_empty() || entry.starts_with('#') {
            continue;
        }
        if let Err(message) = take(entry, index + 1) {
            wrong += 1;
            if wrong <= MOST_TOLD {
                problems.add(at, format!("{}:{}: {message}", path.display(), index + 1));
            }
        }
    }
    if wrong > MOST_TOLD {
        problems.add(at, format!("{}: {} more lines are wrong", path.display(), wrong - MOST_TOLD));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A file of this text, gone when it is dropped.
    pub(crate) struct TextFile(pub(crate) PathBuf);

    impl TextFile {
        pub(crate) fn new(name: &str, text: &[u8]) -> TextFile {
            let path = std::env::temp_dir().join(format!("sluice-{}-{name}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            TextFile(path)
        }
    }

    impl Drop for TextFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn lines(file: &Path, mut take: impl FnMut(&str, usize) -> Result<(), String>) -> Vec<String> {
        let mut problems = Problems::new();
        read(file, &At::root().key("file"), &mut problems, &mut take);
        problems.iter().map(|problem| problem.message.replace(&*file.to_string_lossy(), "FILE")).collect()
    }

    #[test]
    fn entries_come_with_their_lines_and_the_rest_is_passed_over() {
        let file = TextFile::new("lines", b"# a\r\n\n one \r\n  # b\ntwo");
        let mut seen = Vec::new();
        let problems = lines(&file.0, |entry, line| {
            seen.push((entry.to_owned(), line));
            Ok(())
        });
        assert!(problems.is_empty());
        assert_eq!(seen, [("one".to_owned(), 3), ("two".to_owned(), 5)]);
    }

    #[test]
    fn wrong_lines_are_named_and_the_last_of_many_are_counted() {
        let file = TextFile::new("wrong", "x\n".repeat(25).as_bytes());
        let problems = lines(&file.0, |entry, _| Err(format!("`{entry}` is wrong")));
        assert_eq!(problems.len(), 21);
        assert_eq!((&*problems[1], &*problems[20]), ("FILE:2: `x` is wrong", "FILE: 5 more lines are wrong"));
    }

    #[test]
    fn a_file_that_is_no_text_or_is_not_there_is_a_problem() {
        let file = TextFile::new("bytes", b"\xff\xfe");
        for path in [&*file.0, Path::new("/no/such/file")] {
            assert_eq!(lines(path, |_, _| Ok(())).len(), 1, "{}", path.display());
        }
    }
}
