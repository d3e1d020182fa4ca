//! A directory of one test, removed when it ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A fresh directory; dropping it removes it with all that is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty directory.
    pub fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-test-{}-{number}", std::process::id()));
        // A leftover of a killed run whose process id came round again.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the file `name` in it is or would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file so that a reader sees the old or the new content, never a part: by rename.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let (draft, path) = (self.file(&format!(".{name}.new")), self.file(name));
        std::fs::write(&draft, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", draft.display()));
        std::fs::rename(&draft, &path)
            .unwrap_or_else(|error| panic!("cannot rename to {}: {error}", path.display()));
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
