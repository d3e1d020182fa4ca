//! Affinity: a client stays with its endpoint, and what becomes of it when the endpoint is gone.

use std::net::{IpAddr, Ipv4Addr};

use sluice_testkit::{Answer, Reply, eventually};

use super::{App, Client, checked, endpoint, http_check, lettered, letters, set, wait_health};

/// The pair that a Set-Cookie field sets: "srv_id=..."; its attributes.
fn cookie(answer: &Answer) -> (String, String) {
    let set = answer.field("set-cookie").unwrap_or_else(|| panic!("no cookie in {:?}", answer.fields));
    let (pair, attributes) = set.split_once("; ").unwrap_or((set, ""));
    (pair.to_owned(), attributes.to_owned())
}

/// A client without a cookie asks: the letter that served it, and its cookie.
async fn bind(client: &mut Client) -> (String, String) {
    let answer = client.get("/", &[]).await;
    (answer.text(), cookie(&answer).0)
}

/// Who serves a client with this cookie, and whether it gets another one.
async fn with_cookie(client: &mut Client, cookie: &str) -> (String, Option<String>) {
    let answer = client.get("/", &[("Cookie", &format!("theme=dark; {cookie}; last=1"))]).await;
    (answer.text(), answer.field("set-cookie").map(str::to_owned))
}

#[tokio::test]
async fn a_signed_cookie_binds_and_tells_nothing() {
    let origins = lettered::<3>().await;
    let gateway = App::of(&origins).upstream("affinity = { cookie = \"srv_id\" }").start().await;
    let mut client = Client::of(&gateway).await;
    let mut bound = Vec::new();
    for (at, origin) in origins.iter().enumerate() {
        let answer = client.get("/", &[]).await;
        let (pair, attributes) = cookie(&answer);
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        let value = pair.strip_prefix("srv_id=").unwrap();
        assert!(value.len() >= 22, "{value} could be guessed");
        let port = origin.address().port().to_string();
        assert!(!value.contains(&port) && !value.contains("127"), "{value} tells the address");
        assert_eq!(answer.text(), super::letter(at), "clients without a cookie are spread");
        bound.push((answer.text(), pair));
    }
    for (letter, pair) in bound.iter().rev().chain(&bound) {
        for _ in 0..3 {
            assert_eq!(with_cookie(&mut client, pair).await, (letter.clone(), None));
        }
    }
}

#[tokio::test]
async fn a_forged_cookie_is_ignored_and_replaced() {
    let origins = lettered::<2>().await;
    let app = App::of(&origins).upstream("affinity = { cookie = \"srv_id\" }");
    let (gateway, stranger) = (app.start().await, app.start().await);
    let (_, of_stranger) = bind(&mut Client::of(&stranger).await).await;
    let mut client = Client::of(&gateway).await;
    let plain = format!("srv_id={}", origins[1].address());
    let mut served = String::new();
    for forged in ["srv_id=", "srv_id=0", "srv_id=A", &plain, &of_stranger, "srv_id=\u{e9}\u{e9}"] {
        let (letter, replaced) = with_cookie(&mut client, forged).await;
        let replaced = replaced.unwrap_or_else(|| panic!("{forged} was taken"));
        assert!(replaced.starts_with("srv_id=") && !replaced.starts_with(&format!("{forged};")));
        served.push_str(&letter);
    }
    assert_eq!(served, "ABABAB", "as clients without a cookie");
}

#[tokio::test]
async fn gateways_with_the_same_secret_know_each_others_cookies() {
    let origins = lettered::<2>().await;
    let app =
        App::of(&origins).upstream("affinity = { cookie = { name = \"srv_id\", secret = \"s3cret\" } }");
    let (first, second) = (app.start().await, app.start().await);
    let mut client = Client::of(&first).await;
    for _ in 0..2 {
        let (letter, pair) = bind(&mut client).await;
        for gateway in [&first, &second] {
            let mut client = Client::of(gateway).await;
            assert_eq!(with_cookie(&mut client, &pair).await, (letter.clone(), None));
        }
    }
}

#[tokio::test]
async fn a_plain_cookie_carries_the_endpoints_id() {
    let origins = lettered::<3>().await;
    let [one, two] = [endpoint(&origins[0], "id = \"one\""), endpoint(&origins[1], "id = \"two\"")];
    let gateway = App::with([one, two, endpoint(&origins[2], "")])
        .upstream("affinity = { cookie = { name = \"node\", value = \"plain\" } }")
        .start()
        .await;
    let mut client = Client::of(&gateway).await;
    let address = format!("node={}", origins[2].address());
    for (letter, pair) in [("A", "node=one"), ("B", "node=two"), ("C", &address)] {
        assert_eq!(bind(&mut client).await, (letter.into(), pair.into()));
        assert_eq!(with_cookie(&mut client, pair).await, (letter.into(), None));
    }
}

#[tokio::test]
async fn the_cookie_has_the_attributes_of_the_document_and_the_origins_own_cookies_stay() {
    let origins = lettered::<1>().await;
    origins[0].set_script(Reply::ok("A").field("Set-Cookie", "own=1").field("Set-Cookie", "more=2"));
    let gateway = App::of(&origins)
        .upstream(
            "affinity = { cookie = { name = \"srv_id\", path = \"/shop\", domain = \"shop.example\", \
             max_age = \"2h\", secure = true, http_only = false, same_site = \"strict\" } }",
        )
        .start()
        .await;
    let answer = Client::of(&gateway).await.get("/", &[]).await;
    let cookies: Vec<_> = answer.fields.all("set-cookie").collect();
    assert_eq!(cookies[..2], ["own=1", "more=2"]);
    let (_, attributes) = cookies[2].split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/shop; Domain=shop.example; Max-Age=7200; Secure; SameSite=Strict");
    assert_eq!(cookies.len(), 3);
}

#[tokio::test]
async fn a_client_follows_to_another_endpoint_when_its_own_dies() {
    let mut origins = lettered::<3>().await;
    let gateway = App::of(&origins).upstream("affinity = { cookie = \"srv_id\" }").start().await;
    let mut client = Client::of(&gateway).await;
    let (letter, pair) = bind(&mut client).await;
    assert_eq!(letter, "A");
    origins[0].stop().await;
    let answer = client.get("/", &[("Cookie", &pair)]).await;
    assert_eq!(answer.status, 200, "the failed attempt costs the client nothing");
    let (followed, new_letter) = (cookie(&answer).0, answer.text());
    assert!(new_letter != "A" && followed != pair);
    for _ in 0..3 {
        assert_eq!(with_cookie(&mut client, &followed).await, (new_letter.clone(), None));
    }
    origins[0].start_again().await;
    assert_eq!(with_cookie(&mut client, &followed).await, (new_letter, None), "it stays where it went");
}

#[tokio::test]
async fn a_cookie_of_an_endpoint_that_was_removed_is_replaced() {
    let origins = lettered::<2>().await;
    let app = |origins| App::of(origins).upstream("affinity = { cookie = \"srv_id\" }");
    let gateway = app(&origins[..]).start().await;
    let mut client = Client::of(&gateway).await;
    let (_, of_a) = bind(&mut client).await;
    let (_, of_b) = bind(&mut client).await;
    app(&origins[..1]).replace(&gateway).await;
    let (letter, replaced) = with_cookie(&mut client, &of_b).await;
    assert_eq!(letter, "A");
    assert!(replaced.is_some_and(|replaced| replaced.starts_with(&format!("{of_a};"))), "over reloads too");
}

#[tokio::test]
async fn on_unavailable_decides_between_another_endpoint_and_503() {
    for (rule, expected) in [("choose", "B"), ("fail", "no-endpoint")] {
        let origins = lettered::<2>().await;
        origins[0].set_script(checked("A", Reply::status(200)));
        let gateway = App::of(&origins)
            .upstream(&format!("affinity = {{ cookie = \"srv_id\", on_unavailable = \"{rule}\" }}"))
            .upstream(&http_check(""))
            .start()
            .await;
        let mut client = Client::of(&gateway).await;
        let (letter, pair) = bind(&mut client).await;
        assert_eq!(letter, "A");
        origins[0].set_script(checked("A", Reply::status(500)));
        wait_health(&gateway, &origins[0], "unhealthy").await;
        let answer = client.get("/", &[("Cookie", &pair)]).await;
        let said = if answer.status == 503 { answer.code() } else { answer.text() };
        assert_eq!(said, expected);
        assert_eq!(client.letters(3).await, "BBB", "who is not bound is served in both cases");
        origins[0].set_script(checked("A", Reply::status(200)));
        wait_health(&gateway, &origins[0], "healthy").await;
        assert_eq!(with_cookie(&mut client, &pair).await, ("A".into(), None), "{rule}: it is back");
    }
}

#[tokio::test]
async fn a_draining_endpoint_keeps_its_clients_and_a_disabled_one_does_not() {
    let origins = lettered::<2>().await;
    let app = |state: &str| {
        let first = endpoint(&origins[0], &format!("state = \"{state}\""));
        App::with([first, endpoint(&origins[1], "")]).upstream("affinity = { cookie = \"srv_id\" }")
    };
    let gateway = app("enabled").start().await;
    let mut client = Client::of(&gateway).await;
    let (letter, pair) = bind(&mut client).await;
    assert_eq!(letter, "A");
    app("drain").replace(&gateway).await;
    for _ in 0..3 {
        assert_eq!(with_cookie(&mut client, &pair).await, ("A".into(), None));
        assert_eq!(letters(&gateway, 2).await, "BB", "it takes no new clients");
    }
    app("disabled").replace(&gateway).await;
    let (letter, replaced) = with_cookie(&mut client, &pair).await;
    assert!(letter == "B" && replaced.is_some());
}

#[tokio::test]
async fn affinity_by_a_field_keeps_its_value_on_one_endpoint() {
    let mut origins = lettered::<3>().await;
    let gateway = App::of(&origins).upstream("affinity = { header = \"X-Tenant\" }").start().await;
    let mut client = Client::of(&gateway).await;
    let mut bound = Vec::new();
    for tenant in 0..30 {
        let tenant = format!("tenant-{tenant}");
        let letter = client.letter("/", &[("X-Tenant", &tenant)]).await;
        for _ in 0..3 {
            let answer = client.get("/other", &[("x-tenant", &tenant)]).await;
            assert_eq!((answer.text(), answer.field("set-cookie")), (letter.clone(), None));
        }
        bound.push((tenant, letter));
    }
    assert_eq!(set(&bound.iter().map(|(_, letter)| letter.as_str()).collect::<String>()), "ABC");
    assert_eq!(set(&client.letters(6).await), "ABC", "without the field the balancer chooses");
    origins[0].stop().await;
    for (tenant, before) in &bound {
        let letter = client.letter("/", &[("X-Tenant", tenant)]).await;
        assert!(letter != "A" && (before == "A" || *before == letter), "{tenant}: {before} then {letter}");
    }
}

#[tokio::test]
async fn affinity_by_client_keeps_an_address_on_one_endpoint() {
    let origins = lettered::<3>().await;
    let gateway = App::of(&origins).upstream("affinity = { client = true }").start().await;
    let mut all = String::new();
    for last in 1..=30 {
        let address = IpAddr::V4(Ipv4Addr::new(127, 0, 1, last));
        let letter = Client::from(address, &gateway).await.letter("/", &[]).await;
        let again = Client::from(address, &gateway).await.letters(3).await;
        assert_eq!(again, letter.repeat(3), "also over another connection");
        all.push_str(&letter);
    }
    assert_eq!(set(&all), "ABC");
}

#[tokio::test]
async fn bindings_outlive_a_reload_that_changes_weights() {
    let origins = lettered::<3>().await;
    let app = |weight: u32| {
        let last = endpoint(&origins[2], &format!("weight = {weight}"));
        App::with([endpoint(&origins[0], ""), endpoint(&origins[1], ""), last])
            .upstream("affinity = { cookie = \"srv_id\" }")
    };
    let gateway = app(1).start().await;
    let mut client = Client::of(&gateway).await;
    let mut bound = Vec::new();
    for _ in 0..3 {
        bound.push(bind(&mut client).await);
    }
    for weight in [5, 2] {
        app(weight).replace(&gateway).await;
        for (letter, pair) in &bound {
            eventually("the binding", async || {
                (with_cookie(&mut client, pair).await == (letter.clone(), None)).then_some(())
            })
            .await;
        }
    }
}
