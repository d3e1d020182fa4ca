//! Every balancer through real traffic, and which endpoints take part at all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use sluice_testkit::{Gateway, Origin, Reply, eventually, http};

use super::{
    App, Client, checked, endpoint, http_check, letter, lettered, letters, set, share, wait_health,
    wait_served_by,
};

const HASHING: [&str; 4] = ["source_hash", "ring_hash", "bounded_hash", "maglev"];

fn weighted(origins: &[Origin], weights: &[u32]) -> App {
    App::with(
        origins.iter().zip(weights).map(|(origin, weight)| endpoint(origin, &format!("weight = {weight}"))),
    )
}

#[tokio::test]
async fn r15_weighted_round_robin_is_smooth() {
    let origins = lettered::<3>().await;
    let gateway = weighted(&origins[..2], &[3, 1]).start().await;
    let order = letters(&gateway, 12).await;
    assert_eq!(order, "AABA".repeat(3));
    let gateway = weighted(&origins, &[5, 1, 1]).start().await;
    assert_eq!(letters(&gateway, 14).await, "AABACAA".repeat(2), "never AAAAABC");
}

#[tokio::test]
async fn equal_endpoints_take_turns() {
    let origins = lettered::<3>().await;
    let gateway = App::of(&origins).start().await;
    assert_eq!(letters(&gateway, 9).await, "ABCABCABC");
}

#[tokio::test]
async fn drawing_balancers_follow_the_weights() {
    let origins = lettered::<2>().await;
    for balance in ["random", "two_choices"] {
        let gateway = weighted(&origins, &[3, 1]).upstream(&format!("balance = \"{balance}\"")).start().await;
        let letters = letters(&gateway, 800).await;
        // 600 are expected; six standard deviations are 74.
        let most = share(&letters, 'A');
        assert!((526..=674).contains(&most), "{balance}: {most} of 800 went to the one with weight 3");
    }
}

/// Sends requests until the first origin holds one of them back.
async fn hold_one(gateway: &Gateway, [holding, other]: &[Origin; 2]) -> Client {
    holding.set_script(Reply::ok("A").held());
    let before = holding.count() + other.count();
    for sent in 1..=64 {
        let mut client = Client::of(gateway).await;
        client.send("/").await;
        eventually("the request at an origin", async || {
            (holding.count() + other.count() == before + sent).then_some(())
        })
        .await;
        if holding.count() > 0 {
            holding.wait_held(1).await;
            return client;
        }
        assert_eq!(client.wire.answer().await.text(), "B");
    }
    panic!("64 requests, and none went to the first of two idle endpoints");
}

#[tokio::test]
async fn balancers_by_load_leave_a_busy_endpoint_alone() {
    for balance in ["least_requests", "two_choices"] {
        let origins = lettered::<2>().await;
        let gateway = App::of(&origins).upstream(&format!("balance = \"{balance}\"")).start().await;
        let mut held = hold_one(&gateway, &origins).await;
        assert_eq!(letters(&gateway, 30).await, "B".repeat(30), "{balance}");
        origins[0].set_script(Reply::ok("A"));
        origins[0].release();
        assert_eq!(held.wire.answer().await.text(), "A");
        let after = letters(&gateway, 60).await;
        assert_eq!(set(&after), "AB", "{balance}: the count went down again");
    }
}

#[tokio::test]
async fn least_requests_fills_endpoints_by_weight() {
    let origins = lettered::<2>().await;
    let gateway = weighted(&origins, &[3, 1]).upstream("balance = \"least_requests\"").start().await;
    for (at, origin) in origins.iter().enumerate() {
        origin.set_script(Reply::ok(letter(at)).held());
    }
    let mut clients = Vec::new();
    for sent in 1..=8 {
        let mut client = Client::of(&gateway).await;
        client.send("/").await;
        eventually("the request at an origin", async || {
            (origins[0].count() + origins[1].count() == sent).then_some(())
        })
        .await;
        clients.push(client);
    }
    assert_eq!((origins[0].count(), origins[1].count()), (6, 2), "in flight, 3:1");
}

#[tokio::test]
async fn peak_ewma_prefers_the_endpoint_that_answers_sooner() {
    let origins = lettered::<2>().await;
    // Some twenty pauses of 5 ms before the head is complete.
    origins[0].set_script(Reply::ok("A").dribble(3, std::time::Duration::from_millis(5)));
    let gateway = App::of(&origins).upstream("balance = \"peak_ewma\"").start().await;
    let letters = letters(&gateway, 60).await;
    let slow = share(&letters, 'A');
    assert!((1..=6).contains(&slow), "{slow} of 60 went to the slow endpoint: {letters}");
}

/// Whom each of so many keys, sent as the field X-User, is served by.
async fn keyed(gateway: &Gateway, keys: usize) -> BTreeMap<String, String> {
    let mut client = Client::of(gateway).await;
    let mut served = BTreeMap::new();
    for key in 0..keys {
        let key = format!("user-{key}");
        let letter = client.letter("/", &[("X-User", &key)]).await;
        served.insert(key, letter);
    }
    served
}

fn by_user(app: App, balance: &str) -> App {
    app.upstream(&format!("balance = \"{balance}\"\nhash = {{ header = \"X-User\" }}"))
}

fn served_by(served: &BTreeMap<String, String>, letter: &str) -> usize {
    served.values().filter(|value| *value == letter).count()
}

#[tokio::test]
async fn hashing_keeps_a_key_and_spreads_keys_by_weight() {
    let origins = lettered::<2>().await;
    for balance in HASHING {
        let gateway = by_user(weighted(&origins, &[3, 1]), balance).start().await;
        let first = keyed(&gateway, 200).await;
        let most = served_by(&first, "A");
        assert!((120..=180).contains(&most), "{balance}: {most} of 200 keys at the one with weight 3");
        assert_eq!(keyed(&gateway, 200).await, first, "{balance}: the same key, the same endpoint");
        let another = by_user(weighted(&origins, &[3, 1]), balance).start().await;
        assert_eq!(keyed(&another, 200).await, first, "{balance}: in every process");
    }
}

#[tokio::test]
async fn hashing_moves_only_the_keys_of_an_endpoint_that_is_removed() {
    let origins = lettered::<3>().await;
    for balance in HASHING {
        let gateway = by_user(App::of(&origins), balance).start().await;
        let before = keyed(&gateway, 200).await;
        by_user(App::of(&origins[..2]), balance).replace(&gateway).await;
        let after = keyed(&gateway, 200).await;
        let stayed = before.iter().filter(|(_, letter)| *letter != "C");
        let moved = stayed.filter(|(key, letter)| after[*key] != **letter).count();
        // Maglev trades a few moves for its even table; the others move none.
        let allowed = if balance == "maglev" { 20 } else { 0 };
        assert!(moved <= allowed, "{balance}: {moved} keys moved that had no reason to");
        assert_eq!(served_by(&after, "C"), 0, "{balance}");
        assert!(served_by(&after, "A") > served_by(&before, "A"), "{balance}: both take over");
        assert!(served_by(&after, "B") > served_by(&before, "B"), "{balance}: both take over");
        by_user(App::of(&origins), balance).replace(&gateway).await;
        assert_eq!(keyed(&gateway, 200).await, before, "{balance}: back as it was");
    }
}

#[tokio::test]
async fn hashing_serves_the_keys_of_a_dead_endpoint_elsewhere_and_leaves_the_others() {
    for balance in HASHING {
        let mut origins = lettered::<3>().await;
        let gateway = by_user(App::of(&origins), balance).start().await;
        let before = keyed(&gateway, 60).await;
        origins[2].stop().await;
        for (key, letter) in keyed(&gateway, 60).await {
            assert!(letter != "C" && (before[&key] == "C" || before[&key] == letter), "{balance}: {key}");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_too_popular_spills_over_under_bounded_hash() {
    let origins = lettered::<2>().await;
    for (balance, least) in [("ring_hash", 0), ("bounded_hash", 3)] {
        let app = App::of(&origins).upstream("hash = \"path\"");
        let gateway = app.upstream(&format!("balance = \"{balance}\"")).start().await;
        let before = [origins[0].count(), origins[1].count()];
        origins.iter().for_each(|origin| origin.set_script(Reply::ok("").held()));
        let mut clients = Vec::new();
        for sent in 1..=10 {
            let mut client = Client::of(&gateway).await;
            client.send("/popular").await;
            clients.push(client);
            eventually("the request at an origin", async || {
                (origins[0].count() + origins[1].count() == before[0] + before[1] + sent).then_some(())
            })
            .await;
        }
        let counts = [origins[0].count() - before[0], origins[1].count() - before[1]];
        let fewest = counts.into_iter().min().unwrap_or_default();
        assert!(if least == 0 { fewest == 0 } else { fewest >= least }, "{balance}: {counts:?}");
        origins.iter().for_each(Origin::release);
        for client in &mut clients {
            assert_eq!(client.wire.answer().await.status, 200);
        }
    }
}

#[tokio::test]
async fn what_is_hashed_can_be_a_path_a_query_a_cookie_or_a_field() {
    let origins = lettered::<3>().await;
    type Form = fn(&str) -> (String, Option<(&'static str, String)>);
    let keys: [(&str, Form); 4] = [
        ("\"path\"", |value| (format!("/{value}?noise"), None)),
        ("{ query = \"user\" }", |value| (format!("/?a=b&user={value}"), None)),
        ("{ cookie = \"who\" }", |value| ("/".into(), Some(("Cookie", format!("x=y; who={value}"))))),
        ("{ header = \"X-User\" }", |value| ("/".into(), Some(("x-user", value.into())))),
    ];
    for (hash, form) in keys {
        let gateway =
            App::of(&origins).upstream(&format!("balance = \"ring_hash\"\nhash = {hash}")).start().await;
        let mut client = Client::of(&gateway).await;
        let mut all = String::new();
        for value in 0..40 {
            let (target, field) = form(&value.to_string());
            let field: Vec<(&str, &str)> =
                field.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let letter = client.letter(&target, &field).await;
            assert_eq!(client.letter(&target, &field).await, letter, "{hash}: {value}");
            all.push_str(&letter);
        }
        assert_eq!(set(&all), "ABC", "{hash}");
        // Without the value the client address stands in.
        assert_eq!(set(&client.letters(5).await).len(), 1, "{hash}");
    }
}

#[tokio::test]
async fn the_client_address_is_hashed_and_forged_fields_do_not_change_it() {
    let origins = lettered::<3>().await;
    let gateway = App::of(&origins).upstream("balance = \"ring_hash\"").start().await;
    let mut all = String::new();
    for last in 1..=30 {
        let mut client = Client::from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), &gateway).await;
        let letter = client.letter("/", &[]).await;
        for forged in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            assert_eq!(client.letter("/x", &[("X-Forwarded-For", forged)]).await, letter);
        }
        all.push_str(&letter);
    }
    assert_eq!(set(&all), "ABC");
}

#[tokio::test]
async fn a_backup_serves_only_when_no_other_endpoint_can() {
    let mut origins = lettered::<2>().await;
    let [primary, backup] = [endpoint(&origins[0], ""), endpoint(&origins[1], "backup = true")];
    let gateway = App::with([primary, backup]).upstream("ejection = false").start().await;
    assert_eq!(letters(&gateway, 10).await, "A".repeat(10));
    origins[0].stop().await;
    assert_eq!(letters(&gateway, 10).await, "B".repeat(10));
    origins[0].start_again().await;
    assert_eq!(letters(&gateway, 10).await, "A".repeat(10));
}

#[tokio::test]
async fn draining_and_disabled_endpoints_take_nothing_new() {
    let origins = lettered::<3>().await;
    let states = |states: [&str; 3]| {
        let endpoints = origins.iter().zip(states);
        App::with(endpoints.map(|(origin, state)| endpoint(origin, &format!("state = \"{state}\""))))
    };
    let gateway = states(["enabled", "enabled", "enabled"]).start().await;
    assert_eq!(set(&letters(&gateway, 9).await), "ABC");
    states(["drain", "enabled", "disabled"]).replace(&gateway).await;
    assert_eq!(letters(&gateway, 9).await, "B".repeat(9));
    states(["drain", "disabled", "disabled"]).replace(&gateway).await;
    let answer = http::get(gateway.address("web"), "/").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no-endpoint"));
    states(["enabled", "disabled", "enabled"]).replace(&gateway).await;
    assert_eq!(set(&letters(&gateway, 8).await), "AC");
}

#[tokio::test]
async fn a_request_in_flight_ends_at_an_endpoint_that_is_disabled_meanwhile() {
    let origins = lettered::<2>().await;
    origins[0].set_script(Reply::ok("A").held());
    let gateway = App::of(&origins[..1]).start().await;
    let mut client = Client::of(&gateway).await;
    client.send("/").await;
    origins[0].wait_held(1).await;
    let [first, second] = [endpoint(&origins[0], "state = \"disabled\""), endpoint(&origins[1], "")];
    App::with([first, second]).replace(&gateway).await;
    origins[0].release();
    assert_eq!(client.wire.answer().await.text(), "A");
    assert_eq!(client.letters(4).await, "BBBB");
}

#[tokio::test]
async fn slow_start_gives_an_endpoint_that_came_back_a_growing_share() {
    let origins = lettered::<2>().await;
    origins[0].set_script(checked("A", Reply::status(200)));
    origins[1].set_script(checked("B", Reply::status(500)));
    let app = |slow_start: &str| {
        App::of(&origins)
            .upstream(&format!("slow_start = \"{slow_start}\"\nbalance = \"random\""))
            .upstream(&http_check(", rise = 1"))
    };
    let gateway = app("10m").start().await;
    wait_served_by(&gateway, "A").await;
    origins[1].set_script(checked("B", Reply::status(200)));
    wait_health(&gateway, &origins[1], "healthy").await;
    let mut client = Client::of(&gateway).await;
    let few = share(&client.letters(100).await, 'B');
    assert!(few <= 35, "{few} of 100 at the start: its share of the weight is a tenth");
    // The window is over sooner now; how long the endpoint has been back was kept.
    app("500ms").replace(&gateway).await;
    eventually("half of the traffic", async || (share(&client.letters(100).await, 'B') >= 35).then_some(()))
        .await;
}
