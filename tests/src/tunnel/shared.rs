//! Registrations on a listener that serves other routes too, behind filters.

use sluice_testkit::{Gateway, Origin, Reply, Signal, Wire, eventually, http, within};
use sluice_tunnel::registration::Version;

use super::connector::Running;
use super::raw::{BINARY, PING, PONG, Raw, TEXT};
use crate::http2::client::Client;

const FIELDS: [(&str, &str); 2] = [("CrankerProtocol", "1.0"), ("Route", "shop")];

/// One listener for everything; the filters of the routes that connectors use, and more at the end.
fn document(filters: &str, more: &str) -> String {
    let register = |name: &str, prefix: &str| {
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ path_prefix = \"{prefix}\" }}\n\
             filters = [{filters}]\nregister_tunnels = {{}}\n\n"
        )
    };
    format!(
        "[process]\nadmin = {{ address = \"127.0.0.1:0\" }}\ndrain_timeout = \"10s\"\n\n\
         [access_log]\npath = \"access.log\"\n\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [[routes]]\nname = \"any\"\ntunnel = {{ wait = \"300ms\" }}\n\n\
         [[routes]]\nname = \"hello\"\nmatch = {{ path = \"/hello\" }}\nrespond = {{ body = \"hello\" }}\n\n\
         {}{}{}{more}",
        register("register", "/register"),
        register("deregister", "/deregister"),
        register("registrations", "/api/registrations"),
    )
}

async fn serve(mut raw: Raw) -> String {
    let request = raw.text().await;
    raw.send(TEXT, "HTTP/1.1 200 OK\nX-A: b\n").await.send(BINARY, "through").await.close(1000).await;
    request
}

/// The access log's lines about registrations, when there are so many.
async fn logged(gateway: &Gateway, count: usize) -> Vec<serde_json::Value> {
    let path = gateway.scratch().file("access.log");
    eventually(&format!("{count} lines about registrations"), async || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let about = |line: &serde_json::Value| {
            line["url.path"].as_str().is_some_and(|path| path.contains("register"))
        };
        let lines: Vec<serde_json::Value> = lines.filter(about).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn one_listener_serves_tunnels_and_ordinary_routes() {
    let gateway = Gateway::start(&document("", "")).await;
    let web = gateway.address("web");
    let raw = Raw::register(web, "shop").await;
    assert_eq!(http::get(web, "/hello").await.text(), "hello");
    let registrations = http::get(web, "/api/registrations").await.json();
    assert_eq!(registrations, serde_json::json!({ "shop": { "127.0.0.1": {} }, "default": {} }));
    let (request, answer) = tokio::join!(serve(raw), http::get(web, "/shop/x"));
    assert!(request.starts_with("GET /shop/x HTTP/1.1\n"), "{request}");
    assert_eq!(answer.text(), "through");
    for (target, method, status) in
        [("/register", "GET", 426), ("/register", "POST", 405), ("/register/more", "GET", 404)]
    {
        assert_eq!(http::request(web, method, target, &[], b"").await.status, status, "{method} {target}");
    }
}

#[tokio::test]
async fn our_connector_and_3_0_register_through_it_and_deregister() {
    for version in [Version::V1, Version::V3] {
        let origin = Origin::start(Reply::ok("own")).await;
        let gateway = Gateway::start(&document("", "")).await;
        let web = gateway.address("web");
        let connector = Running::spawn(web, "shop", origin.address(), version);
        eventually("a tunnel", async || (http::get(web, "/shop").await.status == 200).then_some(())).await;
        let offers = [FIELDS[0], FIELDS[1], ("Sec-WebSocket-Protocol", "cranker_3.0, cranker_1.0")];
        let (mut raw, answer) = Raw::ask(web, "/register/?connectorInstanceID=raw", &offers).await;
        assert_eq!(
            (answer.status, answer.field("sec-websocket-protocol")),
            (101, Some("cranker_3.0")),
            "{version}"
        );
        raw.send(PING, "x").await;
        assert_eq!(raw.frame().await.0, PONG);
        let (mut bye, answer) = Raw::ask(web, "/deregister/?connectorInstanceID=raw", &FIELDS).await;
        assert_eq!((answer.status, answer.field("crankerprotocol")), (101, Some("1.0")));
        bye.expect_close(1000, "Deregister complete").await;
        raw.expect_close(1001, "Going away").await;
        bye.close(1000).await;
        bye.expect_end().await;
        within("the connector to drain", connector.stop()).await;
    }
}

#[tokio::test]
async fn filters_decide_who_may_register() {
    // The hash of "right".
    let hash = "sha256:27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9";
    let consumers = format!("[consumers.inside]\napi_keys = [\"{hash}\"]\n");
    let gateway = Gateway::start(&document("{ api_key = {} }", &consumers)).await;
    let web = gateway.address("web");
    for key in [None, Some("wrong")] {
        let more: Vec<_> = FIELDS.into_iter().chain(key.map(|key| ("X-API-Key", key))).collect();
        let (_, answer) = Raw::ask(web, "/register", &more).await;
        assert_eq!(answer.status, 401);
    }
    let (raw, answer) = Raw::ask(web, "/register", &[FIELDS[0], FIELDS[1], ("X-API-Key", "right")]).await;
    assert_eq!(answer.status, 101);
    let (_, answer) = tokio::join!(serve(raw), http::get(web, "/shop/x"));
    assert_eq!(answer.text(), "through");
    // Each connection may live on another worker, whose lines come when it writes them.
    let (let_in, refused): (Vec<_>, Vec<_>) =
        logged(&gateway, 3).await.into_iter().partition(|line| line["http.response.status_code"] == 101);
    assert_eq!((let_in.len(), refused.len()), (1, 2));
    assert!(refused.iter().all(|line| line["outcome"] == "unauthenticated"), "{refused:?}");
    assert_eq!((&let_in[0]["consumer"], &let_in[0]["tunnel.route"]), (&"inside".into(), &"shop".into()));
}

#[tokio::test]
async fn a_flood_of_registrations_is_refused_by_the_rate_limit() {
    let gateway = Gateway::start(&document("{ rate_limit = { rate = \"1/h\", burst = 2 } }", "")).await;
    let web = gateway.address("web");
    let mut kept = Vec::new();
    for (number, expected) in [101, 101, 429, 429].into_iter().enumerate() {
        let (raw, answer) = Raw::ask(web, "/register", &FIELDS).await;
        assert_eq!(answer.status, expected, "{number}");
        kept.push(raw);
    }
    assert_eq!(gateway.metric("sluice_tunnels_open", &["route=\"shop\""]).await, 2.0);
}

#[tokio::test]
async fn pages_of_other_origins_may_read_what_there_is_where_cors_says_so() {
    let cors = "{ cors = { origins = [\"https://console.example\"] } }";
    let gateway = Gateway::start(&document(cors, "")).await;
    let fields = [("Origin", "https://console.example")];
    let answer = http::get_with(gateway.address("web"), "/api/registrations", &fields).await;
    assert_eq!(
        (answer.status, answer.field("access-control-allow-origin")),
        (200, Some("https://console.example"))
    );
}

#[tokio::test]
async fn limits_of_address_and_route_hold_over_both_kinds_of_listener() {
    let tunnels = "[listeners.tunnels]\naddress = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n";
    let more = |limit: &str| format!("{tunnels}\n[tunnels]\n{limit}\n");
    for (limit, code) in [
        ("max_per_address = 1", "tunnel-address-limit"),
        ("max_per_route = 1", "tunnel-route-limit"),
        ("max_routes = 1", "tunnel-routes-limit"),
    ] {
        let gateway = Gateway::start(&document("", &more(limit))).await;
        let both = [gateway.address("web"), gateway.address("tunnels")];
        let route = if limit.contains("routes") { "office" } else { "shop" };
        for (first, second) in [(both[0], both[1]), (both[1], both[0]), (both[0], both[0])] {
            let kept = Raw::register(first, "shop").await;
            let (_, answer) = Raw::ask(second, "/register", &[FIELDS[0], ("Route", route)]).await;
            assert_eq!((answer.status, answer.field("retry-after")), (429, Some("1")), "{limit}");
            assert!(answer.field("proxy-status").unwrap().contains(code), "{answer:?}");
            kept.vanish();
            eventually("the tunnel's end", async || {
                (gateway.metric("sluice_tunnels_open", &["route=\"shop\""]).await == 0.0).then_some(())
            })
            .await;
        }
        let refused = format!("result=\"{code}\"");
        assert_eq!(gateway.metric("sluice_tunnel_registrations_total", &[&refused]).await, 3.0);
        let failures = gateway.metric("sluice_failures_total", &[&format!("code=\"{code}\"")]).await;
        assert_eq!(failures, 3.0);
    }
}

#[tokio::test]
async fn registrations_stand_in_the_access_log_with_what_they_announced() {
    let listener = "[listeners.tunnels]\naddress = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n\
                    tunnel = { routes = [\"shop\"] }\n";
    let gateway = Gateway::start(&document("", listener)).await;
    for (count, name) in [(0, "web"), (2, "tunnels")] {
        let _raw = Raw::register(gateway.address(name), "shop").await;
        let denied = [FIELDS[0], ("Route", "office")];
        let (_, answer) = Raw::ask(gateway.address(name), "/register?componentName=c", &denied).await;
        assert_eq!(answer.status, if name == "web" { 101 } else { 403 });
        let lines = logged(&gateway, count + 2).await;
        let of_raw =
            |line: &&serde_json::Value| line["listener"] == name && line["tunnel.component"] == "raw";
        let line = lines.iter().find(of_raw).unwrap();
        let route = if name == "web" { "register" } else { "(registrations)" };
        for (key, value) in [
            ("route", route),
            ("listener", name),
            ("outcome", "answered"),
            ("tunnel.route", "shop"),
            ("tunnel.component", "raw"),
            ("tunnel.instance", "i-1"),
            ("tunnel.version", "1.0"),
        ] {
            assert_eq!(line[key], value, "{key} in {line}");
        }
        assert_eq!(line["http.response.status_code"], 101);
        if name == "tunnels" {
            let refused = lines.iter().find(|line| line["http.response.status_code"] == 403).unwrap();
            assert_eq!(
                (&refused["outcome"], &refused["tunnel.route"]),
                (&"tunnel-route-denied".into(), &"office".into())
            );
        }
    }
    let labels = ["route=\"(registrations)\"", "outcome=\"answered\""];
    assert_eq!(gateway.metric("sluice_http_requests_total", &labels).await, 1.0);
}

#[tokio::test]
async fn over_http_2_a_registration_is_refused_with_its_reason() {
    let gateway = Gateway::start(&document("", "")).await;
    let mut client = Client::connect(gateway.address("web")).await;
    let answer = client.get("/register/?connectorInstanceID=i").await;
    assert_eq!((answer.status, answer.field("upgrade")), (426, None));
    assert!(answer.text().contains("tunnel-not-websocket"), "{}", answer.text());
    assert_eq!(client.get("/api/registrations").await.status, 200);
}

#[tokio::test]
async fn a_registration_with_content_is_refused() {
    let gateway = Gateway::start(&document("", "")).await;
    let more = [FIELDS[0], FIELDS[1], ("Content-Length", "2")];
    let (_, answer) = Raw::ask(gateway.address("web"), "/register", &more).await;
    assert_eq!(answer.status, 426);
    let more = [FIELDS[0], FIELDS[1], ("Content-Length", "0")];
    let (_, answer) = Raw::ask(gateway.address("web"), "/register", &more).await;
    assert_eq!(answer.status, 101, "some connectors send it");
}

#[tokio::test]
async fn a_tunnel_of_a_shared_listener_lives_over_reloads_and_ends_with_a_drain() {
    let mut gateway = Gateway::start(&document("", "")).await;
    let web = gateway.address("web");
    let mut busy = Raw::register(web, "shop").await;
    for turn in 0..5 {
        let more = format!("[[routes]]\nname = \"r{turn}\"\nmatch = {{ path = \"/r\" }}\nrespond = {{}}\n");
        assert_eq!(gateway.reload(&document("", &more)).await.status, 200);
    }
    // Its route goes too: what is open stays.
    let closed = document("", "").replace("register_tunnels = {}", "respond = { status = 410 }");
    assert_eq!(gateway.reload(&closed).await.status, 200);
    assert_eq!(http::get(web, "/register").await.status, 410);
    let mut client = Wire::connect(web).await;
    client.send("GET /shop HTTP/1.1\r\nHost: a\r\n\r\n").await;
    busy.text().await;
    assert_eq!(gateway.reload(&document("", "")).await.status, 200);
    let mut idle = Raw::register(web, "shop").await;
    gateway.signal(Signal::Term).await;
    idle.expect_close(1001, "Going away").await;
    idle.close(1001).await;
    drop(idle);
    busy.send(TEXT, "HTTP/1.1 200 OK\nX-A: b\n").await.send(BINARY, "late").await.close(1000).await;
    assert_eq!(client.answer().await.text(), "late");
    drop(busy);
    assert!(within("the exit", gateway.wait_exit()).await.success());
}
