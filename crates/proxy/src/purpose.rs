//! Why something is built: to run, or only to find out what is wrong with it (`sluice check`).
//!
//! Promise: what is built to be looked at opens no socket, starts no thread and no task, and makes, writes and removes
//! no file; whether a file could be written is told from what is there.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Why something is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To run.
    #[default]
    Running,
    /// To find out what is wrong with it.
    Looking,
}

/// Whether a file could be opened for writing, and made in its folder when it is not there.
///
/// # Errors
/// Why not.
pub fn could_write(file: &Path) -> io::Result<()> {
    match std::fs::OpenOptions::new().append(true).open(file) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => could_add(folder(file)),
        Err(error) => Err(error),
    }
}

/// The same, where folders that are missing are made too.
///
/// # Errors
/// Why not.
pub fn could_make(file: &Path) -> io::Result<()> {
    match could_write(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = file.ancestors().skip(2).find(|folder| folder.exists());
            could_add(above.unwrap_or(Path::new(".")))
        }
        known => known,
    }
}

/// Whether a file could be added to a folder.
///
/// # Errors
/// Why not.
pub fn could_add(folder: &Path) -> io::Result<()> {
    let found = folder.metadata()?;
    match (found.is_dir(), may_write(&found)) {
        (true, true) => Ok(()),
        (true, false) => Err(io::ErrorKind::PermissionDenied.into()),
        (false, _) => Err(io::ErrorKind::NotADirectory.into()),
    }
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// By the rights of its owner, its group and others, whichever this process counts for.
fn may_write(folder: &std::fs::Metadata) -> bool {
    let user = rustix::process::geteuid();
    let of_group = || {
        let own = rustix::process::getegid().as_raw() == folder.gid();
        let others = rustix::process::getgroups().unwrap_or_default();
        own || others.iter().any(|group| group.as_raw() == folder.gid())
    };
    let shift = match () {
        () if user.is_root() => return true,
        () if user.as_raw() == folder.uid() => 6,
        () if of_group() => 3,
        () => 0,
    };
    // To write and to enter.
    folder.mode() >> shift & 0o3 == 0o3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_a_file_could_be_written_is_told_without_touching_it() {
        let folder = std::env::temp_dir().join(format!("sluice-purpose-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(could_write(&file).is_ok() && could_write(&folder.join("new")).is_ok());
        assert_eq!(could_write(&folder.join("a/new")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(
            could_make(&folder.join("a/b/new")).is_ok() && could_make(Path::new("sluice-no/such")).is_ok()
        );
        assert_eq!(could_make(&file.join("a/new")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(could_write(&file.join("new")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(could_write(&folder).is_err());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
        let _ = std::fs::remove_dir_all(&folder);
    }
}
