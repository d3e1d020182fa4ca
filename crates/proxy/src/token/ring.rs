//! Keys that the gateway signs tokens with: made at the first start, kept in a directory, replaced in time.
//!
//! Promise: a private key stands in one file that only its owner may read, and never in a document; an old key checks
//! tokens as long as any of its own can be valid. `jwks.json` beside it holds the public keys, for anybody; `revoked`
//! holds the ids of tokens that were taken back.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::keys::{Keys, Source};
use super::revoked::Revoked;
use crate::purpose::{Purpose, could_make};
use crate::world::Clock;

const SIGNING: &str = "signing-keys.json";
const PUBLISHED: &str = "jwks.json";
const REVOKED: &str = "revoked";

/// How often it is looked whether a key is too old.
const LOOK: Duration = Duration::from_secs(60);

/// One key as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    id: String,
    /// In seconds since 1970.
    made: u64,
    /// PKCS #8, in base64url.
    private: String,
}

/// How keys are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Where.
    pub directory: PathBuf,
    /// How old a key that signs may be, in seconds.
    pub rotate: u64,
    /// How long the longest token lives, in seconds.
    pub longest: u64,
}

/// What signs and checks at the moment.
struct Present {
    kept: Vec<Kept>,
    id: String,
    pair: EcdsaKeyPair,
    keys: Arc<Keys>,
    published: Arc<str>,
}

/// Keys of one directory.
pub struct Ring {
    keeping: Keeping,
    present: Mutex<Present>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ring").field(&self.keeping.directory).finish()
    }
}

impl Ring {
    fn open(keeping: &Keeping, now: u64, purpose: Purpose) -> Result<Ring, String> {
        let path = keeping.directory.join(SIGNING);
        match purpose {
            Purpose::Running => std::fs::create_dir_all(&keeping.directory),
            Purpose::Looking => could_make(&path),
        }
        .map_err(|error| format!("it cannot be made: {error}"))?;
        let kept: Vec<Kept> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| format!("{SIGNING} in it is broken"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(format!("{SIGNING} in it cannot be read: {error}")),
        };
        let present = renew(kept, keeping, (now, purpose))?;
        Ok(Ring { keeping: keeping.clone(), present: Mutex::new(present) })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A signed token of this type (`typ` of RFC 7515) with these claims; a mark before it is signed with the rest.
    pub fn token(&self, (mark, typ): (&str, &str), claims: &Map<String, Value>) -> Option<String> {
        let present = self.present();
        let header = json!({ "alg": "ES256", "typ": typ, "kid": present.id }).to_string();
        let payload = serde_json::to_vec(claims).ok()?;
        let message = format!("{mark}{}.{}", BASE64.encode(header), BASE64.encode(payload));
        let signature = present.pair.sign(&SystemRandom::new(), message.as_bytes()).ok()?;
        Some(format!("{message}.{}", BASE64.encode(signature)))
    }

    /// The keys that check its tokens.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.present().keys)
    }

    /// The public keys as a JWK set (RFC 7517).
    pub fn published(&self) -> Arc<str> {
        Arc::clone(&self.present().published)
    }

    /// Writes down that a token was taken back. Blocks for a moment.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_revoked(&self, id: &str, end: u64) -> std::io::Result<()> {
        let path = self.keeping.directory.join(REVOKED);
        let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        writeln!(file, "{id} {end}")
    }

    fn read_revoked(&self, revoked: &Revoked, now: u64) {
        // Without the file none was taken back.
        let text = std::fs::read_to_string(self.keeping.directory.join(REVOKED)).unwrap_or_default();
        for (id, end) in text.lines().filter_map(|line| line.split_once(' ')) {
            if let Some(end) = end.parse().ok().filter(|end| *end > now) {
                revoked.add(id, end, now);
            }
        }
    }

    /// Makes a new key when the present one is too old.
    fn look(&self, now: u64) {
        let kept = {
            let present = self.present();
            let is_old = present.kept.first().is_none_or(|key| key.made + self.keeping.rotate <= now);
            if !is_old {
                return;
            }
            present.kept.clone()
        };
        // When the directory cannot be written the present key goes on.
        if let Ok(next) = renew(kept, &self.keeping, (now, Purpose::Running)) {
            *self.present() = next;
        }
    }
}

/// The keys that are still of use, the newest first, with a new one when the newest is too old; written down.
fn renew(mut kept: Vec<Kept>, keeping: &Keeping, (now, purpose): (u64, Purpose)) -> Result<Present, String> {
    kept.sort_by_key(|key| std::cmp::Reverse(key.made));
    let before = kept.len();
    kept.retain(|key| now < key.made + keeping.rotate + keeping.longest + keeping.rotate);
    if kept.first().is_none_or(|key| key.made + keeping.rotate <= now) {
        let private = EcdsaKeyPair::generate_pkcs8(&ES256, &SystemRandom::new());
        let private = private.map_err(|_| "no key could be made".to_owned())?;
        let id = random_id().ok_or("the system gave no random numbers")?;
        kept.insert(0, Kept { id, made: now, private: BASE64.encode(private.as_ref()) });
    } else if kept.len() == before {
        return present(kept);
    }
    let bytes = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
    let present = present(kept)?;
    if purpose == Purpose::Looking {
        return Ok(present);
    }
    write(&keeping.directory.join(SIGNING), &bytes, 0o600)?;
    write(&keeping.directory.join(PUBLISHED), present.published.as_bytes(), 0o644)?;
    Ok(present)
}

fn present(kept: Vec<Kept>) -> Result<Present, String> {
    let broken = || format!("{SIGNING} in it holds a broken key");
    let mut pairs = Vec::new();
    for key in &kept {
        let private = BASE64.decode(&key.private).map_err(|_| broken())?;
        pairs.push(EcdsaKeyPair::from_pkcs8(&ES256, &private).map_err(|_| broken())?);
    }
    let jwk = |(key, pair): (&Kept, &EcdsaKeyPair)| {
        // An uncompressed point: 4, x, y.
        let point = pair.public_key().as_ref();
        let (x, y) = point.get(1..)?.split_at_checked(32)?;
        Some(json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": key.id,
                     "x": BASE64.encode(x), "y": BASE64.encode(y) }))
    };
    let entries: Option<Vec<Value>> = kept.iter().zip(&pairs).map(jwk).collect();
    let published = json!({ "keys": entries.ok_or_else(broken)? }).to_string();
    let keys = Keys::read(&published, Source::Own)?;
    let id = kept.first().ok_or_else(broken)?.id.clone();
    let pair = pairs.into_iter().next().ok_or_else(broken)?;
    Ok(Present { kept, id, pair, keys: Arc::new(keys), published: published.into() })
}

/// Replaces a file whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let new = path.with_extension("new");
    let written = (|| {
        // One that was left behind may have other rights.
        let _ = std::fs::remove_file(&new);
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    })();
    written.map_err(|error: std::io::Error| format!("{} cannot be written: {error}", path.display()))
}

/// 128 random bits.
pub fn random_id() -> Option<String> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(BASE64.encode(bytes))
}

/// Until nobody uses the ring any more.
async fn keep(ring: Weak<Ring>, clock: Clock) {
    tokio::time::sleep(LOOK).await;
    while let Some(ring) = ring.upgrade() {
        ring.look(clock.unix().as_secs());
        drop(ring);
        tokio::time::sleep(LOOK).await;
    }
}

/// The rings of a process, by how they are kept.
#[derive(Debug, Default)]
pub struct Rings {
    purpose: Purpose,
    known: Mutex<Vec<(Keeping, Weak<Ring>)>>,
}

impl Rings {
    /// None yet. Of those that are only looked at nothing is written down.
    pub fn new(purpose: Purpose) -> Rings {
        Rings { purpose, ..Rings::default() }
    }

    /// The ring of a directory: the one there is, or what stands in it; made when nothing does.
    ///
    /// # Errors
    /// One sentence's end: what is wrong with the directory.
    #[expect(
        clippy::disallowed_methods,
        reason = "keys are replaced on the control thread, beside the workers"
    )]
    pub fn open(&self, keeping: &Keeping, revoked: &Arc<Revoked>) -> Result<Arc<Ring>, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, ring)| ring.strong_count() > 0);
        let same = known.iter().find(|(other, _)| other.directory == keeping.directory);
        if let Some((other, ring)) = same
            && let Some(ring) = ring.upgrade()
        {
            return if other == keeping {
                Ok(ring)
            } else {
                Err("it is used with other times elsewhere".to_owned())
            };
        }
        let clock = Clock::start();
        let ring = Arc::new(Ring::open(keeping, clock.unix().as_secs(), self.purpose)?);
        ring.read_revoked(revoked, clock.unix().as_secs());
        known.push((keeping.clone(), Arc::downgrade(&ring)));
        let weak = Arc::downgrade(&ring);
        if self.purpose == Purpose::Running && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(keep(weak, clock));
        }
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::token::{Algorithm, Unverified};

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn keeping(name: &str) -> (Directory, Keeping) {
        let directory = std::env::temp_dir().join(format!("sluice-ring-{}-{name}", std::process::id()));
        (Directory(directory.clone()), Keeping { directory, rotate: 100, longest: 10 })
    }

    fn is_right(ring: &Ring, token: &str) -> bool {
        let read = Unverified::read(token.as_bytes(), &[Algorithm::ES256]).unwrap();
        read.verify(&ring.keys()).is_ok()
    }

    #[test]
    fn keys_are_made_once_replaced_in_time_and_dropped_when_nothing_needs_them() {
        let (_directory, keeping) = keeping("rotate");
        let ring = Ring::open(&keeping, 1000, Purpose::Running).unwrap();
        let token = ring.token(("", "JWT"), &Map::new()).unwrap();
        assert!(is_right(&ring, &token));
        let mode = std::fs::metadata(keeping.directory.join(SIGNING)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(keeping.directory.join(PUBLISHED)).unwrap(), *ring.published());
        assert!(!ring.published().contains("\"d\""));

        let again = Ring::open(&keeping, 1050, Purpose::Running).unwrap();
        assert!(is_right(&again, &token));
        again.look(1099);
        assert_eq!(again.published(), ring.published());
        again.look(1100);
        let newer = again.token(("", "JWT"), &Map::new()).unwrap();
        assert!(is_right(&again, &token) && is_right(&again, &newer) && !is_right(&ring, &newer));
        let late = Ring::open(&keeping, 1300, Purpose::Running).unwrap();
        assert!(!is_right(&late, &token) && is_right(&late, &newer));
    }

    #[test]
    fn one_ring_serves_a_directory_and_remembers_what_was_taken_back() {
        let (_directory, keeping) = keeping("revoked");
        let (rings, revoked) = (Rings::default(), Arc::new(Revoked::default()));
        let ring = rings.open(&keeping, &revoked).unwrap();
        assert!(Arc::ptr_eq(&ring, &rings.open(&keeping, &revoked).unwrap()));
        let other = Keeping { rotate: 7, ..keeping.clone() };
        assert!(rings.open(&other, &revoked).unwrap_err().contains("other times"));
        ring.write_revoked("t-1", u64::MAX).unwrap();
        ring.write_revoked("t-0", 1).unwrap();
        drop(ring);
        rings.open(&keeping, &revoked).unwrap();
        assert!(revoked.holds("t-1") && !revoked.holds("t-0"));
        std::fs::write(keeping.directory.join(SIGNING), "{").unwrap();
        assert!(rings.open(&keeping, &revoked).unwrap_err().contains("broken"));
    }
}
