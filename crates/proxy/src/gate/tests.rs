//! Gates, on one thread with its timers and on many.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::world::Clock;

fn world() -> Rc<World> {
    World::new(Clock::start(), 1)
}

const LONG: Patience = Patience { queue: 100, wait: Duration::from_secs(60), order: Order::Oldest };

async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "local")]
async fn no_more_than_the_limit_come_in_and_a_place_goes_to_who_is_next() {
    let (world, gate) = (world(), Gate::new(2));
    let first = gate.enter(&world, 0, LONG).await.unwrap();
    let _second = gate.enter(&world, 0, LONG).await.unwrap();
    let came = Rc::new(RefCell::new(Vec::new()));
    for (name, priority) in [("low", -1), ("a", 0), ("b", 0), ("high", 9)] {
        let (own, gate, came) = (Rc::clone(&world), Arc::clone(&gate), Rc::clone(&came));
        world.spawn(async move {
            let permit = gate.enter(&own, priority, LONG).await.unwrap();
            came.borrow_mut().push(name);
            drop(permit);
        });
        settle().await;
    }
    assert_eq!((gate.inside(), gate.waiting(), gate.has_room()), (2, 4, false));
    assert!(gate.try_enter().is_err(), "nobody passes those who wait");
    drop(first);
    settle().await;
    assert_eq!(*came.borrow(), ["high", "a", "b", "low"]);
    assert_eq!((gate.inside(), gate.waiting(), gate.refused()), (1, 0, 1));
}

#[tokio::test(flavor = "local")]
async fn who_waits_too_long_or_finds_no_room_to_wait_is_refused() {
    let (world, gate) = (world(), Gate::new(1));
    let _inside = gate.try_enter().unwrap();
    let short = Patience { queue: 1, wait: Duration::from_millis(30), order: Order::Oldest };
    let (own, other) = (Rc::clone(&world), Arc::clone(&gate));
    let waits = tokio::task::spawn_local(async move { other.enter(&own, 0, LONG).await.map(drop) });
    settle().await;
    assert_eq!(gate.enter(&world, 0, short).await.err(), Some(Failure::Overloaded), "the queue is full");
    assert_eq!(gate.enter(&world, 0, Patience::NONE).await.err(), Some(Failure::Overloaded));
    // A higher priority takes the place in the queue, and then waits in vain.
    assert_eq!(gate.enter(&world, 1, short).await.err(), Some(Failure::Overloaded));
    assert_eq!(waits.await.unwrap(), Err(Failure::Overloaded));
    assert_eq!((gate.inside(), gate.waiting()), (1, 0));
}

#[tokio::test(flavor = "local")]
async fn who_leaves_the_queue_holds_nothing() {
    let (world, gate) = (world(), Gate::new(1));
    let inside = gate.try_enter().unwrap();
    let wait = |gate: &Arc<Gate>| {
        let (own, gate) = (Rc::clone(&world), Arc::clone(gate));
        tokio::task::spawn_local(async move { gate.enter(&own, 0, LONG).await })
    };
    let (gone, stays) = (wait(&gate), wait(&gate));
    settle().await;
    gone.abort();
    settle().await;
    assert_eq!(gate.waiting(), 1);
    drop(inside);
    let permit = stays.await.unwrap().unwrap();
    // Given a place and gone before it took it.
    let gone = wait(&gate);
    settle().await;
    drop(permit);
    gone.abort();
    settle().await;
    assert_eq!((gate.inside(), gate.waiting()), (0, 0));
}

#[tokio::test(flavor = "local")]
async fn a_higher_limit_lets_in_who_waits() {
    let (world, gate) = (world(), Gate::new(1));
    let _inside = gate.try_enter().unwrap();
    let (own, other) = (Rc::clone(&world), Arc::clone(&gate));
    let waits = tokio::task::spawn_local(async move { other.enter(&own, 0, LONG).await });
    settle().await;
    gate.set_limit(2);
    let _second = waits.await.unwrap().unwrap();
    assert_eq!(gate.inside(), 2);
    gate.set_limit(1);
    assert!(gate.try_enter().is_err());
}

/// Goes in and out, and notes the most that were inside.
async fn pass(gate: &Arc<Gate>, inside: &AtomicU32, most: &AtomicU32) {
    let world = world();
    for _ in 0..300 {
        let permit = gate.enter(&world, 0, LONG).await.unwrap();
        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
        tokio::task::yield_now().await;
        inside.fetch_sub(1, SeqCst);
        drop(permit);
    }
}

#[test]
fn threads_never_hold_more_places_than_there_are() {
    let (gate, most, inside) = (Gate::new(3), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build_local(Default::default()).unwrap();
                runtime.block_on(pass(&gate, &inside, &most));
            });
        }
    });
    assert!((1..=3).contains(&most.load(SeqCst)), "{most:?}");
    assert_eq!((gate.inside(), gate.waiting(), gate.refused()), (0, 0, 0));
}

#[test]
fn a_limit_is_learnt_from_how_long_requests_take() {
    let gate = Gate::adaptive(Policy { min: 1, max: 100, initial: 10, tolerance: 1.5 });
    let mut now = Moment(0);
    let mut pass = |took: u64, windows: u32| {
        for _ in 0..windows {
            for _ in 0..10 {
                let inside: Vec<_> = (0..gate.limit()).map(|_| gate.try_enter().unwrap()).collect();
                gate.learn(Some(Duration::from_millis(took)), now);
                drop(inside);
                now = now.after(Duration::from_millis(11));
            }
        }
        gate.limit()
    };
    let fast = pass(10, 20);
    assert!(fast > 15, "{fast}");
    let slow = pass(100, 20);
    assert!(slow < fast / 2, "{slow} after {fast}");
    for _ in 0..100 {
        gate.learn(None, now);
        now = now.after(Duration::from_millis(101));
    }
    assert_eq!(gate.limit(), 1);
}
