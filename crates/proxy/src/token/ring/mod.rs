//! Keys that the gateway signs tokens with: made at the first start, kept in a directory and replaced in time; or given
//! in files, which whoever gave them replaces.
//!
//! Promise: a private key stands in one file that only its owner may read, and never in a document; an old key checks
//! tokens as long as any of its own can be valid. Processes that use one directory sign with the same keys, and hear
//! within a second which tokens another has taken back. `jwks.json` in it holds the public keys, for anybody.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::file::{self, Locked};
use super::keys::{Keys, Source};
use super::revoked::{Elsewhere, Ledger, Revoked};
use super::signing::{Key, Signing};
use crate::purpose::{Purpose, could_make};
use crate::redis::Server;

const SIGNING: &str = "signing-keys.json";
const PUBLISHED: &str = "jwks.json";

/// Directories in which tokens are issued, and how long the longest of each lives, in seconds.
pub type Directories = BTreeMap<String, u64>;

/// One key as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    /// In seconds since 1970.
    made: u64,
    /// PKCS #8, in base64url.
    private: String,
    #[serde(default)]
    algorithm: Signing,
}

/// How keys are kept, and what was taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct Keeping {
    /// Where. None: keys are given, and what was taken back is forgotten with the process.
    pub directory: Option<PathBuf>,
    /// Where keys come from.
    pub origin: Origin,
    /// How long the longest token lives, in seconds.
    pub longest: u64,
    /// Where gateways tell each other what was taken back.
    pub shared: Option<Server>,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are made here.
    Made {
        /// For this.
        algorithm: Signing,
        /// How old a key that signs may be, in seconds.
        rotate: u64,
    },
    /// They stand in files. The first signs.
    Given(Vec<Given>),
}

/// A key that somebody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its file.
    pub file: PathBuf,
    /// Its id; its thumbprint otherwise.
    pub id: Option<String>,
    /// Its algorithm; the usual one of its kind otherwise.
    pub algorithm: Option<Signing>,
}

/// A file as it was read.
type Stamp = Option<(u64, i64, i64, u64)>;

/// What signs and checks at the moment.
pub(super) struct Present {
    kept: Vec<Kept>,
    signer: Key,
    keys: Arc<Keys>,
    published: Arc<str>,
    stamp: Stamp,
}

impl Present {
    /// Of these keys, the signing one first.
    fn of(all: Vec<Key>, kept: Vec<Kept>, stamp: Stamp) -> Result<Present, String> {
        let published = json!({ "keys": all.iter().map(|key| &key.public).collect::<Vec<_>>() }).to_string();
        let keys = Arc::new(Keys::read(&published, Source::Own)?);
        let signer = all.into_iter().next().ok_or("there is no key")?;
        Ok(Present { kept, signer, keys, published: published.into(), stamp })
    }
}

impl Present {
    fn number(&self) -> u64 {
        xxh3_64(self.published.as_bytes())
    }
}

/// What signs and checks, for all that use it.
pub(super) struct Place {
    present: Mutex<Arc<Present>>,
    /// Stands for the keys: read by each request, without a lock.
    number: AtomicU64,
}

impl Place {
    pub(super) fn new(present: Present) -> Place {
        Place { number: AtomicU64::new(present.number()), present: Mutex::new(Arc::new(present)) }
    }

    fn replace(&self, next: Present) {
        let number = next.number();
        *self.present.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.number.store(number, Relaxed);
    }
}

/// Keys that sign, and what was taken back of what they signed.
pub struct Ring {
    pub(super) keeping: Keeping,
    /// Shared with the ring before it, when another document keeps it otherwise.
    pub(super) place: Arc<Place>,
    ledger: Option<Ledger>,
    revoked: Arc<Revoked>,
    elsewhere: Option<Elsewhere>,
    /// The second in which the directory was looked at last.
    looked: AtomicU64,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ring").field(&self.keeping.directory).finish()
    }
}

/// A token could not be taken back, or nobody knows whether it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl Ring {
    pub(super) fn new(
        keeping: &Keeping,
        place: Arc<Place>,
        (revoked, elsewhere): (&Arc<Revoked>, Option<Elsewhere>),
    ) -> Ring {
        Ring {
            keeping: keeping.clone(),
            place,
            ledger: keeping.directory.as_deref().map(Ledger::new),
            revoked: Arc::clone(revoked),
            elsewhere,
            looked: AtomicU64::new(0),
        }
    }

    fn present(&self) -> Arc<Present> {
        Arc::clone(&self.place.present.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A signed token of this type (`typ` of RFC 7515) with these claims; a mark before it is signed with the rest.
    pub fn token(&self, (mark, typ): (&str, &str), claims: &Map<String, Value>) -> Option<String> {
        let present = self.present();
        let algorithm = format!("{:?}", present.signer.algorithm()?);
        let header = json!({ "alg": algorithm, "typ": typ, "kid": present.signer.id }).to_string();
        let payload = serde_json::to_vec(claims).ok()?;
        let message = format!("{mark}{}.{}", BASE64.encode(header), BASE64.encode(payload));
        let signature = present.signer.sign(message.as_bytes())?;
        Some(format!("{message}.{signature}"))
    }

    /// The keys that check its tokens.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.present().keys)
    }

    /// Stands for these keys: others have another number.
    pub fn number(&self) -> u64 {
        self.place.number.load(Relaxed)
    }

    /// The keys once more, for a token that names another one: a second process may have made it. Looks into the
    /// directory at most once a second.
    pub fn renewed(&self, now: u64) -> Arc<Keys> {
        if self.looked.swap(now, Relaxed) != now {
            self.reread();
        }
        self.keys()
    }

    /// The public keys as a JWK set (RFC 7517).
    pub fn published(&self) -> Arc<str> {
        Arc::clone(&self.present().published)
    }

    /// Takes a token back that ends at `end`. False: it was taken back before.
    ///
    /// # Errors
    /// It could not be written down for others: it is taken back here alone.
    pub async fn take_back(self: &Arc<Ring>, id: String, end: u64, now: u64) -> Result<bool, Unknown> {
        let mut first = true;
        if let Some(elsewhere) = &self.elsewhere {
            let told = elsewhere.take_back((&id, end), now).await;
            if told.is_err() {
                self.revoked.add(&id, end, now);
            }
            first = told.map_err(|_| Unknown)?;
        }
        let ring = Arc::clone(self);
        let here = tokio::task::spawn_blocking(move || match &ring.ledger {
            Some(ledger) => ledger.take_back(&ring.revoked, (&id, end), now).map_err(|_| {
                ring.revoked.add(&id, end, now);
                Unknown
            }),
            None => Ok(ring.revoked.add(&id, end, now)),
        });
        // Redis knows of all gateways, where it is asked.
        let here = here.await.map_err(|_| Unknown)??;
        Ok(first && (here || self.elsewhere.is_some()))
    }

    /// What other gateways have taken back, when they tell each other.
    pub fn elsewhere(&self) -> Option<&Elsewhere> {
        self.elsewhere.as_ref()
    }

    /// Whether a token was taken back.
    ///
    /// # Errors
    /// Redis has no answer.
    pub async fn is_revoked(&self, id: &str) -> Result<bool, Unknown> {
        match &self.elsewhere {
            _ if self.revoked.holds(id) => Ok(true),
            Some(elsewhere) => elsewhere.holds(id).await.map_err(|_| Unknown),
            None => Ok(false),
        }
    }

    /// Reads what was taken back before.
    pub(super) fn begin(&self, now: u64) -> Result<(), String> {
        let read = self.ledger.as_ref().map_or(Ok(()), |ledger| ledger.follow(&self.revoked, now));
        read.map_err(|error| format!("what was taken back cannot be read: {error}"))
    }

    /// Takes over what other processes have written in the directory.
    pub(super) fn follow(&self, now: u64) {
        if let Some(ledger) = &self.ledger {
            // What cannot be read now is read a second later.
            let _ = ledger.follow(&self.revoked, now);
        }
        self.reread();
    }

    fn reread(&self) {
        let (Origin::Made { .. }, Some(directory)) = (&self.keeping.origin, &self.keeping.directory) else {
            return;
        };
        let path = directory.join(SIGNING);
        if stamp(&path) != self.present().stamp
            && let Ok(next) = read(&path).and_then(|(kept, stamp)| present(kept, stamp))
        {
            self.place.replace(next);
        }
    }

    /// Makes a new key when the present one is too old or of another algorithm, and forgets what has ended.
    pub(super) fn look(&self, now: u64) {
        self.revoked.tidy(now);
        if let Some(ledger) = &self.ledger {
            // It stays longer than it needs to then.
            let _ = ledger.tidy(now);
        }
        let Some(directory) = &self.keeping.directory else { return };
        if !is_due(&self.present().kept, &self.keeping, now) {
            return;
        }
        let renewed = (|| {
            let _locked = Locked::take(directory).map_err(|error| error.to_string())?;
            // Another process may have made one.
            let (kept, _) = read(&directory.join(SIGNING))?;
            renew(kept, directory, &self.keeping, (now, Purpose::Running))
        })();
        // When the directory cannot be written the present key goes on.
        if let Ok(next) = renewed {
            self.place.replace(next);
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
}

fn read(path: &Path) -> Result<(Vec<Kept>, Stamp), String> {
    let before = stamp(path);
    match std::fs::read(path) {
        Ok(bytes) => {
            let kept = serde_json::from_slice(&bytes).map_err(|_| format!("{SIGNING} in it is broken"))?;
            Ok((kept, before))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((Vec::new(), None)),
        Err(error) => Err(format!("{SIGNING} in it cannot be read: {error}")),
    }
}

/// Whether another key is to sign.
fn is_due(kept: &[Kept], keeping: &Keeping, now: u64) -> bool {
    let Origin::Made { algorithm, rotate } = keeping.origin else { return false };
    let newest = kept.iter().max_by_key(|key| key.made);
    newest.is_none_or(|key| key.made + rotate <= now || key.algorithm != algorithm)
}

/// The keys that are still of use, the newest first, with a new one when that is due; written down.
fn renew(
    mut kept: Vec<Kept>,
    directory: &Path,
    keeping: &Keeping,
    (now, purpose): (u64, Purpose),
) -> Result<Present, String> {
    let Origin::Made { algorithm, rotate } = keeping.origin else {
        return Err("its keys are given".to_owned());
    };
    let before = kept.len();
    kept.retain(|key| now < key.made + rotate + keeping.longest + rotate);
    let path = directory.join(SIGNING);
    if is_due(&kept, keeping, now) {
        let private = algorithm.make().ok_or("no key could be made")?;
        let id = random_id().ok_or("the system gave no random numbers")?;
        kept.insert(0, Kept { id, made: now, private: BASE64.encode(private), algorithm });
    } else if kept.len() == before {
        return present(kept, stamp(&path));
    }
    if purpose == Purpose::Looking {
        return present(kept, None);
    }
    let bytes = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
    let mut next = present(kept, None)?;
    let write = |name: &str, bytes: &[u8], mode| {
        let written = file::replace(&directory.join(name), bytes, mode);
        written.map_err(|error| format!("{name} in it cannot be written: {error}"))
    };
    write(SIGNING, &bytes, 0o600)?;
    write(PUBLISHED, next.published.as_bytes(), 0o644)?;
    next.stamp = stamp(&path);
    Ok(next)
}

fn present(mut kept: Vec<Kept>, stamp: Stamp) -> Result<Present, String> {
    // Of two that were made in the same second the first in the file.
    kept.sort_by_key(|key| std::cmp::Reverse(key.made));
    let broken = || format!("{SIGNING} in it holds a broken key");
    let key = |key: &Kept| {
        let der = BASE64.decode(&key.private).map_err(|_| broken())?;
        Key::made(&der, &key.id, key.algorithm).map_err(|_| broken())
    };
    let all = kept.iter().map(key).collect::<Result<Vec<_>, String>>()?;
    Present::of(all, kept, stamp)
}

/// The keys that stand in files.
pub(super) fn given(files: &[Given]) -> Result<Present, String> {
    let mut all: Vec<Key> = Vec::new();
    for file in files {
        let name = file.file.display();
        let text =
            std::fs::read_to_string(&file.file).map_err(|error| format!("{name} cannot be read: {error}"))?;
        let key = Key::read(&text, file.id.as_deref(), file.algorithm);
        let key = key.map_err(|why| format!("{name} cannot be used: {why}"))?;
        if all.iter().any(|other| other.id == key.id) {
            return Err(format!("{name} has the same id as another key"));
        }
        all.push(key);
    }
    match all.first() {
        Some(first) if first.algorithm().is_none() => {
            Err("the first key is to sign, and is a public one".to_owned())
        }
        _ => Present::of(all, Vec::new(), None),
    }
}

/// Makes the directory when it is not there, or finds out whether it could.
pub(super) fn stands(directory: &Path, purpose: Purpose) -> Result<(), String> {
    match purpose {
        Purpose::Running => std::fs::create_dir_all(directory),
        Purpose::Looking => could_make(&directory.join(SIGNING)),
    }
    .map_err(|error| format!("it cannot be made: {error}"))
}

/// What stands in a directory; made when nothing does.
pub(super) fn made(directory: &Path, keeping: &Keeping, now: (u64, Purpose)) -> Result<Present, String> {
    let path = directory.join(SIGNING);
    stands(directory, now.1)?;
    if now.1 == Purpose::Looking {
        return renew(read(&path)?.0, directory, keeping, now);
    }
    let _locked = Locked::take(directory).map_err(|error| format!("it cannot be locked: {error}"))?;
    renew(read(&path)?.0, directory, keeping, now)
}

/// 128 random bits.
pub fn random_id() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(BASE64.encode(bytes))
}

#[cfg(test)]
mod tests;
