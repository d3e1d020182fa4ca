//! Who may come in, seen at the socket: passwords, files of users, addresses.

mod consumers;
mod issue;
mod service;
mod with_peers;

use sluice_testkit::{Gateway, Origin, Reply, Scratch, Wire, eventually, http, sluice};

use crate::setup::{Lines, base};

/// "correct horse", with bcrypt's lowest cost.
pub(crate) const HASH: &str = "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e";
/// "pass:word".
const OTHER_HASH: &str = "{SHA}JfOwpCDy5ASLqp0M24rdutzyYk8=";

const ANNA: &str = "Basic YW5uYTpjb3JyZWN0IGhvcnNl";
const ANNA_WRONG: &str = "Basic YW5uYTp3cm9uZw==";
const ANNA_OTHER: &str = "Basic YW5uYTpwYXNzOndvcmQ=";
const BOB: &str = "Basic Ym9iOmNvcnJlY3QgaG9yc2U=";

/// The status for a value of Authorization, on a connection of its own.
async fn status(gateway: &Gateway, authorization: &str) -> u16 {
    http::get_with(gateway.address("web"), "/", &[("Authorization", authorization)]).await.status
}

async fn with_anna(more: &str, endpoints: &Origin) -> Gateway {
    let route = format!(
        "filters = [{{ basic_auth = {{ realm = \"inside\", users = {{ anna = \"{HASH}\" }}{more} }} }}]"
    );
    Lines { route: &route, ..Lines::default() }.start(&[endpoints.address()]).await
}

#[tokio::test]
async fn the_right_password_lets_in_and_nothing_else_does() {
    let origin = Origin::start(Reply::ok("inside")).await;
    let gateway = with_anna("", &origin).await;
    let address = gateway.address("web");
    let asked = http::get(address, "/").await;
    assert_eq!(asked.status, 401);
    assert_eq!(asked.field("www-authenticate"), Some("Basic realm=\"inside\", charset=\"UTF-8\""));
    assert!(asked.text().contains("\"unauthenticated\""), "{}", asked.text());

    let let_in = http::get_with(address, "/", &[("Authorization", ANNA)]).await;
    assert_eq!((let_in.status, let_in.text().as_str()), (200, "inside"));
    assert_eq!(origin.last().field("authorization"), Some(ANNA), "it goes on");

    for value in
        [ANNA_WRONG, BOB, "", "Basic", "Basic ?", "Basic YW5uYQ==", "Bearer x", "Digest username=\"anna\""]
    {
        assert_eq!(status(&gateway, value).await, 401, "{value:?}");
    }
    let twice = http::get_with(address, "/", &[("Authorization", ANNA), ("Authorization", ANNA)]).await;
    assert_eq!(twice.status, 401);
    assert_eq!(status(&gateway, ANNA).await, 200, "the wrong ones change nothing");
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn a_hundred_requests_with_a_password_are_let_in_and_a_wrong_one_among_them_is_not() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = with_anna("", &origin).await;
    let address = gateway.address("web");
    let mut wire = Wire::connect(address).await;
    for index in 0..100 {
        let value = if index % 10 == 9 { ANNA_WRONG } else { ANNA };
        wire.send(http::request_bytes(address, "GET", "/", &[("Authorization", value)], b"")).await;
        assert_eq!(wire.answer().await.status, if index % 10 == 9 { 401 } else { 200 }, "request {index}");
    }
}

#[tokio::test]
async fn hidden_credentials_do_not_reach_the_endpoint() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = with_anna(", hide_credentials = true", &origin).await;
    assert_eq!(status(&gateway, ANNA).await, 200);
    assert_eq!(origin.last().field("authorization"), None);
}

#[tokio::test]
async fn a_reload_reads_the_file_of_users_again() {
    let scratch = Scratch::new();
    let users = scratch.write("users.htpasswd", format!("# staff\nanna:{HASH}\n"));
    let origin = Origin::start(Reply::ok("x")).await;
    let route = format!("filters = [{{ basic_auth = {{ file = \"{}\" }} }}]", users.display());
    let document = Lines { route: &route, ..Lines::default() }.document(&[origin.address()]);
    let gateway = Gateway::start(&document).await;
    assert_eq!((status(&gateway, ANNA).await, status(&gateway, ANNA_OTHER).await), (200, 401));

    scratch.write("users.htpasswd", format!("anna:{OTHER_HASH}\nbob:{HASH}\n"));
    assert_eq!(gateway.reload(&document).await.status, 200);
    assert_eq!((status(&gateway, ANNA).await, status(&gateway, ANNA_OTHER).await), (401, 200));
    assert_eq!(status(&gateway, BOB).await, 200);

    // What is wrong with the file is told, without the hash, and what ran before runs on.
    scratch.write("users.htpasswd", format!("anna:{OTHER_HASH}\nbob:$y$top-secret\n"));
    let refused = gateway.reload(&document).await;
    assert!((400..500).contains(&refused.status), "{}", refused.status);
    assert!(refused.body.contains("users.htpasswd:2: the hash of user `bob`"), "{}", refused.body);
    assert!(!refused.body.contains("top-secret") && !gateway.stderr().contains("top-secret"));
    assert_eq!(status(&gateway, BOB).await, 200);
    std::fs::remove_file(&users).unwrap();
    let refused = gateway.reload(&document).await;
    assert!(
        (400..500).contains(&refused.status) && refused.body.contains("cannot be read"),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn a_changed_file_of_users_is_taken_on_by_itself() {
    let scratch = Scratch::new();
    let users = scratch.write("users.htpasswd", format!("anna:{HASH}\n"));
    let origin = Origin::start(Reply::ok("x")).await;
    let route = format!("filters = [{{ basic_auth = {{ file = \"{}\" }} }}]", users.display());
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    assert_eq!(status(&gateway, BOB).await, 401);
    scratch.write("users.htpasswd", format!("anna:{HASH}\nbob:{HASH}\n"));
    eventually("bob to be known", async || (status(&gateway, BOB).await == 200).then_some(())).await;
}

#[tokio::test]
async fn a_hash_in_a_document_is_never_shown() {
    let scratch = Scratch::new();
    let route = "[[routes]]\nname = \"a\"\nrespond = {}\n\
        filters = [{ basic_auth = { users = { anna = \"top-secret\" } } }]\n";
    let path = scratch.write("bad.toml", base("") + route).display().to_string();
    let ended = sluice(["check", &path]).finish().await;
    assert_eq!(ended.code(), 78);
    assert!(
        ended.stderr.contains("the hash of user `anna` is in none of the known forms"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("top-secret"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_user_stands_in_the_access_log() {
    let origin = Origin::start(Reply::ok("x")).await;
    let route = format!("filters = [{{ basic_auth = {{ users = {{ anna = \"{HASH}\" }} }} }}]");
    let more = "[access_log]\n";
    let mut gateway = Lines { route: &route, more, ..Lines::default() }.start(&[origin.address()]).await;
    assert_eq!(status(&gateway, ANNA_WRONG).await, 401);
    assert_eq!(status(&gateway, ANNA).await, 200);
    gateway.wait_stdout("\"user.name\":\"anna\",\"http.response.status_code\":200").await;
    let named = gateway.stdout().lines().filter(|line| line.contains("user.name")).count();
    assert_eq!(named, 1, "who was not let in has no name: {}", gateway.stdout());
}

#[tokio::test]
async fn what_hash_password_prints_lets_in() {
    let mut users = String::new();
    for (name, option) in [("anna", None), ("bob", Some("--bcrypt"))] {
        let program = sluice(["hash-password"]).arguments(option).input("correct horse\n");
        let ended = program.finish().await;
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        users.push_str(&format!("{name} = \"{}\", ", ended.stdout.trim_end()));
    }
    assert!(users.contains("$argon2id$v=19$m=19456,t=2,p=1$") && users.contains("$2y$12$"), "{users}");
    let origin = Origin::start(Reply::ok("x")).await;
    let route =
        format!("filters = [{{ basic_auth = {{ users = {{ {} }} }} }}]", users.trim_end_matches(", "));
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    for (value, expected) in [(ANNA, 200), (BOB, 200), (ANNA_WRONG, 401)] {
        assert_eq!(status(&gateway, value).await, expected, "{value}");
    }
}

#[tokio::test]
async fn hash_password_takes_no_argument_and_no_empty_password() {
    assert_eq!(sluice(["hash-password", "secret"]).finish().await.code(), 2);
    assert_eq!(sluice(["hash-password"]).input("\n").finish().await.code(), 1);
}

#[tokio::test]
async fn addresses_are_allowed_and_denied_by_the_trusted_address() {
    let origin = Origin::start(Reply::ok("x")).await;
    let lists = "allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = [\"10.9.0.0/16\"]";
    for (precedence, both, neither) in [("", 403, 403), (", precedence = \"allow\"", 200, 200)] {
        let route = format!("filters = [{{ ip_access = {{ {lists}{precedence} }} }}]");
        let listener = "trusted_proxies = [\"127.0.0.0/8\"]";
        let gateway = Lines { listener, route: &route, ..Lines::default() }.start(&[origin.address()]).await;
        for (client, expected) in [
            ("10.1.2.3", 200),
            ("10.9.9.9", both),
            ("192.0.2.1", neither),
            ("2001:db8::7", 200),
            ("2001:db9::7", neither),
            // What the client wrote stands left of what the trusted proxy knows.
            ("10.1.2.3, 192.0.2.1", neither),
            ("192.0.2.1, 10.1.2.3", 200),
            ("10.1.2.3, nonsense", neither),
        ] {
            let fields = [("X-Forwarded-For", client)];
            let answer = http::get_with(gateway.address("web"), "/", &fields).await;
            assert_eq!(answer.status, expected, "{client}{precedence}");
            assert!(answer.status == 200 || answer.text().contains("\"forbidden\""), "{}", answer.text());
        }
    }
    // Nobody is believed here: the connection's own address counts.
    let route = format!("filters = [{{ ip_access = {{ {lists} }} }}]");
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let lied = http::get_with(gateway.address("web"), "/", &[("X-Forwarded-For", "10.1.2.3")]).await;
    assert_eq!(lied.status, 403);
}

#[tokio::test]
async fn a_reload_reads_lists_of_addresses_again() {
    let scratch = Scratch::new();
    let list = scratch.write("deny.txt", "# nobody yet\n");
    let origin = Origin::start(Reply::ok("x")).await;
    let route = format!("filters = [{{ ip_access = {{ deny_file = \"{}\" }} }}]", list.display());
    let document = Lines { route: &route, ..Lines::default() }.document(&[origin.address()]);
    let gateway = Gateway::start(&document).await;
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 200);
    scratch.write("deny.txt", "127.0.0.0/8  # us\n");
    assert_eq!(gateway.reload(&document).await.status, 200);
    assert_eq!(http::get(gateway.address("web"), "/").await.status, 403);
    scratch.write("deny.txt", "127.0.0.0/33\n");
    let refused = gateway.reload(&document).await;
    assert!((400..500).contains(&refused.status) && refused.body.contains("deny.txt:1"), "{}", refused.body);
}
