//! Who may register, what they are answered, and what is told about them.

use sluice_testkit::{Gateway, eventually, http};

use super::raw::{CLOSE, PING, PONG, Raw};
use super::{document, gateway};

#[tokio::test]
async fn a_1_0_connector_is_answered_by_the_rules() {
    let gateway = gateway("").await;
    let address = gateway.address("tunnels");
    let bare = [("CrankerProtocol", "1.0"), ("Route", "shop")];
    for target in ["/register", "/register/"] {
        let (_, answer) = Raw::ask(address, target, &bare).await;
        assert_eq!(answer.status, 101);
        assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.field("crankerprotocol"), Some("1.0"));
        assert_eq!(answer.field("sec-websocket-protocol"), None);
    }
    let offers = [bare[0], bare[1], ("Sec-WebSocket-Protocol", "cranker_3.0, cranker_1.0")];
    let (_, answer) = Raw::ask(address, "/register/", &offers).await;
    assert_eq!(answer.field("sec-websocket-protocol"), Some("cranker_3.0"));
    assert_eq!(answer.field("crankerprotocol"), None);
    let (_, answer) = Raw::ask(address, "/register/", &[("Route", "shop")]).await;
    assert_eq!(answer.status, 400);
    let plain = http::get(address, "/register").await;
    assert_eq!((plain.status, plain.field("upgrade")), (426, Some("websocket")));
    assert_eq!(http::get(address, "/elsewhere").await.status, 404);
    assert_eq!(http::request(address, "TRACE", "/register", &[], b"").await.status, 405);
    assert!(
        gateway.metric("sluice_tunnel_registrations_total", &["result=\"tunnel-no-version\""]).await >= 1.0
    );
}

#[tokio::test]
async fn pings_are_answered() {
    let gateway = gateway("").await;
    let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
    raw.send(PING, "are you there").await;
    assert_eq!(raw.frame().await, (PONG, b"are you there".to_vec()));
}

#[tokio::test]
async fn deregistration_closes_the_idle_tunnels_of_its_connector_alone() {
    let gateway = gateway("").await;
    let address = gateway.address("tunnels");
    let mut mine = Raw::register(address, "shop").await;
    let fields = [("CrankerProtocol", "1.0"), ("Route", "shop")];
    let (mut other, _) = Raw::ask(address, "/register/?connectorInstanceID=i-2", &fields).await;
    let (mut bye, answer) = Raw::ask(address, "/deregister/?connectorInstanceID=i-1", &fields).await;
    assert_eq!((answer.status, answer.field("crankerprotocol")), (101, Some("1.0")));
    bye.expect_close(1000, "Deregister complete").await;
    mine.expect_close(1001, "Going away").await;
    mine.close(1000).await;
    other.send(PING, "x").await;
    assert_eq!(other.frame().await.0, PONG);
    let connectors = http::get(address, "/health/connectors").await.json();
    let connectors = &connectors["services"]["shop"]["connectors"];
    assert_eq!(connectors.as_array().map(Vec::len), Some(1), "{connectors}");
    assert_eq!(connectors[0]["connectorInstanceID"], "i-2");
}

#[tokio::test]
async fn what_there_is_is_told_in_the_shapes_of_the_originals() {
    let gateway = gateway("").await;
    let address = gateway.address("tunnels");
    let _shop = Raw::register(address, "shop").await;
    let _all = Raw::register(address, "*").await;
    let registrations = http::get(address, "/api/registrations").await.json();
    let expected = serde_json::json!({ "shop": { "127.0.0.1": {} }, "default": { "127.0.0.1": {} } });
    assert_eq!(registrations, expected);
    let service = http::get(address, "/health/connectors").await.json()["services"]["shop"].clone();
    assert_eq!((&service["isCatchAll"], &service["componentName"]), (&false.into(), &"raw".into()));
    let connection = &service["connectors"][0]["connections"][0];
    assert_eq!(connection["protocol"], "cranker_1.0");
    let health = http::get(address, "/health").await.json();
    assert_eq!(health["isAvailable"], true);
    assert_eq!(health["dependencies"][0]["router"]["activeConnections"], 2);
    assert_eq!(gateway.metric("sluice_tunnels_open", &["route=\"shop\""]).await, 1.0);
}

#[tokio::test]
async fn tokens_addresses_and_routes_say_who_may_register() {
    // The hash of "right".
    let hash = "sha256:27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9";
    let admission = format!("tunnel = {{ tokens = [\"{hash}\"], routes = [\"shop\"] }}");
    let gateway = Gateway::start(&document("1s", &admission, "")).await;
    let address = gateway.address("tunnels");
    let fields = [("CrankerProtocol", "1.0"), ("Route", "shop")];
    let (_, answer) = Raw::ask(address, "/register", &fields).await;
    assert_eq!(answer.status, 401);
    let wrong = [fields[0], fields[1], ("Authorization", "Bearer wrong")];
    let (_, answer) = Raw::ask(address, "/register", &wrong).await;
    assert_eq!(answer.status, 401);
    let right = [fields[0], fields[1], ("Authorization", "Bearer right")];
    let (_, answer) = Raw::ask(address, "/register", &right).await;
    assert_eq!(answer.status, 101);
    assert_eq!(http::get(address, "/api/registrations").await.status, 401);
    assert_eq!(http::get(address, "/health").await.status, 200);
    let denied = "tunnel = { allow = [\"192.0.2.0/24\"] }";
    assert_eq!(gateway.reload(&document("1s", denied, "")).await.status, 200);
    let (_, answer) = Raw::ask(address, "/register", &fields).await;
    assert_eq!(answer.status, 403);
    let routes = "tunnel = { routes = [\"office\"] }";
    assert_eq!(gateway.reload(&document("1s", routes, "")).await.status, 200);
    let (_, answer) = Raw::ask(address, "/register", &fields).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn limits_are_kept_and_free_again_when_tunnels_end() {
    let limits = "[tunnels]\nmax_per_route = 1\n";
    let gateway = gateway(limits).await;
    let address = gateway.address("tunnels");
    let first = Raw::register(address, "shop").await;
    let fields = [("CrankerProtocol", "1.0"), ("Route", "shop")];
    let (_, answer) = Raw::ask(address, "/register", &fields).await;
    assert_eq!(answer.status, 429);
    first.vanish();
    eventually("room for a tunnel", async || {
        let (_, answer) = Raw::ask(address, "/register", &fields).await;
        (answer.status == 101).then_some(())
    })
    .await;
    eventually("the end to be counted", async || {
        (gateway.metric("sluice_tunnel_ends_total", &["reason=\"dropped\""]).await >= 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_breaks_the_rules_ends_the_tunnel() {
    let gateway = gateway("").await;
    let mut raw = Raw::register(gateway.address("tunnels"), "shop").await;
    raw.send(0x3, "reserved").await;
    assert_eq!(raw.frame().await.0, CLOSE);
}
