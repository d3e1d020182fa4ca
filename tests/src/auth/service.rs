//! A service that decides who comes in.

use sluice_testkit::{Gateway, Origin, Reply, Script, http};

use crate::setup::base;

fn document(filter: &str, service: &Origin, origin: &Origin) -> String {
    format!(
        "{}[[routes]]\nname = \"all\"\nforward = {{ upstream = \"app\" }}\n\
         filters = [{{ forward_auth = {{ upstream = \"auth\", path = \"/verify\", response_headers = [\"X-User\"]{filter} }} }}]\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n[upstreams.auth]\nendpoints = [\"{}\"]\n",
        base(""),
        origin.address(),
        service.address()
    )
}

fn decides() -> Script {
    Script::each(|question| match question.field("authorization") {
        Some("Bearer good") => Reply::status(204).field("X-User", "anna").field("X-Other", "y"),
        Some("Bearer broken") => Reply::status(500),
        _ => Reply::status(302).field("Location", "https://login.example/").body("go there"),
    })
}

#[tokio::test]
async fn its_answer_decides_and_goes_on() {
    let (service, origin) = (Origin::start(decides()).await, Origin::start(Reply::ok("inside")).await);
    let gateway = Gateway::start(&document("", &service, &origin)).await;
    let ask = async |value: &str| {
        let fields = [("Authorization", value), ("X-User", "root"), ("Cookie", "a=b"), ("X-Mine", "1")];
        http::request(gateway.address("web"), "POST", "/shop?x=1", &fields, b"body").await
    };
    let let_in = ask("Bearer good").await;
    assert_eq!((let_in.status, let_in.text().as_str()), (200, "inside"));
    let question = service.last();
    let seen = |name: &str| question.field(name).map(str::to_owned).unwrap_or_default();
    assert_eq!((&*question.method, &*question.target, question.body.len()), ("GET", "/verify", 0));
    assert_eq!((&*seen("x-forwarded-method"), &*seen("x-forwarded-uri")), ("POST", "/shop?x=1"));
    assert_eq!(
        (&*seen("x-forwarded-host"), &*seen("cookie"), &*seen("x-mine")),
        (&*gateway.address("web").to_string(), "a=b", "")
    );
    let request = origin.last();
    assert_eq!(
        (request.fields.all("x-user").collect::<Vec<_>>(), request.field("x-other")),
        (vec!["anna"], None)
    );
    assert_eq!(request.body, b"body");

    let sent_away = ask("Bearer bad").await;
    assert_eq!((sent_away.status, sent_away.field("location")), (302, Some("https://login.example/")));
    assert_eq!(sent_away.text(), "go there");
    let broken = ask("Bearer broken").await;
    assert_eq!((broken.status, broken.code().as_str()), (503, "auth-unavailable"));
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn without_it_nobody_comes_in_unless_the_document_says_so() {
    let (mut service, origin) = (Origin::start(decides()).await, Origin::start(Reply::ok("inside")).await);
    service.stop().await;
    let status = async |filter: &str| {
        let gateway = Gateway::start(&document(filter, &service, &origin)).await;
        http::get_with(gateway.address("web"), "/", &[("X-User", "root")]).await.status
    };
    assert_eq!(status("").await, 503);
    assert_eq!(status(", on_failure = \"allow\"").await, 200);
    assert_eq!(origin.last().field("x-user"), None);
    assert_eq!(status(", except = [\"/*\"]").await, 200);
    assert_eq!(origin.last().field("x-user"), None);
}

#[tokio::test]
async fn who_was_let_in_is_remembered_and_nobody_else() {
    let (service, origin) = (Origin::start(decides()).await, Origin::start(Reply::ok("inside")).await);
    let gateway = Gateway::start(&document(", cache = { ttl = \"1h\" }", &service, &origin)).await;
    let ask = async |value: &str, target: &str| {
        http::get_with(gateway.address("web"), target, &[("Authorization", value)]).await.status
    };
    for _ in 0..3 {
        assert_eq!(ask("Bearer good", "/a").await, 200);
        assert_eq!(origin.last().field("x-user"), Some("anna"));
    }
    assert_eq!(service.count(), 1);
    assert_eq!((ask("Bearer good", "/b").await, ask("Bearer bad", "/a").await), (200, 302));
    assert_eq!(ask("Bearer bad", "/a").await, 302);
    assert_eq!(service.count(), 4);
}

#[tokio::test]
async fn a_reload_that_does_not_concern_it_keeps_what_is_remembered() {
    let (service, origin) = (Origin::start(decides()).await, Origin::start(Reply::ok("inside")).await);
    let cached = document(", cache = { ttl = \"1h\" }", &service, &origin);
    let gateway = Gateway::start(&cached).await;
    let ask = async || {
        let fields = [("Authorization", "Bearer good")];
        assert_eq!(http::get_with(gateway.address("web"), "/a", &fields).await.status, 200);
        assert_eq!(origin.last().field("x-user"), Some("anna"));
        service.count()
    };
    assert_eq!(ask().await, 1);
    let more = cached.clone() + "[[routes]]\nname = \"more\"\nmatch = { path = \"/more\" }\nrespond = {}\n";
    assert_eq!(gateway.reload(&more).await.status, 200);
    assert_eq!(ask().await, 1);
    // With other words it is another filter.
    assert_eq!(gateway.reload(&cached.replace("1h", "2h")).await.status, 200);
    assert_eq!(ask().await, 2);
}
