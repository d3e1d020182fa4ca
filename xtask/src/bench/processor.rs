//! What a process and its children used: processor time and memory, from /proc.

use std::fs;
use std::ops::Sub;

/// Kernel clock ticks in a second: what /proc counts in. Linux fixes it for user space.
const TICKS: f64 = 100.0;

/// Processor time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Sub for Used {
    type Output = Used;
    fn sub(self, before: Used) -> Used {
        Used { user: self.user - before.user, system: self.system - before.system }
    }
}

impl Used {
    /// User and system time together.
    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }

    /// Each part divided by `count`.
    pub(super) fn per(self, count: f64) -> Used {
        Used { user: self.user / count, system: self.system / count }
    }
}

/// What the process and its children used so far, in all their threads.
pub(super) fn used(root: u32) -> Used {
    let mut sum = Used::default();
    for stat in tree(root) {
        sum.user += stat.user;
        sum.system += stat.system;
    }
    sum
}

/// Resident memory of the process and its children, in KiB.
pub(super) fn resident(root: u32) -> u64 {
    memory(root, "VmRSS:")
}

/// The most that was ever resident of them, in KiB.
pub(super) fn peak(root: u32) -> u64 {
    memory(root, "VmHWM:")
}

fn memory(root: u32, name: &str) -> u64 {
    tree(root)
        .iter()
        .filter_map(|stat| {
            let status = fs::read_to_string(format!("/proc/{}/status", stat.id)).ok()?;
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

struct Stat {
    id: u32,
    parent: u32,
    user: f64,
    system: f64,
}

/// The process and its children: one level, as servers have (a master and its workers).
fn tree(root: u32) -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| parse(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?))
        .filter(|stat| stat.id == root || stat.parent == root)
        .collect()
}

/// proc_pid_stat(5): after the name in brackets come state (3), parent (4) ... user (14), system time (15).
fn parse(id: u32, stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let micros = |at: usize| Some(fields.get(at - 3)?.parse::<f64>().ok()? * 1e6 / TICKS);
    Some(Stat { id, parent: fields.get(1)?.parse().ok()?, user: micros(14)?, system: micros(15)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b) S 3 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        let stat = parse(7, line).unwrap();
        assert_eq!((stat.parent, stat.user, stat.system), (3, 1_500_000.0, 500_000.0));
        assert!(parse(7, "7 (x) S").is_none());
    }

    #[test]
    fn our_own_memory_is_seen() {
        let id = std::process::id();
        assert!(resident(id) > 100 && peak(id) >= resident(id) / 2);
    }
}
