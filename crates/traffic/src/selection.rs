//! Selection: which members of a group are candidates for a pick.
//!
//! The rule, in order:
//! 1. Primaries before backups: the backups are candidates only when no primary is.
//! 2. Within the tier, the candidates are the fit members: enabled, healthy, not ejected, breaker not open,
//!    not tried by this exchange. When fewer than the panic threshold of the tier's enabled members are fit,
//!    our health and ejections are not believed: all enabled ones are candidates, but those whose breaker
//!    refuses.
//! 3. When no member of either tier is fit and the threshold is above zero, all enabled ones of both tiers
//!    are.
//! 4. Draining members take only exchanges that affinity sends them ([`Standing::keeps_affinity`]), disabled
//!    ones nothing.
//!
//! A breaker is never overruled: it is open so that the endpoint is left alone.
//!
//! Promise: pure and without allocation. [`Candidates`] is a plain value: for a first attempt, when nothing
//! is tried, a caller may keep it until a standing changes and so pay the look at every member once.

use crate::health::Health;
use crate::panic_mode::panicking;

/// What the operator wants of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// It works.
    #[default]
    Enabled,
    /// It finishes what it has and keeps its affine clients.
    Draining,
    /// It takes nothing.
    Disabled,
}

/// When an endpoint is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// Always.
    #[default]
    Primary,
    /// When no primary can be.
    Backup,
}

/// Whether an endpoint can work, as far as we see; else the first reason why not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fitness {
    /// It can.
    #[default]
    Fit,
    /// Its breaker refuses requests.
    BreakerOpen,
    /// It was ejected for failing traffic.
    Ejected,
    /// Its active checks fail, or none has passed yet.
    Unhealthy,
}

/// Whether passive ejection leaves an endpoint out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejected {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Whether an endpoint's breaker lets a request pass, see [`crate::breaker::Breaker::would_admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// It does.
    Admits,
    /// It does not.
    Refuses,
}

impl Fitness {
    /// The fitness that follows from what watches an endpoint.
    pub const fn of(health: Health, ejected: Ejected, breaker: Breaker) -> Fitness {
        match (breaker, ejected, health) {
            (Breaker::Refuses, _, _) => Fitness::BreakerOpen,
            (Breaker::Admits, Ejected::Yes, _) => Fitness::Ejected,
            (Breaker::Admits, Ejected::No, Health::Healthy) => Fitness::Fit,
            (Breaker::Admits, Ejected::No, Health::Unhealthy | Health::Unknown) => Fitness::Unhealthy,
        }
    }
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What the operator wants of it.
    pub service: Service,
    /// When it is used.
    pub tier: Tier,
    /// Whether it can work.
    pub fitness: Fitness,
}

impl Standing {
    /// Whether an exchange that affinity sends to this endpoint may go there: it can work and is at most
    /// draining.
    pub fn keeps_affinity(self) -> bool {
        self.service != Service::Disabled && self.fitness == Fitness::Fit
    }

    fn fit(self) -> bool {
        self.service == Service::Enabled && self.fitness == Fitness::Fit
    }

    /// Fit enough for panic mode.
    fn usable(self) -> bool {
        self.service == Service::Enabled && self.fitness != Fitness::BreakerOpen
    }
}

/// Which members are candidates for a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// None: every member is unfit, or was tried.
    Nobody,
    /// The fit members of a tier.
    Fit(Tier),
    /// Panic: the enabled members of a tier whose breakers admit.
    Panic(Tier),
    /// Panic with nobody fit at all: the enabled members of both tiers whose breakers admit.
    Everybody,
}

impl Candidates {
    /// Whether a member of this standing is one; those that the exchange tried are not.
    pub fn include(self, standing: Standing) -> bool {
        match self {
            Candidates::Nobody => false,
            Candidates::Fit(tier) => standing.tier == tier && standing.fit(),
            Candidates::Panic(tier) => standing.tier == tier && standing.usable(),
            Candidates::Everybody => standing.usable(),
        }
    }

    /// Whether panic mode is on.
    pub const fn in_panic(self) -> bool {
        matches!(self, Candidates::Panic(_) | Candidates::Everybody)
    }
}

#[derive(Clone, Copy, Default)]
struct Count {
    enabled: usize,
    fit: usize,
    untried_fit: usize,
    untried_usable: usize,
}

/// Decides which of the `len` members are candidates, by the rule of this module. `panic_threshold` is the
/// share of a tier, 0 to 1, below which panic begins; 0 turns panic off.
///
/// A member is one when [`Candidates::include`] says so and it was not tried. When the answer is
/// [`Candidates::Nobody`] and something was tried, the caller may forget what was tried and ask again.
pub fn candidates(
    len: usize,
    standing: impl Fn(usize) -> Standing,
    tried: &Tried,
    panic_threshold: f64,
) -> Candidates {
    let (mut primary, mut backup) = (Count::default(), Count::default());
    for at in 0..len {
        let standing = standing(at);
        let count = match standing.tier {
            Tier::Primary => &mut primary,
            Tier::Backup => &mut backup,
        };
        let untried = !tried.contains(at);
        count.enabled += usize::from(standing.service == Service::Enabled);
        count.fit += usize::from(standing.fit());
        count.untried_fit += usize::from(untried && standing.fit());
        count.untried_usable += usize::from(untried && standing.usable());
    }
    for (tier, count) in [(Tier::Primary, primary), (Tier::Backup, backup)] {
        // A tier without a fit member gives way to the next one before it panics.
        let in_panic = count.fit > 0 && panicking(count.fit, count.enabled, panic_threshold);
        if in_panic && count.untried_usable > 0 {
            return Candidates::Panic(tier);
        }
        if count.untried_fit > 0 {
            return Candidates::Fit(tier);
        }
    }
    let nobody_fit = primary.fit + backup.fit == 0;
    if nobody_fit && panic_threshold > 0.0 && primary.untried_usable + backup.untried_usable > 0 {
        return Candidates::Everybody;
    }
    Candidates::Nobody
}

/// The members that an exchange has tried. It allocates only for indexes from 64 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    first: u64,
    rest: Vec<u64>,
}

impl Tried {
    /// Nobody yet.
    pub const fn new() -> Tried {
        Tried { first: 0, rest: Vec::new() }
    }

    /// Adds a member.
    pub fn insert(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        match (index / 64).checked_sub(1) {
            None => self.first |= bit,
            Some(word) => {
                if word >= self.rest.len() {
                    self.rest.resize(word + 1, 0);
                }
                self.rest[word] |= bit;
            }
        }
    }

    /// Whether the member was added.
    pub fn contains(&self, index: usize) -> bool {
        let word = match (index / 64).checked_sub(1) {
            None => self.first,
            Some(word) => self.rest.get(word).copied().unwrap_or(0),
        };
        word >> (index % 64) & 1 == 1
    }

    /// Whether nobody was added.
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|word| *word == 0)
    }

    /// Forgets everybody.
    pub fn clear(&mut self) {
        self.first = 0;
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter for each member. Upper case: primary. F fit, U unhealthy, E ejected, O breaker open, D
    /// draining, X disabled.
    fn group(letters: &str) -> Vec<Standing> {
        let standing = |letter: char| Standing {
            tier: if letter.is_ascii_uppercase() { Tier::Primary } else { Tier::Backup },
            service: match letter.to_ascii_uppercase() {
                'D' => Service::Draining,
                'X' => Service::Disabled,
                _ => Service::Enabled,
            },
            fitness: match letter.to_ascii_uppercase() {
                'U' => Fitness::Unhealthy,
                'E' => Fitness::Ejected,
                'O' => Fitness::BreakerOpen,
                _ => Fitness::Fit,
            },
        };
        letters.chars().map(standing).collect()
    }

    /// The letters of the candidates.
    fn chosen(letters: &str, tried: &[usize], threshold: f64) -> String {
        let group = group(letters);
        let mut set = Tried::new();
        tried.iter().for_each(|&at| set.insert(at));
        let candidates = candidates(group.len(), |at| group[at], &set, threshold);
        let is_one = |at: usize| candidates.include(group[at]) && !set.contains(at);
        let chosen: String =
            letters.chars().enumerate().filter(|(at, _)| is_one(*at)).map(|(_, letter)| letter).collect();
        assert_eq!(
            chosen.is_empty(),
            candidates == Candidates::Nobody,
            "{letters} {tried:?}: {candidates:?}"
        );
        chosen
    }

    #[test]
    fn fit_primaries_come_first_and_backups_when_there_are_none() {
        assert_eq!(chosen("FUEOFDXf", &[], 0.0), "FF");
        assert_eq!(chosen("UEOfuf", &[], 0.0), "ff");
        assert_eq!(chosen("DXdx", &[], 0.5), "");
        assert_eq!(chosen("", &[], 0.5), "");
    }

    #[test]
    fn what_was_tried_is_left_out_and_then_backups_follow() {
        assert_eq!(chosen("FFf", &[0], 0.0), "F");
        assert_eq!(chosen("FFf", &[0, 1], 0.0), "f");
        assert_eq!(chosen("FFf", &[0, 1, 2], 0.0), "");
        assert_eq!(chosen("FU", &[0], 0.5), "", "trying is no reason to panic");
    }

    #[test]
    fn below_the_threshold_everything_enabled_is_used_but_open_breakers() {
        assert_eq!(chosen("FFUU", &[], 0.5), "FFUU".replace('U', ""));
        assert_eq!(chosen("FUEU", &[], 0.5), "FUEU");
        assert_eq!(chosen("FUODX", &[], 0.5), "FU");
        assert_eq!(chosen("FUEUf", &[0], 0.5), "UEU");
        assert_eq!(chosen("FUU", &[], 0.0), "F");
    }

    #[test]
    fn backups_are_used_before_a_tier_without_a_fit_member_panics() {
        assert_eq!(chosen("UUf", &[], 0.5), "f");
        assert_eq!(chosen("UUfuu", &[], 0.5), "fuu");
        assert_eq!(chosen("UEOu", &[], 0.5), "UEu");
        assert_eq!(chosen("UEOu", &[], 0.0), "");
        assert_eq!(chosen("OOo", &[], 0.5), "", "an open breaker is never overruled");
    }

    #[test]
    fn affinity_keeps_draining_members_and_no_unfit_ones() {
        let keeps: Vec<bool> = group("FDXUEOf").into_iter().map(Standing::keeps_affinity).collect();
        assert_eq!(keeps, [true, true, false, false, false, false, true]);
    }

    #[test]
    fn fitness_names_the_first_reason() {
        let of = Fitness::of;
        assert_eq!(of(Health::Healthy, Ejected::No, Breaker::Admits), Fitness::Fit);
        assert_eq!(of(Health::Unknown, Ejected::No, Breaker::Admits), Fitness::Unhealthy);
        assert_eq!(of(Health::Unhealthy, Ejected::Yes, Breaker::Admits), Fitness::Ejected);
        assert_eq!(of(Health::Unhealthy, Ejected::Yes, Breaker::Refuses), Fitness::BreakerOpen);
    }

    #[test]
    fn tried_holds_any_index() {
        let mut tried = Tried::new();
        assert!(tried.is_empty());
        for at in [0, 63, 64, 127, 128, 100_000] {
            assert!(!tried.contains(at));
            tried.insert(at);
            assert!(tried.contains(at) && !tried.contains(at + 1), "{at}");
        }
        tried.clear();
        assert!(tried.is_empty() && !tried.contains(128) && !tried.contains(0));
    }
}
