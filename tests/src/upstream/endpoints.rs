//! What an endpoint can be written as, and what happens to one that cannot be used.

use sluice_testkit::{Gateway, Scratch, sluice};

use super::{App, Client, lettered, letters};

/// A gateway that answers by itself: it stands for an origin that listens on exactly this address.
async fn own_answer(address: &str, body: &str) -> Gateway {
    Gateway::start(&format!(
        "[listeners.web]\naddress = \"{address}:0\"\n[[routes]]\nname = \"all\"\n\
         match = {{ path_prefix = \"/\" }}\nrespond = {{ body = \"{body}\" }}\n"
    ))
    .await
}

#[tokio::test]
async fn r2_addresses_names_and_ipv6_literals_are_endpoints() {
    let (four, six) = (own_answer("127.0.0.1", "four").await, own_answer("[::1]", "six").await);
    let (port4, port6) = (four.address("web").port(), six.address("web").port());
    for (endpoint, expected) in [
        (format!("127.0.0.1:{port4}"), "four"),
        (format!("localhost:{port4}"), "four"),
        (format!("[::1]:{port6}"), "six"),
    ] {
        let gateway = App::with([format!("\"{endpoint}\"")]).start().await;
        assert_eq!(letters(&gateway, 2).await, expected.repeat(2), "{endpoint}");
    }
}

/// What the program says of an upstream with this endpoint, and with which code it ends.
async fn refused(endpoint: &str) -> (i32, String) {
    let scratch = Scratch::new();
    let text = App::with([format!("\"{endpoint}\"")]).text();
    let path = scratch.write("sluice.toml", text).display().to_string();
    let ended = sluice(["run", &path]).finish().await;
    (ended.code(), ended.stderr)
}

#[tokio::test]
async fn r2_an_unusable_endpoint_is_a_problem_at_load() {
    let too_long = format!("{}:80", "a".repeat(64));
    for endpoint in [
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:http",
        "[::1:80",
        "http://127.0.0.1:80",
        "two words:80",
        ":80",
        "127.0.0.1:80/path",
        // A label of a name has at most 63 characters: no resolver has to be asked.
        &too_long,
    ] {
        let (code, said) = refused(endpoint).await;
        assert_eq!(code, 78, "{endpoint}: {said}");
        assert!(said.contains("sluice.toml:14:"), "{endpoint}: no place in\n{said}");
        assert!(said.contains("endpoints = ["), "{endpoint}: no line in\n{said}");
    }
}

#[tokio::test]
async fn r2_a_reload_with_an_unusable_endpoint_changes_nothing() {
    let [origin] = lettered::<1>().await;
    let gateway = App::of([&origin]).start().await;
    let bad = App::with([format!("\"{}\"", origin.address()), format!("\"{}:80\"", "a".repeat(64))]);
    let reloaded = gateway.reload(&bad.text()).await;
    assert!((400..500).contains(&reloaded.status), "{}: {}", reloaded.status, reloaded.body);
    assert_eq!(letters(&gateway, 2).await, "AA");
}

#[tokio::test]
async fn an_endpoint_given_twice_is_a_problem() {
    let (code, said) = refused("127.0.0.1:9\", \"127.0.0.1:9").await;
    assert!(code == 78 && said.contains("stands twice"), "{code}: {said}");
}

#[tokio::test]
async fn the_host_an_endpoint_sees_is_the_clients_its_own_or_a_given_one() {
    let [origin] = lettered::<1>().await;
    let own = origin.address().to_string();
    for (host, expected) in [
        ("\"preserve\"", "shop.example"),
        ("\"endpoint\"", own.as_str()),
        ("{ set = \"inside:81\" }", "inside:81"),
    ] {
        let gateway = App::of([&origin]).forward(&format!("host = {host}")).start().await;
        Client::of(&gateway).await.letter("/", &[("Host", "shop.example")]).await;
        assert_eq!(origin.last().fields.all("host").collect::<Vec<_>>(), [expected]);
    }
}
