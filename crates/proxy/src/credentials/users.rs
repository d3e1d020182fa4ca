//! Who is known: users with their hashes, from a document's table and from htpasswd files.
//!
//! Promise: no user stands in it twice; a hash that cannot be checked is a problem that names the user.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::hash::{Hash, StoredHash, Unreadable};
use crate::line_file;
use crate::problem::{At, Problems};

/// What to do about a hash that cannot be used.
const HINT: &str = "make one with `sluice hash-password`, or with `htpasswd -B`";

/// Users, sorted by name.
#[derive(Debug, Default)]
pub struct Users(Vec<User>);

#[derive(Debug)]
struct User {
    name: Arc<str>,
    hash: Arc<Hash>,
}

impl Users {
    /// The users of a document's table, which stands at `at`.
    pub fn listed(table: &BTreeMap<String, StoredHash>, at: &At, problems: &mut Problems) -> Users {
        let mut users = Users::default();
        for (name, hash) in table {
            if let Err(message) = users.add(name, &hash.0) {
                // The line in the document holds the hash, or a password that somebody took for one.
                problems.add(&at.key(name), message).hint(HINT).withhold();
            }
        }
        users
    }

    /// Adds the users of an htpasswd file, which the document names at `at`: lines of `name:hash`; what may
    /// follow behind another colon is passed over. A file without users is a problem: it is more likely to be
    /// half written than meant.
    pub fn read(&mut self, path: &Path, at: &At, problems: &mut Problems) {
        let mut entries = 0;
        let found = problems.iter().count();
        line_file::read(path, at, problems, &mut |entry, _| {
            entries += 1;
            let (name, rest) = entry.split_once(':').ok_or("no colon stands between user and hash")?;
            let hash = rest.split(':').next().unwrap_or(rest);
            self.add(name, hash).map_err(|message| format!("{message}; {HINT}"))
        });
        if entries == 0 && problems.iter().count() == found {
            problems.add(at, format!("{} names no user", path.display()));
        }
    }

    /// # Errors
    /// One sentence, with the user and without the hash.
    fn add(&mut self, name: &str, hash: &str) -> Result<(), String> {
        // RFC 7617 section 2: neither can stand in the credentials that a client sends.
        if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) {
            return Err("a user's name is empty, or has a colon or control characters in it".to_owned());
        }
        let Err(place) = self.0.binary_search_by(|user| (*user.name).cmp(name)) else {
            return Err(format!("user `{name}` stands here or elsewhere already"));
        };
        let hash = Hash::read(hash).map_err(|why: Unreadable| format!("the hash of user `{name}` {why}"))?;
        self.0.insert(place, User { name: name.into(), hash: Arc::new(hash) });
        Ok(())
    }

    /// Adds a user of a document.
    ///
    /// # Errors
    /// One sentence, with the user and without the hash.
    pub fn list(&mut self, name: &str, hash: &StoredHash) -> Result<Arc<str>, String> {
        self.add(name, &hash.0)?;
        Ok(Arc::from(name))
    }

    /// Adds the users of another list.
    ///
    /// # Errors
    /// One sentence, with a user that stands in both.
    pub fn join(&mut self, others: &Users) -> Result<(), String> {
        for User { name, hash } in &others.0 {
            let Err(place) = self.0.binary_search_by(|user| user.name.cmp(name)) else {
                return Err(format!("user `{name}` is a consumer's too"));
            };
            self.0.insert(place, User { name: Arc::clone(name), hash: Arc::clone(hash) });
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A user's name and hash.
    pub fn find(&self, name: &str) -> Option<(&Arc<str>, &Arc<Hash>)> {
        let place = self.0.binary_search_by(|user| (*user.name).cmp(name)).ok()?;
        Some((&self.0[place].name, &self.0[place].hash))
    }

    /// A hash to check in place of one that is not there; `draw` chooses.
    pub(super) fn any(&self, draw: u64) -> Option<&Arc<Hash>> {
        let place = (draw % self.0.len().max(1) as u64) as usize;
        self.0.get(place).map(|user| &user.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_file::tests::TextFile;

    const HASH: &str = "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=";

    #[test]
    fn users_come_from_the_table_and_the_file() {
        let text = format!("# staff\nbob:{HASH}\r\nanna:{HASH}:Anna of sales\n");
        let file = TextFile::new("users", text.as_bytes());
        let mut problems = Problems::new();
        let table = BTreeMap::from([("carl".to_owned(), StoredHash(HASH.to_owned()))]);
        let mut users = Users::listed(&table, &At::root().key("users"), &mut problems);
        users.read(&file.0, &At::root().key("file"), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        for name in ["anna", "bob", "carl"] {
            let (found, hash) = users.find(name).unwrap();
            assert!(&**found == name && hash.is_of(b"correct horse"));
        }
        assert!(users.find("Anna").is_none() && users.find("").is_none());
        assert!((0..4).all(|draw| users.any(draw).is_some()) && Users::default().any(7).is_none());
    }

    #[test]
    fn what_is_wrong_is_told_by_user_and_line_and_never_by_hash() {
        let table = BTreeMap::from([
            ("carl".to_owned(), StoredHash("top-secret".to_owned())),
            ("a:b".to_owned(), StoredHash(HASH.to_owned())),
            ("dora".to_owned(), StoredHash(HASH.to_owned())),
        ]);
        let text = format!("eve:top-secret\nnothing\n:{HASH}\ndora:{HASH}\nfred:$apr1$top-secret$x");
        let file = TextFile::new("wrong-users", text.as_bytes());
        let mut problems = Problems::new();
        let mut users = Users::listed(&table, &At::root().key("users"), &mut problems);
        users.read(&file.0, &At::root().key("file"), &mut problems);
        let told: Vec<String> = problems
            .iter()
            .map(|problem| {
                let message = problem.message.replace(&*file.0.to_string_lossy(), "FILE");
                format!("{}: {}", problem.at, message.split(';').next().unwrap_or_default())
            })
            .collect();
        assert_eq!(
            told,
            [
                "users.a:b: a user's name is empty, or has a colon or control characters in it",
                "users.carl: the hash of user `carl` is in none of the known forms",
                "file: FILE:1: the hash of user `eve` is in none of the known forms",
                "file: FILE:2: no colon stands between user and hash",
                "file: FILE:3: a user's name is empty, or has a colon or control characters in it",
                "file: FILE:4: user `dora` stands here or elsewhere already",
                "file: FILE:5: the hash of user `fred` is a malformed MD5-crypt hash",
            ]
        );
        assert!(!format!("{problems:?}").contains("top-secret"));
    }

    #[test]
    fn a_file_without_users_is_a_problem() {
        let file = TextFile::new("no-users", b"# nobody\n");
        let mut problems = Problems::new();
        Users::default().read(&file.0, &At::root(), &mut problems);
        assert_eq!(problems.iter().count(), 1);
    }
}
