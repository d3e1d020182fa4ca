//! One gateway: keeps the window of tunnels to it open, and drains them.
//!
//! The window is the number of idle tunnels in 1.0, where each request uses one up and the next is dialled at once,
//! and of all tunnels in 3.0. After a failure one tunnel at a time is tried, after a pause that doubles from half a
//! second towards ten seconds and a half, spread by chance; a gateway that closes tunnels as soon as they are open
//! counts as a failure.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::address::Address;
use super::drive::drive;
use super::handle::{Order, Report, RouterState, Shared};
use super::handshake::{OpenFailed, Opened, open};
use super::hooks::Event;
use super::tunnel::{Surroundings, Tunnel};
use super::{Options, Parts};
use crate::ConnectorEnd;
use crate::registration::{Purpose, Version};
use crate::settings::Settings;
use crate::websocket::{Close, Ended, Limits, Received, Role, Socket};

/// A tunnel that lives shorter than this and carries nothing was no success.
const TRIED: Duration = Duration::from_secs(2);
/// How long the gateway has to answer a deregistration, and then to close what is idle.
const DEREGISTER: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);

/// What a tunnel's task tells its router.
enum Note {
    Opened(u64, Rc<Tunnel>),
    Used(u64),
}

/// How a tunnel's task ended.
struct Past {
    number: u64,
    result: Result<Ended, OpenFailed>,
    /// Since it was open.
    lived: Duration,
}

/// A tunnel of ours.
struct Slot {
    number: u64,
    task: tokio::task::Id,
    stage: Stage,
    version: Version,
}

enum Stage {
    Dialling,
    Idle(Rc<Tunnel>),
    Used(Rc<Tunnel>),
}

pub(super) struct Router {
    address: Address,
    options: Rc<Options>,
    parts: Rc<Parts>,
    shared: std::sync::Arc<Shared>,
    random: fastrand::Rng,
    tunnels: Vec<Slot>,
    tasks: JoinSet<Past>,
    notes: (mpsc::UnboundedSender<Note>, mpsc::UnboundedReceiver<Note>),
    next: u64,
    failures: u32,
    /// No dialling before.
    not_before: Instant,
    last_error: Option<String>,
}

impl Router {
    pub(super) fn new(
        address: Address,
        (options, parts): (Rc<Options>, Rc<Parts>),
        shared: std::sync::Arc<Shared>,
        seed: u64,
    ) -> Router {
        Router {
            address,
            options,
            parts,
            shared,
            random: fastrand::Rng::with_seed(seed),
            tunnels: Vec::new(),
            tasks: JoinSet::new(),
            notes: mpsc::unbounded_channel(),
            next: 0,
            failures: 0,
            not_before: Instant::now(),
            last_error: None,
        }
    }

    /// Keeps tunnels open until it is told to drain. True when every exchange ended in time.
    pub(super) async fn run(mut self, mut orders: watch::Receiver<Order>) -> bool {
        let patience = loop {
            if let Order::Drain(patience) = *orders.borrow_and_update() {
                break patience;
            }
            self.refill();
            self.report(RouterState::Active);
            let wake = self.not_before;
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { break Duration::ZERO },
                Some(note) = self.notes.1.recv() => self.note(note),
                Some(past) = self.tasks.join_next() => self.past(past),
                () = tokio::time::sleep_until(wake), if self.is_waiting() => {}
            }
        };
        let deadline = Instant::now() + patience;
        self.report(RouterState::Stopping);
        self.drain(deadline).await
    }

    fn is_waiting(&self) -> bool {
        self.missing() > 0 && Instant::now() < self.not_before
    }

    /// Tunnels that the window lacks.
    fn missing(&self) -> usize {
        let counts = |slot: &&Slot| !matches!(slot.stage, Stage::Used(_)) || slot.version == Version::V3;
        let (there, used) = (self.tunnels.iter().filter(counts).count(), self.tunnels.len());
        let room = self.options.most_tunnels.saturating_sub(used);
        self.options.window.saturating_sub(there).min(room)
    }

    fn refill(&mut self) {
        if Instant::now() < self.not_before {
            return;
        }
        let is_dialling = self.tunnels.iter().any(|slot| matches!(slot.stage, Stage::Dialling));
        let most = match (self.failures, is_dialling) {
            (0, _) => usize::MAX,
            (_, true) => 0,
            (_, false) => 1,
        };
        for _ in 0..self.missing().min(most) {
            self.next += 1;
            let number = self.next;
            let seed = self.random.u64(..);
            let work = tunnel(
                number,
                Rc::new(Surroundings {
                    router: self.address.clone(),
                    target: Rc::clone(&self.parts.target),
                    hooks: Rc::clone(&self.parts.hooks),
                }),
                (Rc::clone(&self.options), Rc::clone(&self.parts)),
                (seed, self.notes.0.clone()),
            );
            let task = self.tasks.spawn_local(work).id();
            self.tunnels.push(Slot { number, task, stage: Stage::Dialling, version: Version::V1 });
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Opened(number, tunnel) => {
                let version = tunnel.end().version();
                self.parts.hooks.event(&Event::Opened(&self.address, version));
                if let Some(slot) = self.tunnels.iter_mut().find(|slot| slot.number == number) {
                    (slot.stage, slot.version) = (Stage::Idle(tunnel), version);
                }
            }
            Note::Used(number) => {
                self.failures = 0;
                if let Some(slot) = self.tunnels.iter_mut().find(|slot| slot.number == number)
                    && let Stage::Idle(tunnel) = &slot.stage
                {
                    slot.stage = Stage::Used(Rc::clone(tunnel));
                }
            }
        }
    }

    fn past(&mut self, past: Result<Past, JoinError>) {
        // What it said before it ended comes first.
        while let Ok(note) = self.notes.1.try_recv() {
            self.note(note);
        }
        let past = match past {
            Ok(past) => past,
            Err(broken) => {
                // A hook has panicked: that tunnel is gone, the others go on.
                self.tunnels.retain(|slot| slot.task != broken.id());
                return self.failed("a tunnel's task panicked".to_owned());
            }
        };
        let place = self.tunnels.iter().position(|slot| slot.number == past.number);
        let slot = place.map(|place| self.tunnels.swap_remove(place));
        let was_used = slot.is_some_and(|slot| matches!(slot.stage, Stage::Used(_)));
        match &past.result {
            Ok(ended) => {
                self.parts.hooks.event(&Event::Closed(&self.address, ended));
                if !was_used && past.lived < TRIED {
                    self.failed(format!("closed at once: {ended:?}"));
                } else {
                    self.failures = 0;
                }
            }
            Err(error) => {
                self.parts.hooks.event(&Event::OpenFailed(&self.address, error));
                self.failed(error.to_string());
            }
        }
    }

    fn failed(&mut self, error: String) {
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        self.not_before = Instant::now() + pause(self.failures, self.random.f64());
    }

    fn report(&self, state: RouterState) {
        let idle = self.tunnels.iter().filter(|slot| matches!(slot.stage, Stage::Idle(_))).count();
        let busy = self.tunnels.iter().filter(|slot| matches!(slot.stage, Stage::Used(_))).count();
        self.shared.report(Report {
            address: self.address.clone(),
            state,
            idle,
            busy,
            failures: self.failures,
            last_error: self.last_error.clone(),
        });
    }

    /// Deregisters and waits until every exchange has ended; what is left at the deadline is closed.
    async fn drain(mut self, deadline: Instant) -> bool {
        self.settle(deadline.min(Instant::now() + DEREGISTER)).await;
        let known = tokio::time::timeout(DEREGISTER, self.deregister()).await;
        if let Err(error) = known.unwrap_or(Err(OpenFailed::TimedOut)) {
            self.parts.hooks.event(&Event::DeregisterFailed(&self.address, &error));
        }
        let is_empty = self.empty(deadline.min(Instant::now() + GRACE)).await;
        if !is_empty {
            self.each(Tunnel::retire);
        }
        let in_time = is_empty || self.empty(deadline).await;
        if !in_time {
            self.each(Tunnel::kill);
            self.empty(Instant::now() + GRACE).await;
        }
        self.shared.forget(&self.address);
        in_time
    }

    /// Waits until no tunnel is being opened: one that opens after the gateway was told would be used all the same,
    /// just while it is closed from here.
    async fn settle(&mut self, deadline: Instant) {
        while self.tunnels.iter().any(|slot| matches!(slot.stage, Stage::Dialling)) {
            self.report(RouterState::Stopping);
            tokio::select! {
                Some(past) = self.tasks.join_next() => self.past(past),
                Some(note) = self.notes.1.recv() => self.note(note),
                () = tokio::time::sleep_until(deadline) => return,
            }
        }
    }

    fn each(&self, work: impl Fn(&Tunnel)) {
        for slot in &self.tunnels {
            if let Stage::Idle(tunnel) | Stage::Used(tunnel) = &slot.stage {
                work(tunnel);
            }
        }
    }

    /// Waits until no tunnel is left.
    async fn empty(&mut self, deadline: Instant) -> bool {
        loop {
            // A tunnel that is only now being opened is not wanted any more.
            while let Ok(note) = self.notes.1.try_recv() {
                if let Note::Opened(_, tunnel) = &note {
                    tunnel.retire();
                }
                self.note(note);
            }
            self.report(RouterState::Stopping);
            tokio::select! {
                past = self.tasks.join_next() => match past {
                    Some(past) => self.past(past),
                    None => return true,
                },
                Some(note) = self.notes.1.recv() => {
                    if let Note::Opened(_, tunnel) = &note {
                        tunnel.retire();
                    }
                    self.note(note);
                }
                () = tokio::time::sleep_until(deadline) => return false,
            }
        }
    }

    async fn deregister(&mut self) -> Result<(), OpenFailed> {
        let to = (&self.address, Purpose::Deregister);
        let around = (&*self.parts.dial, &*self.parts.hooks);
        let random = self.random.u128(..).to_ne_bytes();
        let Opened { mut stream, mut buf, .. } = open(to, &self.options.announcement, around, random).await?;
        let start = Instant::now();
        let timing = Settings::connector().timing;
        let mut socket =
            Socket::new(Role::Client, Limits::SMALL, timing, (self.random.u64(..), start.elapsed()));
        socket.close(Close::NORMAL, "", start.elapsed());
        tokio::io::AsyncWriteExt::write_all_buf(&mut stream, socket.output()).await?;
        tokio::io::AsyncWriteExt::flush(&mut stream).await?;
        // The gateway closes what is idle before it answers.
        loop {
            if let Some(Received::Ended(_)) = socket.receive(&mut buf, start.elapsed()) {
                return Ok(());
            }
            if tokio::io::AsyncReadExt::read_buf(&mut stream, &mut buf).await? == 0 {
                return Ok(());
            }
        }
    }
}

/// Half a second, and two milliseconds to the power of the failures up to ten seconds, and a fifth of it by chance.
fn pause(failures: u32, chance: f64) -> Duration {
    let grown = 1u64.checked_shl(failures.min(14)).unwrap_or(u64::MAX).min(10_000);
    Duration::from_millis(500 + grown).mul_f64(0.8 + 0.4 * chance)
}

/// Opens a tunnel and runs it to its end.
async fn tunnel(
    number: u64,
    around: Rc<Surroundings>,
    (options, parts): (Rc<Options>, Rc<Parts>),
    (seed, notes): (u64, mpsc::UnboundedSender<Note>),
) -> Past {
    let mut random = fastrand::Rng::with_seed(seed);
    let opening = open(
        (&around.router, Purpose::Register),
        &options.announcement,
        (&*parts.dial, &*parts.hooks),
        random.u128(..).to_ne_bytes(),
    );
    let opened = match tokio::time::timeout(options.connect_timeout, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Past { number, result: Err(error), lived: Duration::ZERO },
        Err(_) => return Past { number, result: Err(OpenFailed::TimedOut), lived: Duration::ZERO },
    };
    let start = Instant::now();
    let settings = Settings { extensions: opened.extensions, ..options.settings };
    let end = ConnectorEnd::new(opened.version, settings, (random.u64(..), Duration::ZERO));
    let used = notes.clone();
    let on_use = Box::new(move || _ = used.send(Note::Used(number)));
    let tunnel = Tunnel::new(around, start, end, on_use);
    let _ = notes.send(Note::Opened(number, Rc::clone(&tunnel)));
    let ended = drive(tunnel, opened.stream, opened.buf).await;
    Past { number, result: Ok(ended), lived: start.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_to_ten_seconds_and_is_spread() {
        let even = |failures| pause(failures, 0.5).as_millis();
        assert_eq!((even(1), even(5), even(13), even(14), even(u32::MAX)), (502, 532, 8692, 10_500, 10_500));
        assert_eq!((pause(1, 0.0).as_micros(), pause(1, 1.0).as_micros()), (401_600, 602_400));
    }
}
