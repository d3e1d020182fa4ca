//! What the filter tells browsers.

use super::*;
use crate::filter::fixture::{self, values};

fn build(toml: &str) -> Result<Cors, Vec<String>> {
    let config: Config = toml_edit::de::from_str(toml).unwrap();
    let mut problems = Problems::new();
    let built = Cors::build(&config, &At::root(), &mut problems);
    assert_eq!(built.is_some(), problems.is_empty());
    built.ok_or(problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
}

const SHOP: &str = "https://shop.example";

fn request(method: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = fixture::request(method, "/");
    for (name, value) in fields {
        request.head.fields.append(&fixture::name(name), value.as_bytes());
    }
    request
}

/// The answer to a preflight.
async fn preflight(filter: &Cors, fields: &[(&str, &str)]) -> Fields {
    let mut all = vec![("Access-Control-Request-Method", "PUT")];
    all.extend(fields);
    let mut exchange = fixture::exchange("/");
    let mut request = request("OPTIONS", &all);
    let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
    let Ok(Flow::Answer(mut answer)) = flow else { panic!("{flow:?}") };
    assert_eq!(answer.head.status, 204);
    let before = answer.head.fields.clone();
    filter.on_response(&mut exchange, &mut answer).await.unwrap();
    assert_eq!(before.len(), answer.head.fields.len(), "its response phase has nothing to add");
    before
}

/// The fields of an endpoint's answer, with these, to a GET with these.
async fn answer(filter: &Cors, asked: &[(&str, &str)], said: &[(&str, &str)]) -> Fields {
    let mut exchange = fixture::exchange("/");
    let mut request = request("GET", asked);
    let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
    assert!(matches!(flow, Ok(Flow::Continue)), "{flow:?}");
    let mut response = fixture::response(200);
    for (name, value) in said {
        response.head.fields.append(&fixture::name(name), value.as_bytes());
    }
    filter.on_response(&mut exchange, &mut response).await.unwrap();
    response.head.fields
}

#[tokio::test(flavor = "local")]
async fn a_preflight_is_told_what_is_allowed() {
    let filter = build(
        "origins = ['https://shop.example']\nmethods = ['GET', 'PUT']\nheaders = ['X-A', 'Content-Type']\n\
         credentials = true\nmax_age = '2h'\nexpose = ['X-B']",
    )
    .unwrap();
    let fields =
        preflight(&filter, &[("Origin", SHOP), ("Access-Control-Request-Headers", "x-a,x-evil")]).await;
    for (name, expected) in [
        ("Access-Control-Allow-Origin", &[SHOP][..]),
        ("Access-Control-Allow-Methods", &["GET, PUT"]),
        ("Access-Control-Allow-Headers", &["X-A, Content-Type"]),
        ("Access-Control-Allow-Credentials", &["true"]),
        ("Access-Control-Max-Age", &["7200"]),
        ("Access-Control-Expose-Headers", &[]),
        ("Access-Control-Allow-Private-Network", &[]),
        ("Vary", &["Origin", "Access-Control-Request-Method, Access-Control-Request-Headers"]),
    ] {
        assert_eq!(values(&fields, name), expected, "{name}");
    }
    let fields = preflight(&filter, &[("Origin", "https://evil.example")]).await;
    let names: Vec<_> = fields.iter().map(|(id, ..)| id).collect();
    assert_eq!(names, [NameId::Vary, NameId::Vary], "who may not is told nothing");
    let fields = preflight(&filter, &[("Origin", SHOP), ("Origin", SHOP)]).await;
    assert!(!fields.contains(NameId::AccessControlAllowOrigin), "two origins are none");
}

#[tokio::test(flavor = "local")]
async fn every_origin_method_and_header_may_be_allowed() {
    let filter = build("origins = ['*']\nmethods = ['*']\nheaders = ['*']\nprivate_network = true").unwrap();
    let asked = [
        ("Origin", "https://a.example"),
        ("Access-Control-Request-Headers", "authorization,x-a"),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    let fields = preflight(&filter, &asked).await;
    for (name, expected) in [
        ("Access-Control-Allow-Origin", "*"),
        ("Access-Control-Allow-Methods", "PUT"),
        ("Access-Control-Allow-Headers", "authorization,x-a"),
        ("Access-Control-Max-Age", "600"),
        ("Access-Control-Allow-Private-Network", "true"),
    ] {
        assert_eq!(values(&fields, name), [expected], "{name}");
    }
    let closed = build("origins = ['*']").unwrap();
    let fields = preflight(&closed, &asked).await;
    assert_eq!(values(&fields, "Access-Control-Allow-Private-Network"), [""; 0]);
    assert_eq!(values(&fields, "Access-Control-Allow-Headers"), [""; 0]);
    assert_eq!(values(&fields, "Access-Control-Allow-Methods"), ["GET, HEAD, POST"]);
}

#[tokio::test(flavor = "local")]
async fn an_answer_depends_on_origin_for_everybody_or_for_nobody() {
    let filter = build("origins = ['https://shop.example']\nexpose = ['X-B']\ncredentials = true").unwrap();
    let fields = answer(&filter, &[("Origin", SHOP)], &[]).await;
    assert_eq!(values(&fields, "Access-Control-Allow-Origin"), [SHOP]);
    assert_eq!(values(&fields, "Access-Control-Expose-Headers"), ["X-B"]);
    assert_eq!(values(&fields, "Access-Control-Allow-Credentials"), ["true"]);
    assert_eq!(values(&fields, "Vary"), ["Origin"]);
    for asked in [&[("Origin", "https://evil.example")][..], &[]] {
        let fields = answer(&filter, asked, &[]).await;
        let names: Vec<_> = fields.iter().map(|(id, ..)| id).collect();
        assert_eq!(names, [NameId::Vary], "{asked:?}");
    }
    let every = build("origins = ['*']\nexpose = ['*']").unwrap();
    for asked in [&[("Origin", SHOP)][..], &[]] {
        let fields = answer(&every, asked, &[]).await;
        assert_eq!(values(&fields, "Access-Control-Allow-Origin"), ["*"]);
        assert_eq!(values(&fields, "Access-Control-Expose-Headers"), ["*"]);
        assert_eq!(values(&fields, "Vary"), [""; 0]);
    }
}

#[tokio::test(flavor = "local")]
async fn what_the_endpoint_says_of_origins_does_not_pass_and_its_vary_stays() {
    let filter = build("origins = ['https://shop.example']").unwrap();
    let said = [
        ("Access-Control-Allow-Origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("Access-Control-Expose-Headers", "X-Secret"),
        ("Access-Control-Allow-Private-Network", "true"),
        ("Vary", "Accept-Encoding, origin"),
    ];
    let fields = answer(&filter, &[("Origin", "https://evil.example")], &said).await;
    assert_eq!(fields.len(), 1);
    assert_eq!(values(&fields, "Vary"), ["Accept-Encoding, origin"]);
    let fields =
        answer(&filter, &[("Origin", SHOP)], &[("Vary", "*"), ("Access-Control-Allow-Origin", "*")]).await;
    assert_eq!(values(&fields, "Vary"), ["*"]);
    assert_eq!(values(&fields, "Access-Control-Allow-Origin"), [SHOP]);
}

#[tokio::test(flavor = "local")]
async fn an_options_request_that_is_no_preflight_goes_on() {
    let filter = build("origins = ['*']").unwrap();
    for fields in [&[("Origin", SHOP)][..], &[("Access-Control-Request-Method", "PUT")], &[]] {
        let mut request = request("OPTIONS", fields);
        assert_eq!(asked(&request.head), None);
        let mut exchange = fixture::exchange("/");
        let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
        assert!(matches!(flow, Ok(Flow::Continue)), "{fields:?}");
    }
}

#[test]
fn what_cannot_work_or_gives_accounts_away_is_a_problem() {
    for (toml, place) in [
        ("", ""),
        ("origins = ['*']\ncredentials = true", "credentials"),
        ("origins = ['null', 'https://a']\ncredentials = true", "origins"),
        ("origins = ['https://a']\ncredentials = true\nexpose = ['*']", "expose"),
        ("origins_regex = ['.*']\ncredentials = true", "origins_regex"),
        ("origins_regex = ['https?://.+']\ncredentials = true", "origins_regex"),
        ("origins_regex = ['null|https://a']\ncredentials = true", "origins_regex"),
        ("origins = ['https://a/']", "origins[0]"),
        ("origins_regex = ['(']", "origins_regex[0]"),
        ("origins = ['*']\nmethods = ['GET', 'put']", "methods[1]"),
        ("origins = ['*']\nheaders = ['a b']", "headers[0]"),
        ("origins = ['*']\nexpose = ['']", "expose[0]"),
    ] {
        let problems = build(toml).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].starts_with(&format!("{place}: ")),
            "{toml}: {problems:?}"
        );
    }
    assert!(build("origins = ['null']").is_ok() && build("origins_regex = ['.*']").is_ok());
    assert!(build("origins_regex = ['https://[a-z]+\\.shop\\.example']\ncredentials = true").is_ok());
}
