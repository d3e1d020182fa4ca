//! The rings of a process, and the tasks that keep each in step with its directory.
//!
//! Promise: what a document asks for is opened without a change to what runs; keys are made when a directory has none,
//! and replaced by the task alone.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::revoked::{Elsewhere, Revoked};
use super::ring::{Keeping, Origin, Place, Ring, given, made, stands};
use crate::problem::{At, Problems};
use crate::purpose::Purpose;
use crate::redis::Connections;
use crate::world::Clock;

/// How often it is looked what other processes have written in the directory.
const FOLLOW: Duration = Duration::from_secs(1);

/// How many of these pass until it is looked whether a key is too old, and what can be forgotten.
const LOOK: u32 = 60;

/// Until nobody uses the ring any more.
async fn keep(ring: Weak<Ring>, clock: Clock) {
    for round in 0_u32.. {
        let Some(ring) = ring.upgrade() else { return };
        let now = clock.unix().as_secs();
        ring.follow(now);
        if round.is_multiple_of(LOOK) {
            ring.look(now);
        }
        drop(ring);
        tokio::time::sleep(FOLLOW).await;
    }
}

/// The rings of a process, by how they are kept.
#[derive(Debug, Default)]
pub struct Rings {
    purpose: Purpose,
    known: Mutex<Vec<Weak<Ring>>>,
}

impl Rings {
    /// None yet. Of those that are only looked at nothing is written down.
    pub fn new(purpose: Purpose) -> Rings {
        Rings { purpose, ..Rings::default() }
    }

    fn alive(&self) -> Vec<Arc<Ring>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|ring| ring.strong_count() > 0);
        known.iter().filter_map(Weak::upgrade).collect()
    }

    /// The ring that was opened last for a directory.
    pub fn of(&self, directory: &Path) -> Option<Arc<Ring>> {
        self.alive().into_iter().rfind(|ring| ring.keeping.directory.as_deref() == Some(directory))
    }

    /// The ring that is kept so: the one there is, or a new one.
    ///
    /// # Errors
    /// One sentence's end: what is wrong with the directory or a file.
    pub fn open(
        &self,
        keeping: &Keeping,
        revoked: &Arc<Revoked>,
        redis: &Connections,
    ) -> Result<Arc<Ring>, String> {
        let now = Clock::start().unix().as_secs();
        let place = self.place(keeping, now)?;
        let elsewhere = keeping.shared.as_ref().map(|server| {
            let mut problems = Problems::new();
            let redis = redis.open(server, &At::root(), &mut problems);
            let why = problems.iter().next().map(|problem| problem.message.clone()).unwrap_or_default();
            redis.map(Elsewhere::new).ok_or(why)
        });
        let ring = Arc::new(Ring::new(keeping, place, (revoked, elsewhere.transpose()?)));
        let same = |other: &Arc<Ring>| other.keeping == *keeping && other.published() == ring.published();
        if let Some(same) = self.alive().into_iter().rfind(same) {
            self.put_last(&same);
            return Ok(same);
        }
        ring.begin(now)?;
        self.put_last(&ring);
        self.start(&ring);
        Ok(ring)
    }

    /// Notes a ring as the one that was opened last.
    fn put_last(&self, ring: &Arc<Ring>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let weak = Arc::downgrade(ring);
        known.retain(|other| !other.ptr_eq(&weak));
        known.push(weak);
    }

    /// The keys: those that are given as they are now, those that are made as they are known already.
    fn place(&self, keeping: &Keeping, now: u64) -> Result<Arc<Place>, String> {
        let directory = keeping.directory.as_deref();
        match (&keeping.origin, directory) {
            (Origin::Given(files), _) => {
                if let Some(directory) = directory {
                    let cannot = |why| format!("{} cannot be used: {why}", directory.display());
                    stands(directory, self.purpose).map_err(cannot)?;
                }
                Ok(Arc::new(Place::new(given(files)?)))
            }
            (Origin::Made { .. }, None) => Err("keys are made in a directory".to_owned()),
            (Origin::Made { .. }, Some(directory)) => {
                let is_made = |ring: &Arc<Ring>| {
                    matches!(ring.keeping.origin, Origin::Made { .. })
                        && ring.keeping.directory == keeping.directory
                };
                match self.alive().into_iter().rfind(is_made) {
                    // What is otherwise now is done when the document runs.
                    Some(ring) => Ok(Arc::clone(&ring.place)),
                    None => Ok(Arc::new(Place::new(made(directory, keeping, (now, self.purpose))?))),
                }
            }
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "keys are replaced on the control thread, beside the workers"
    )]
    fn start(&self, ring: &Arc<Ring>) {
        if self.purpose == Purpose::Running && tokio::runtime::Handle::try_current().is_ok() {
            tokio::spawn(keep(Arc::downgrade(ring), Clock::start()));
        }
    }
}
