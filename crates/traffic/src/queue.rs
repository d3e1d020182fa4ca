//! Who waits for a place, and who is next.
//!
//! Promise: bounded; the highest priority is next, and within one priority the oldest (or the newest: see
//! [`Order`]); when it is full, only somebody of lower priority makes room, the one who would have been next
//! last; joining, leaving and taking cost the logarithm of its length.

use std::collections::BTreeMap;

/// Who is next among those of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Who has waited longest: fair.
    #[default]
    Oldest,
    /// Who came last: when not all can be served in time, at least some are, fast.
    Newest,
}

/// One place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    priority: i32,
    number: u64,
}

/// What became of who wants to join.
#[derive(Debug, PartialEq, Eq)]
pub enum Joined<T> {
    /// It waits.
    Waiting(Ticket),
    /// It waits in the place of this one, whose priority was lower.
    Instead(Ticket, T),
    /// There is no room for it.
    Full(T),
}

/// A bounded queue with priorities.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: BTreeMap<Ticket, T>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { waiting: BTreeMap::new(), next: 0 }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Joins, if fewer than `room` wait or somebody has a lower priority.
    pub fn join(&mut self, priority: i32, item: T, (room, order): (usize, Order)) -> Joined<T> {
        let ticket = Ticket { priority, number: self.next };
        if self.waiting.len() < room {
            self.next += 1;
            self.waiting.insert(ticket, item);
            return Joined::Waiting(ticket);
        }
        let lowest = self.waiting.first_key_value().map(|(ticket, _)| ticket.priority);
        match lowest
            .filter(|lowest| room > 0 && *lowest < priority)
            .and_then(|lowest| self.last_of(lowest, order))
        {
            Some(last) => {
                let Some(out) = self.waiting.remove(&last) else { return Joined::Full(item) };
                self.next += 1;
                self.waiting.insert(ticket, item);
                Joined::Instead(ticket, out)
            }
            None => Joined::Full(item),
        }
    }

    /// Takes who is next.
    pub fn take(&mut self, order: Order) -> Option<T> {
        let highest = self.waiting.last_key_value()?.0.priority;
        let next = match order {
            Order::Oldest => self.ends_of(highest).0,
            Order::Newest => self.ends_of(highest).1,
        };
        self.waiting.remove(&next?)
    }

    /// Leaves before its turn; `None` when it was taken already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        self.waiting.remove(&ticket)
    }

    fn last_of(&self, priority: i32, order: Order) -> Option<Ticket> {
        match order {
            Order::Oldest => self.ends_of(priority).1,
            Order::Newest => self.ends_of(priority).0,
        }
    }

    /// The oldest and the newest of a priority.
    fn ends_of(&self, priority: i32) -> (Option<Ticket>, Option<Ticket>) {
        let mut range =
            self.waiting.range(Ticket { priority, number: 0 }..=Ticket { priority, number: u64::MAX });
        let oldest = range.next().map(|(ticket, _)| *ticket);
        let newest = range.next_back().map(|(ticket, _)| *ticket).or(oldest);
        (oldest, newest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drained<T>(queue: &mut Queue<T>, order: Order) -> Vec<T> {
        std::iter::from_fn(|| queue.take(order)).collect()
    }

    #[test]
    fn priority_comes_first_and_then_age() {
        for (order, expected) in
            [(Order::Oldest, ["c", "e", "a", "d", "b"]), (Order::Newest, ["e", "c", "d", "a", "b"])]
        {
            let mut queue = Queue::default();
            for (priority, name) in [(0, "a"), (-1, "b"), (5, "c"), (0, "d"), (5, "e")] {
                assert!(matches!(queue.join(priority, name, (5, order)), Joined::Waiting(_)));
            }
            assert_eq!(drained(&mut queue, order), expected);
        }
    }

    #[test]
    fn only_a_lower_priority_makes_room() {
        let mut queue = Queue::default();
        let room = (2, Order::Oldest);
        assert_eq!(queue.join(0, "none", (0, Order::Oldest)), Joined::Full("none"));
        queue.join(1, "a", room);
        queue.join(1, "b", room);
        assert_eq!(queue.join(1, "c", room), Joined::Full("c"));
        assert!(matches!(queue.join(2, "d", room), Joined::Instead(_, "b")));
        assert_eq!(drained(&mut queue, Order::Oldest), ["d", "a"]);
        queue.join(1, "a", (2, Order::Newest));
        queue.join(1, "b", (2, Order::Newest));
        assert!(matches!(queue.join(2, "d", (2, Order::Newest)), Joined::Instead(_, "a")));
    }

    #[test]
    fn who_left_is_not_taken_and_leaves_once() {
        let mut queue = Queue::default();
        let Joined::Waiting(ticket) = queue.join(0, "a", (2, Order::Oldest)) else { panic!() };
        queue.join(0, "b", (2, Order::Oldest));
        assert_eq!((queue.leave(ticket), queue.leave(ticket)), (Some("a"), None));
        assert_eq!(drained(&mut queue, Order::Oldest), ["b"]);
        assert!(queue.is_empty());
    }

    proptest! {
        /// Never longer than its room; nobody is lost or served twice; nobody is served before somebody of a
        /// higher priority who waited at the time.
        #[test]
        fn it_is_bounded_and_ordered(
            steps in prop::collection::vec((0u8..3, -3i32..3), 0..200),
            room in 0usize..8,
            newest in any::<bool>(),
        ) {
            let order = if newest { Order::Newest } else { Order::Oldest };
            let mut queue = Queue::default();
            let mut waiting: Vec<(Ticket, i32, usize)> = Vec::new();
            for (id, (step, priority)) in steps.into_iter().enumerate() {
                match step {
                    0 => match queue.take(order) {
                        Some(taken) => {
                            let place = waiting.iter().position(|(_, _, id)| *id == taken).unwrap();
                            let (_, of_taken, _) = waiting.remove(place);
                            prop_assert!(waiting.iter().all(|(_, other, _)| *other <= of_taken));
                            let equals = waiting.iter().filter(|(_, other, _)| *other == of_taken);
                            let mut numbers = equals.map(|(_, _, id)| *id);
                            let fair = numbers.all(|id| (id < taken) == newest);
                            prop_assert!(fair);
                        }
                        None => prop_assert!(waiting.is_empty()),
                    },
                    1 if !waiting.is_empty() => {
                        let (ticket, _, id) = waiting.swap_remove(id % waiting.len());
                        prop_assert_eq!(queue.leave(ticket), Some(id));
                    }
                    _ => match queue.join(priority, id, (room, order)) {
                        Joined::Waiting(ticket) => waiting.push((ticket, priority, id)),
                        Joined::Instead(ticket, out) => {
                            waiting.retain(|(_, _, id)| *id != out);
                            waiting.push((ticket, priority, id));
                        }
                        Joined::Full(_) => prop_assert!(waiting.iter().all(|(_, other, _)| *other >= priority)),
                    },
                }
                prop_assert!(queue.len() <= room && queue.len() == waiting.len());
            }
        }
    }
}
