//! The registry without sockets: who gets which tunnel, and what is refused.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use sluice_tunnel::registration::{Extensions, Version};

use super::config::{Config, Policy};
use super::darkness::Subject;
use super::line::Order;
use super::{Entered, Missing, Origin, Refused, Slot, Tunnels, Unknown, Wanted};
use crate::observe::diagnostic::Diagnostics;
use crate::world::Clock;

const WAIT: Duration = Duration::from_secs(5);

struct Scene {
    tunnels: Arc<Tunnels>,
    now: Instant,
}

fn scene(toml: &str) -> Scene {
    let tunnels = Tunnels::new(&Diagnostics::silent());
    let config: Config = toml_edit::de::from_str(toml).unwrap();
    tunnels.set_policy(config.policy());
    Scene { tunnels, now: Clock::start().now() }
}

impl Scene {
    fn origin(version: Version, domain: &str, route: &str) -> Origin {
        Origin {
            version,
            domain: domain.into(),
            route: route.into(),
            instance: "i-1".into(),
            component: "".into(),
            peer: "192.0.2.7:4000".parse().unwrap(),
            extensions: Extensions::NONE,
            streams: 2,
        }
    }

    fn enter(&self, version: Version, route: &str) -> Result<Entered, Refused> {
        self.tunnels.enter(Scene::origin(version, "", route), self.now)
    }

    fn take(&self, routes: &[&str]) -> Result<Slot, Missing> {
        self.tunnels.take(&wanted(routes), self.now)
    }
}

fn wanted(routes: &[&str]) -> Wanted {
    let places = routes.iter().map(|route| (Box::from(""), Box::from(*route))).collect();
    Wanted { places, wait: WAIT, unknown: Unknown::Refused }
}

fn number(slot: &Slot) -> u64 {
    slot.tunnel.as_ref().unwrap().number
}

/// What a tunnel's task was told.
fn order(entered: &mut Entered) -> Option<Order> {
    match entered.orders.poll_recv(&Context::from_waker(Waker::noop())) {
        Poll::Ready(order) => order,
        Poll::Pending => None,
    }
}

#[test]
fn idle_tunnels_are_used_in_order_and_an_unused_one_goes_back_to_the_front() {
    let scene = scene("");
    let entered: Vec<Entered> = (0..3).map(|_| scene.enter(Version::V1, "a").unwrap()).collect();
    let first = scene.take(&["a"]).unwrap();
    assert_eq!(number(&first), entered[0].tunnel.number);
    drop(first);
    for entered in &entered {
        let slot = scene.take(&["a"]).unwrap();
        assert_eq!(number(&slot), entered.tunnel.number);
        std::mem::forget(slot);
    }
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Busy));
}

#[test]
fn tunnels_of_3_0_take_turns_and_no_more_than_they_have_room_for() {
    let scene = scene("");
    let _entered = [scene.enter(Version::V3, "a").unwrap(), scene.enter(Version::V3, "a").unwrap()];
    let slots: Vec<Slot> = (0..4).map(|_| scene.take(&["a"]).unwrap()).collect();
    let numbers: Vec<u64> = slots.iter().map(number).collect();
    assert!(numbers[0] != numbers[1] && numbers[0] == numbers[2] && numbers[1] == numbers[3], "{numbers:?}");
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Busy));
    drop(slots);
    assert!(scene.take(&["a"]).is_ok());
}

#[test]
fn both_versions_are_used_by_turns() {
    let scene = scene("");
    let _mux = scene.enter(Version::V3, "a").unwrap();
    let _idle = [scene.enter(Version::V1, "a").unwrap(), scene.enter(Version::V1, "a").unwrap()];
    let versions: Vec<Version> = (0..4)
        .map(|_| {
            let slot = scene.take(&["a"]).unwrap();
            let version = slot.tunnel.as_ref().unwrap().origin.version;
            std::mem::forget(slot);
            version
        })
        .collect();
    assert_eq!(versions, [Version::V3, Version::V1, Version::V3, Version::V1]);
}

#[test]
fn who_waits_is_served_in_order_and_who_left_is_passed_over() {
    let scene = scene("");
    drop(scene.enter(Version::V1, "a").unwrap());
    std::mem::forget(scene.take(&["a"]).unwrap());
    let wait = || scene.tunnels.wait(&wanted(&["a"]), scene.now).unwrap().unwrap_err();
    let (mut first, gone, mut last) = (wait(), wait(), wait());
    drop(gone);
    let _one = scene.enter(Version::V1, "a").unwrap();
    let slot = first.try_recv().unwrap();
    assert!(last.try_recv().is_err());
    // It was not used.
    drop(slot);
    drop(last.try_recv().unwrap());
    assert!(scene.take(&["a"]).is_ok());
}

#[test]
fn a_tunnel_that_came_too_late_goes_back() {
    let scene = scene("");
    drop(scene.enter(Version::V1, "a").unwrap());
    std::mem::forget(scene.take(&["a"]).unwrap());
    let waiting = scene.tunnels.wait(&wanted(&["a"]), scene.now).unwrap().unwrap_err();
    let entered = scene.enter(Version::V1, "a").unwrap();
    drop(waiting);
    assert_eq!(number(&scene.take(&["a"]).unwrap()), entered.tunnel.number);
}

#[test]
fn so_many_may_wait_and_no_more() {
    let scene = scene("max_waiting = 1");
    let _entered = scene.enter(Version::V1, "a").unwrap();
    std::mem::forget(scene.take(&["a"]).unwrap());
    let first = scene.tunnels.wait(&wanted(&["a"]), scene.now).unwrap();
    assert_eq!(scene.tunnels.wait(&wanted(&["a"]), scene.now).err(), Some(Missing::Crowded));
    drop(first);
    assert!(scene.tunnels.wait(&wanted(&["a"]), scene.now).is_ok());
}

#[test]
fn a_burst_does_not_leak_to_the_catch_all() {
    let scene = scene("keep_routes = \"1h\"");
    let entered = scene.enter(Version::V1, "a").unwrap();
    let _all = scene.enter(Version::V1, "").unwrap();
    std::mem::forget(scene.take(&["a", ""]).unwrap());
    assert_eq!(scene.take(&["a", ""]).err(), Some(Missing::Busy));
    scene.tunnels.remove(&entered.tunnel, super::End::Closed, scene.now);
    assert_eq!(scene.take(&["a", ""]).err(), Some(Missing::Busy), "it was there a moment ago");
    let later = scene.now + WAIT;
    assert!(scene.tunnels.take(&wanted(&["a", ""]), later).is_ok());
}

#[test]
fn a_route_is_known_for_a_while_after_its_last_tunnel() {
    let scene = scene("keep_routes = \"1h\"");
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Unknown));
    let entered = scene.enter(Version::V3, "a").unwrap();
    scene.tunnels.remove(&entered.tunnel, super::End::Dropped, scene.now);
    let hour = Duration::from_secs(3600);
    assert!(scene.tunnels.knows("", "a", scene.now + hour / 2));
    assert_eq!(scene.tunnels.take(&wanted(&["a"]), scene.now + hour / 2).err(), Some(Missing::Busy));
    assert!(!scene.tunnels.knows("", "a", scene.now + hour));
    assert_eq!(scene.tunnels.take(&wanted(&["a"]), scene.now + hour).err(), Some(Missing::Unknown));
}

#[test]
fn limits_are_by_address_by_route_and_by_the_number_of_routes() {
    let scene = scene("max_per_address = 3\nmax_per_route = 1\nmax_routes = 2\nkeep_routes = \"1s\"");
    let first = scene.enter(Version::V3, "a").unwrap();
    assert_eq!(scene.enter(Version::V3, "a").err(), Some(Refused::RouteLimit));
    let _second = scene.enter(Version::V3, "b").unwrap();
    assert_eq!(scene.enter(Version::V3, "c").err(), Some(Refused::RoutesLimit));
    scene.tunnels.remove(&first.tunnel, super::End::Closed, scene.now);
    let later = scene.now + Duration::from_secs(2);
    let origin = |route| Scene::origin(Version::V3, "", route);
    assert!(scene.tunnels.enter(origin("c"), later).is_ok(), "a forgotten route makes room");
    let many = self::scene("max_per_address = 1");
    let _one = many.enter(Version::V1, "a").unwrap();
    assert_eq!(many.enter(Version::V1, "b").err(), Some(Refused::AddressLimit));
}

#[test]
fn what_is_dark_stays_registered_and_is_lit_by_the_next_policy() {
    let scene = scene("dark_addresses = [\"192.0.2.0/24\"]");
    let _entered = [scene.enter(Version::V1, "a").unwrap(), scene.enter(Version::V3, "a").unwrap()];
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Busy));
    scene.tunnels.set_policy(Policy::default());
    assert!(scene.take(&["a"]).is_ok());
    let dark: Config = toml_edit::de::from_str("dark_routes = [\"/a/\"]").unwrap();
    scene.tunnels.set_policy(dark.policy());
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Busy));
}

#[test]
fn gray_uses_dark_tunnels_alone_and_wakes_who_waits() {
    let scene = scene("");
    let _lit = scene.enter(Version::V3, "a").unwrap();
    let dark = scene.enter(Version::V1, "b").unwrap();
    scene.tunnels.darken(Subject::Route("b".into()), "test").unwrap();
    assert_eq!(scene.take(&["b"]).err(), Some(Missing::Busy));
    let mut waiting = scene.tunnels.wait(&wanted(&["b"]), scene.now).unwrap().unwrap_err();
    scene.tunnels.set_gray(true, "test").unwrap();
    let slot = waiting.try_recv().unwrap();
    assert_eq!(number(&slot), dark.tunnel.number);
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Busy), "it is lit");
    // In use, it still keeps requests from the catch-all; given back, it is where it was.
    let _all = scene.enter(Version::V1, "").unwrap();
    assert_eq!(scene.take(&["b", ""]).err(), Some(Missing::Busy));
    drop(slot);
    assert_eq!(number(&scene.take(&["b"]).unwrap()), dark.tunnel.number);
}

#[test]
fn a_tunnel_that_went_dark_while_it_was_taken_does_not_come_back_lit() {
    let scene = scene("");
    let _entered = scene.enter(Version::V1, "a").unwrap();
    let slot = scene.take(&["a"]).unwrap();
    scene.tunnels.darken(Subject::Address("192.0.2.7".parse().unwrap()), "test").unwrap();
    drop(slot);
    assert_eq!(scene.take(&["a"]).err(), Some(Missing::Busy));
    scene.tunnels.lighten(&Subject::Address("192.0.2.7".parse().unwrap()), "test").unwrap();
    assert!(scene.take(&["a"]).is_ok());
}

#[test]
fn deregistering_takes_a_connectors_tunnels_out_and_tells_them() {
    let scene = scene("");
    let mut mine = scene.enter(Version::V1, "a").unwrap();
    let domain = Scene::origin(Version::V3, "shop.example", "a");
    let mut elsewhere = scene.tunnels.enter(domain, scene.now).unwrap();
    let other = Origin { instance: "i-2".into(), ..Scene::origin(Version::V1, "", "a") };
    let mut other = scene.tunnels.enter(other, scene.now).unwrap();
    assert_eq!(scene.tunnels.retire("a", "i-1"), 2);
    assert!(matches!(order(&mut mine), Some(Order::Retire)));
    assert!(matches!(order(&mut elsewhere), Some(Order::Retire)), "in every domain");
    assert!(order(&mut other).is_none());
    assert_eq!(number(&scene.take(&["a"]).unwrap()), other.tunnel.number);
}

#[test]
fn a_stop_takes_all_tunnels_out_and_lets_none_in() {
    let scene = scene("");
    let mut entered = scene.enter(Version::V3, "a").unwrap();
    scene.tunnels.drain();
    assert!(matches!(order(&mut entered), Some(Order::Drain)));
    assert_eq!(scene.enter(Version::V3, "a").err(), Some(Refused::Draining));
    assert!(scene.take(&["a"]).is_err());
}
