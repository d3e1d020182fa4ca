//! Keys over time, between processes, and from files.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::redis::Connections;
use crate::token::{Rings, Unverified};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        Directory(std::env::temp_dir().join(format!("sluice-ring-{}-{name}", std::process::id())))
    }

    fn keeping(&self) -> Keeping {
        let origin = Origin::Made { algorithm: Signing::ES256, rotate: 100 };
        Keeping { directory: Some(self.0.clone()), origin, longest: 10, shared: None }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As a process that starts at this time.
fn open(keeping: &Keeping, now: u64) -> Ring {
    let present = match &keeping.origin {
        Origin::Made { .. } => made(keeping.directory.as_deref().unwrap(), keeping, (now, Purpose::Running)),
        Origin::Given(files) => given(files),
    };
    Ring::new(keeping, Arc::new(Place::new(present.unwrap())), (&Arc::default(), None))
}

fn token(ring: &Ring) -> String {
    ring.token(("", "JWT"), &Map::new()).unwrap()
}

fn is_right(keys: &Keys, token: &str) -> bool {
    Unverified::read(token.as_bytes(), &Signing::ALL).unwrap().verify(keys).is_ok()
}

#[test]
fn keys_are_made_once_replaced_in_time_and_dropped_when_nothing_needs_them() {
    let directory = Directory::new("rotate");
    let keeping = directory.keeping();
    let ring = open(&keeping, 1000);
    let first = token(&ring);
    assert!(is_right(&ring.keys(), &first));
    let mode = std::fs::metadata(directory.0.join(SIGNING)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(directory.0.join(PUBLISHED)).unwrap(), *ring.published());
    assert!(!ring.published().contains("\"d\""));

    let again = open(&keeping, 1050);
    assert!(is_right(&again.keys(), &first));
    again.look(1099);
    assert_eq!(again.published(), ring.published());
    again.look(1100);
    let newer = token(&again);
    assert!(is_right(&again.keys(), &first) && is_right(&again.keys(), &newer));
    // The process that has not made it hears of it when it is asked, and not before.
    assert!(!is_right(&ring.keys(), &newer) && is_right(&ring.renewed(1101), &newer));
    ring.look(1102);
    assert_eq!(ring.published(), again.published(), "it makes no other one");
    let late = open(&keeping, 1300);
    assert!(!is_right(&late.keys(), &first) && is_right(&late.keys(), &newer));
}

#[test]
fn another_algorithm_is_another_key_and_old_tokens_stay_right() {
    let directory = Directory::new("algorithms");
    let mut keeping = directory.keeping();
    let mut tokens = vec![token(&open(&keeping, 1000))];
    for (algorithm, now) in [(Signing::EdDSA, 1001), (Signing::PS256, 1002), (Signing::ES384, 1003)] {
        keeping.origin = Origin::Made { algorithm, rotate: 100 };
        let ring = open(&keeping, now);
        tokens.push(token(&ring));
        assert_eq!(ring.present().signer.algorithm(), Some(algorithm.algorithm()));
        assert!(tokens.iter().all(|token| is_right(&ring.keys(), token)), "{algorithm:?}");
    }
}

#[test]
fn a_change_of_times_goes_on_with_the_keys_that_are_there() {
    let directory = Directory::new("times");
    let keeping = directory.keeping();
    let (rings, revoked, redis) = (Rings::default(), Arc::default(), Connections::default());
    let ring = rings.open(&keeping, &revoked, &redis).unwrap();
    assert!(Arc::ptr_eq(&ring, &rings.open(&keeping, &revoked, &redis).unwrap()));
    let other = Keeping { longest: 70, ..keeping };
    let changed = rings.open(&other, &revoked, &redis).unwrap();
    assert!(!Arc::ptr_eq(&ring, &changed) && is_right(&changed.keys(), &token(&ring)));
    assert!(Arc::ptr_eq(&changed, &rings.of(&directory.0).unwrap()));
    // The change is taken back while exchanges of both documents run.
    rings.open(&directory.keeping(), &revoked, &redis).unwrap();
    assert!(Arc::ptr_eq(&ring, &rings.of(&directory.0).unwrap()));
    drop((ring, changed));
    assert!(rings.of(&directory.0).is_none());
    std::fs::write(directory.0.join(SIGNING), "{").unwrap();
    assert!(rings.open(&other, &revoked, &redis).unwrap_err().contains("broken"));
}

#[test]
fn looking_makes_nothing_and_finds_what_is_wrong() {
    let directory = Directory::new("look");
    let (rings, revoked, redis) = (Rings::new(Purpose::Looking), Arc::default(), Connections::default());
    rings.open(&directory.keeping(), &revoked, &redis).unwrap();
    assert!(!directory.0.exists());
    std::fs::create_dir(&directory.0).unwrap();
    std::fs::write(directory.0.join(SIGNING), "{").unwrap();
    assert!(rings.open(&directory.keeping(), &revoked, &redis).unwrap_err().contains("broken"));
}

#[test]
fn given_keys_are_replaced_by_whoever_gave_them() {
    let directory = Directory::new("given");
    std::fs::create_dir_all(&directory.0).unwrap();
    let write = |name: &str, signing: Signing| {
        use base64::engine::general_purpose::STANDARD;
        let text = STANDARD.encode(signing.make().unwrap());
        let file = directory.0.join(name);
        std::fs::write(&file, format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"))
            .unwrap();
        Given { file, id: Some(name.to_owned()), algorithm: None }
    };
    let (old, new) = (write("old", Signing::ES256), write("new", Signing::EdDSA));
    let ring = |files: &[&Given]| {
        let origin = Origin::Given(files.iter().map(|file| (*file).clone()).collect());
        open(&Keeping { directory: None, origin, longest: 10, shared: None }, 0)
    };
    // The new one is published, then it signs, then the old one goes.
    let (before, announced, changed, after) =
        (ring(&[&old]), ring(&[&old, &new]), ring(&[&new, &old]), ring(&[&new]));
    let (of_old, of_new) = (token(&announced), token(&changed));
    assert!(is_right(&before.keys(), &of_old) && is_right(&announced.keys(), &of_new));
    assert!(is_right(&changed.keys(), &of_old) && !is_right(&after.keys(), &of_old));
    assert!(is_right(&after.keys(), &of_new));
    let twice = Given { id: Some("new".to_owned()), ..old.clone() };
    assert!(given(&[new, twice]).err().unwrap().contains("same id"));
    let missing = Given { file: directory.0.join("none"), ..old };
    assert!(given(&[missing]).err().unwrap().contains("cannot be read"));
}

#[tokio::test]
async fn a_token_that_was_taken_back_is_known_to_the_next_process() {
    let directory = Directory::new("revoked");
    let keeping = directory.keeping();
    let ring = Arc::new(open(&keeping, 1000));
    assert_eq!(ring.take_back("t-1".to_owned(), 2000, 1000).await, Ok(true));
    assert_eq!(ring.take_back("t-1".to_owned(), 2000, 1000).await, Ok(false));
    ring.take_back("t-0".to_owned(), 1001, 1000).await.unwrap();
    let other = Arc::new(open(&keeping, 1050));
    other.follow(1050);
    assert_eq!((other.is_revoked("t-1").await, other.is_revoked("t-0").await), (Ok(true), Ok(false)));
    other.look(1060);
    assert_eq!(std::fs::read_to_string(directory.0.join("revoked")).unwrap(), "t-1 2000\n");
    assert!(!ring.is_revoked("t-2").await.unwrap());
    other.take_back("t-2".to_owned(), 2000, 1060).await.unwrap();
    ring.follow(1060);
    assert!(ring.is_revoked("t-2").await.unwrap());
}
