//! Tokens of the gateway's own: asked for, used, judged, renewed, taken back.

use sluice_testkit::{Gateway, Origin, Reply, Scratch, eventually, http};

use crate::setup::base;

const KEY: &str = "key";
/// printf key | sha256sum
const KEY_HASH: &str = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
/// shop:key
const SHOP: &str = "Basic c2hvcDprZXk=";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

fn document(directory: &str, origin: &Origin) -> String {
    with(directory, origin, "")
}

/// The same, where token actions say more.
pub(super) fn with(directory: &str, origin: &Origin, more: &str) -> String {
    let token = |endpoint: &str, path: &str| {
        format!(
            "[[routes]]\nname = \"{endpoint}\"\nmatch = {{ path = \"{path}\" }}\ntoken = {{ endpoint = \"{endpoint}\", \
             issuer = \"https://gw\", directory = \"{directory}\", audience = [\"api\"], ttl = \"10m\", \
             refresh_ttl = \"1h\", scopes = [\"read\", \"write\"]{more} }}\n"
        )
    };
    let routes = [
        ("token", "/oauth/tokens"),
        ("introspect", "/oauth/introspect"),
        ("revoke", "/oauth/revoke"),
        ("keys", "/oauth/keys"),
    ];
    let routes: String = routes.iter().map(|(endpoint, path)| token(endpoint, path)).collect();
    format!(
        "{}{routes}[[routes]]\nname = \"api\"\nforward = {{ upstream = \"app\" }}\n\
         filters = [{{ jwt = {{ directory = \"{directory}\", issuer = \"https://gw\", audience = \"api\", \
         claims_to_headers = {{ X-Scope = \"scope\" }} }} }}]\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n\
         [consumers.shop]\napi_keys = [\"{KEY_HASH}\"]\njwt = {{ issuer = \"https://gw\", subject = \"shop\" }}\n\
         [consumers.other]\napi_keys = [\"sha256:{}\"]\n",
        base(""),
        origin.address(),
        "0".repeat(64),
    )
}

/// A token and a refresh token.
pub(super) async fn issue(gateway: &Gateway) -> (String, String) {
    let (status, issued) =
        post(gateway, "/oauth/tokens", &[FORM, ("Authorization", SHOP)], "grant_type=client_credentials")
            .await;
    assert_eq!(status, 200, "{issued}");
    let text = |name: &str| issued[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

/// Gives a refresh token, or takes a token back: the status.
pub(super) async fn give(gateway: &Gateway, path: &str, body: &str) -> u16 {
    post(gateway, path, &[FORM, ("Authorization", SHOP)], body).await.0
}

async fn post(
    gateway: &Gateway,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> (u16, serde_json::Value) {
    let answer = http::request(gateway.address("web"), "POST", path, fields, body.as_bytes()).await;
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{}", answer.text());
    (answer.status, answer.json())
}

pub(super) async fn uses(gateway: &Gateway, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    http::get_with(gateway.address("web"), "/", &[("Authorization", &bearer)]).await.status
}

#[tokio::test]
async fn a_token_is_issued_used_judged_renewed_and_taken_back() {
    let (scratch, origin) = (Scratch::new(), Origin::start(Reply::ok("x")).await);
    let directory = scratch.file("keys").display().to_string();
    let both = document(&directory, &origin);
    let mut gateway = Gateway::start(&both).await;

    let body = "grant_type=client_credentials&scope=read";
    let (status, issued) = post(&gateway, "/oauth/tokens", &[FORM, ("Authorization", SHOP)], body).await;
    assert_eq!(
        (status, &issued["token_type"], &issued["expires_in"], &issued["scope"]),
        (200, &"Bearer".into(), &600.into(), &"read".into()),
        "{issued}"
    );
    let token = issued["access_token"].as_str().unwrap().to_owned();
    assert_eq!(uses(&gateway, &token).await, 200);
    assert_eq!(origin.last().field("x-scope"), Some("read"));
    let refresh = issued["refresh_token"].as_str().unwrap().to_owned();
    for wrong in [&*refresh, refresh.trim_start_matches("rt."), &token[..token.len() - 4]] {
        assert_eq!(uses(&gateway, wrong).await, 401, "{wrong}");
    }

    // Credentials and all else in JSON.
    let json = format!(
        "{{\"client_id\":\"shop\",\"client_secret\":\"{KEY}\",\"grant_type\":\"client_credentials\"}}"
    );
    let (status, whole) =
        post(&gateway, "/oauth/tokens", &[("Content-Type", "application/json")], &json).await;
    assert_eq!((status, &whole["scope"]), (200, &"read write".into()));

    // What is a token worth?
    let bearer = format!("Bearer {token}");
    let own =
        http::get_with(gateway.address("web"), "/oauth/tokens", &[("Authorization", &bearer)]).await.json();
    let asked = format!("token={token}");
    let (_, judged) = post(&gateway, "/oauth/introspect", &[FORM, ("Authorization", SHOP)], &asked).await;
    assert_eq!((&own, &judged["active"], &judged["sub"]), (&judged, &true.into(), &"shop".into()));
    let (status, _) = post(&gateway, "/oauth/introspect", &[FORM], &asked).await;
    assert_eq!(status, 401);

    // A refresh token is of use once, and never gives more.
    let renew = format!("grant_type=refresh_token&refresh_token={refresh}");
    let more = format!("{renew}&scope=write");
    let (status, refused) = post(&gateway, "/oauth/tokens", &[FORM, ("Authorization", SHOP)], &more).await;
    assert_eq!((status, &refused["error"]), (400, &"invalid_scope".into()));
    let (status, renewed) = post(&gateway, "/oauth/tokens", &[FORM, ("Authorization", SHOP)], &renew).await;
    assert_eq!((status, &renewed["scope"]), (200, &"read".into()));
    let (status, again) = post(&gateway, "/oauth/tokens", &[FORM, ("Authorization", SHOP)], &renew).await;
    assert_eq!((status, &again["error"]), (400, &"invalid_grant".into()));

    // Taken back, also for the next process.
    assert_eq!(post(&gateway, "/oauth/revoke", &[FORM, ("Authorization", SHOP)], &asked).await.0, 200);
    assert_eq!(
        post(&gateway, "/oauth/revoke", &[FORM, ("Authorization", SHOP)], "token=nonsense").await.0,
        200
    );
    assert_eq!(uses(&gateway, &token).await, 401);
    let (_, judged) = post(&gateway, "/oauth/introspect", &[FORM, ("Authorization", SHOP)], &asked).await;
    assert_eq!(judged, serde_json::json!({ "active": false }));
    let keys = http::get(gateway.address("web"), "/oauth/keys").await;
    gateway.signal(sluice_testkit::Signal::Term).await;
    gateway.wait_exit().await;
    let gateway = Gateway::start(&both).await;
    let renewed = renewed["access_token"].as_str().unwrap();
    assert_eq!((uses(&gateway, &token).await, uses(&gateway, renewed).await), (401, 200));
    assert_eq!(http::get(gateway.address("web"), "/oauth/keys").await.text(), keys.text());
    assert!(keys.text().contains("\"P-256\"") && !keys.text().contains("\"d\""), "{}", keys.text());
}

#[tokio::test]
async fn who_asks_wrongly_is_told_as_the_standard_has_it() {
    let (scratch, origin) = (Scratch::new(), Origin::start(Reply::ok("x")).await);
    let directory = scratch.file("keys").display().to_string();
    let gateway = Gateway::start(&document(&directory, &origin)).await;
    let grant = "grant_type=client_credentials";
    for (authorization, body, status, error) in [
        ("", grant, 401, "invalid_client"),
        ("Basic c2hvcDp3cm9uZw==", grant, 401, "invalid_client"),
        ("Basic b3RoZXI6a2V5", grant, 401, "invalid_client"),
        ("Basic !", grant, 401, "invalid_client"),
        ("Digest x", grant, 401, "invalid_client"),
        (SHOP, "", 400, "invalid_request"),
        (SHOP, "grant_type=password", 400, "unsupported_grant_type"),
        (SHOP, "grant_type=client_credentials&scope=admin", 400, "invalid_scope"),
        (SHOP, "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        (SHOP, "grant_type=client_credentials&client_secret=key", 400, "invalid_request"),
        (SHOP, "grant_type=client_credentials&client_id=other", 400, "invalid_request"),
        (SHOP, "grant_type=refresh_token&refresh_token=x", 400, "invalid_grant"),
    ] {
        let fields = [FORM, ("Authorization", authorization)];
        let fields = if authorization.is_empty() { &fields[..1] } else { &fields[..] };
        let (found, answer) = post(&gateway, "/oauth/tokens", fields, body).await;
        assert_eq!((found, &answer["error"]), (status, &error.into()), "{authorization} {body}");
    }
    let huge = format!("{grant}&x={}", "x".repeat(40_000));
    assert_eq!(post(&gateway, "/oauth/tokens", &[FORM, ("Authorization", SHOP)], &huge).await.0, 400);
    let wrong = http::request(gateway.address("web"), "PUT", "/oauth/tokens", &[], b"").await;
    assert_eq!((wrong.status, wrong.field("allow")), (405, Some("GET, HEAD, POST")));
}

#[tokio::test]
async fn processes_with_one_directory_hear_what_another_takes_back() {
    let (scratch, origin) = (Scratch::new(), Origin::start(Reply::ok("x")).await);
    let document = document(&scratch.file("keys").display().to_string(), &origin);
    let (one, other) = (Gateway::start(&document).await, Gateway::start(&document).await);
    let (token, refresh) = issue(&one).await;
    assert_eq!((uses(&one, &token).await, uses(&other, &token).await), (200, 200), "they have the same keys");
    assert_eq!(give(&one, "/oauth/revoke", &format!("token={token}")).await, 200);
    assert_eq!(uses(&one, &token).await, 401);
    eventually("the other to hear of it", async || (uses(&other, &token).await == 401).then_some(())).await;
    // At once, since who uses a refresh token looks first.
    let renew = format!("grant_type=refresh_token&refresh_token={refresh}");
    assert_eq!(give(&one, "/oauth/tokens", &renew).await, 200);
    assert_eq!(give(&other, "/oauth/tokens", &renew).await, 400);
}

#[tokio::test]
async fn another_life_or_algorithm_goes_on_with_the_keys_that_are_there() {
    let (scratch, origin) = (Scratch::new(), Origin::start(Reply::ok("x")).await);
    let directory = scratch.file("keys").display().to_string();
    let gateway = Gateway::start(&document(&directory, &origin)).await;
    let (token, _) = issue(&gateway).await;
    let longer = document(&directory, &origin).replace("10m", "20m");
    assert_eq!(gateway.reload(&longer).await.status, 200);
    assert_eq!(uses(&gateway, &token).await, 200);
    assert_eq!(gateway.reload(&with(&directory, &origin, ", algorithm = \"RS256\"")).await.status, 200);
    let keys = async || http::get(gateway.address("web"), "/oauth/keys").await.text();
    eventually("a key of the other kind", async || keys().await.contains("\"RSA\"").then_some(())).await;
    let (newer, _) = issue(&gateway).await;
    assert_eq!((uses(&gateway, &token).await, uses(&gateway, &newer).await), (200, 200));
    assert!(newer.len() > token.len() + 100, "it is signed with RSA");
    let odd = document(&directory, &origin).replacen("ttl = \"10m\"", "ttl = \"10m\", rotate = \"1d\"", 1);
    let refused = gateway.reload(&odd).await;
    assert!(refused.body.contains("says something else of `rotate`"), "{}", refused.body);
    let wrong = gateway.reload(&with(&directory, &origin, ", algorithm = \"ES512\"")).await;
    assert!(wrong.body.contains("ES512") && wrong.body.contains("ES384"), "{}", wrong.body);
}

#[tokio::test]
async fn a_token_is_there_once_and_of_a_bounded_length() {
    let (scratch, origin) = (Scratch::new(), Origin::start(Reply::ok("x")).await);
    let gateway = Gateway::start(&document(&scratch.file("keys").display().to_string(), &origin)).await;
    let (token, _) = issue(&gateway).await;
    let bearer = format!("Bearer {token}");
    let huge = format!("Bearer {token}{}", "A".repeat(9 * 1024));
    for (fields, expected) in [
        (&[("Authorization", &*bearer)][..], 200),
        (&[("Authorization", &*bearer), ("Authorization", &*bearer)], 401),
        (&[("Authorization", "Bearer x"), ("authorization", &*bearer)], 401),
        // Longer than any field may be here.
        (&[("Authorization", &*huge)], 431),
        (&[("Authorization", &*format!("{bearer}.{token}"))], 401),
        (&[("Authorization", &*format!("{bearer}, {bearer}"))], 401),
        (&[("Authorization", "Bearer")], 401),
        (&[("Authorization", "Bearer ...")], 401),
    ] {
        let answer = http::get_with(gateway.address("web"), "/", fields).await;
        let shown: String = format!("{fields:?}").chars().take(99).collect();
        assert_eq!(answer.status, expected, "{shown}");
        assert!(
            expected != 401 || answer.field("www-authenticate").is_some_and(|it| it.starts_with("Bearer"))
        );
    }
    assert_eq!(origin.count(), 1);
    assert!(!gateway.stderr().contains(&token), "{}", gateway.stderr());
}

#[tokio::test]
async fn an_algorithm_that_is_not_known_is_said_with_those_that_are() {
    let gateway = Gateway::start(&(base("") + "[[routes]]\nname = \"a\"\nrespond = {}\n")).await;
    let jwt = "filters = [{ jwt = { jwks = \"http://127.0.0.1:9/\", algorithms = [\"ES512\"] } }]\n";
    let refused = gateway.reload(&(base("") + "[[routes]]\nname = \"a\"\nrespond = {}\n" + jwt)).await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("ES512") && refused.body.contains("ES384"), "{}", refused.body);
}
