//! Consumers: known by a key, by a password; their names, groups and limits of place.

use sluice_testkit::{Gateway, Origin, Reply, http, sluice};

use super::{ANNA, HASH};
use crate::setup::Lines;

/// A key and its hash, as `sluice make-key` prints them.
async fn make_key(prefix: &str) -> (String, String) {
    let ended = sluice(["make-key", "--prefix", prefix]).finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let part = |name: &str| {
        let line = ended.stdout.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{}", ended.stdout)).trim().to_owned()
    };
    (part("key:"), part("hash:"))
}

async fn status(gateway: &Gateway, fields: &[(&str, &str)]) -> u16 {
    http::get_with(gateway.address("web"), "/", fields).await.status
}

#[tokio::test]
async fn a_key_that_make_key_printed_lets_its_consumer_in() {
    let origin = Origin::start(Reply::ok("x")).await;
    let (key, hash) = make_key("shop").await;
    let (other, other_hash) = make_key("shop").await;
    let route = "filters = [{ api_key = { prefix = \"shop\", hide_credentials = true } }, \
                 { acl = { allow = [\"gold\"] } }, \
                 { headers = { request = { set = { X-Consumer = \"{consumer.name}/{consumer.groups}\" } } } }]";
    let more = format!(
        "[access_log]\n[consumers.anna]\ngroups = [\"gold\", \"all\"]\napi_keys = [\"{hash}\"]\n\
         [consumers.bob]\ngroups = [\"all\"]\napi_keys = [\"{other_hash}\"]\n"
    );
    let mut gateway = Lines { route, more: &more, ..Lines::default() }.start(&[origin.address()]).await;
    assert_eq!(status(&gateway, &[("X-API-Key", &key)]).await, 200);
    let seen = origin.last();
    assert_eq!((seen.field("x-consumer"), seen.field("x-api-key")), (Some("anna/gold,all"), None));
    assert_eq!(status(&gateway, &[("X-API-Key", &other)]).await, 403);
    for wrong in [&key[1..], &key.to_lowercase(), "", "x"] {
        let asked = http::get_with(gateway.address("web"), "/", &[("X-API-Key", wrong)]).await;
        assert_eq!((asked.status, asked.field("www-authenticate")), (401, Some("Key realm=\"restricted\"")));
    }
    assert_eq!(origin.count(), 1);
    gateway.wait_stdout("\"consumer\":\"bob\",\"http.response.status_code\":403").await;
    assert!(!gateway.stdout().contains(&key) && !gateway.stderr().contains(&key));
    let counted =
        gateway.metric("sluice_consumer_requests_total", &["consumer=\"anna\"", "code=\"2xx\""]).await;
    assert_eq!(counted, 1.0);
}

#[tokio::test]
async fn a_consumer_can_be_disabled_bound_to_addresses_and_use_a_password() {
    let origin = Origin::start(Reply::ok("x")).await;
    let route = "filters = [{ basic_auth = { except = [\"/open/*\"] } }]";
    let consumer = |more: &str| {
        format!("[consumers.shop]\nbasic = {{ user = \"anna\", password = \"{HASH}\" }}\n{more}")
    };
    let document =
        |more: &str| Lines { route, more: &consumer(more), ..Lines::default() }.document(&[origin.address()]);
    let gateway = Gateway::start(&document("")).await;
    assert_eq!((status(&gateway, &[("Authorization", ANNA)]).await, status(&gateway, &[]).await), (200, 401));
    assert_eq!(http::get(gateway.address("web"), "/open/a").await.status, 200);
    assert_eq!(http::get(gateway.address("web"), "/open/../a").await.status, 401);
    for (more, expected) in [
        ("status = \"disabled\"", 403),
        ("ip_access = { allow = [\"10.0.0.0/8\"] }", 403),
        ("ip_access = { deny = [\"10.0.0.0/8\"] }", 200),
    ] {
        assert_eq!(gateway.reload(&document(more)).await.status, 200);
        assert_eq!(status(&gateway, &[("Authorization", ANNA)]).await, expected, "{more}");
    }
    let twice = document(
        "[consumers.other]\njwt = { subject = \"a\" }\n[consumers.third]\njwt = { subject = \"a\" }",
    );
    let refused = gateway.reload(&twice).await;
    assert!(refused.body.contains("consumer `other` has this subject"), "{}", refused.body);
}
