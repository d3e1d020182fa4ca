//! Tokens and signatures made by openssl, sessions in a real Redis.

use std::path::PathBuf;

use sluice_testkit::{Gateway, Origin, Peer, Program, Reply, Scratch, Wire, http, tls};

use super::issue;
use crate::setup::Lines;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let value =
            chunk.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len())
            .for_each(|digit| out.push(ALPHABET[(value >> (18 - 6 * digit)) as usize & 63] as char));
    }
    out
}

async fn openssl(arguments: &[&str]) {
    let ended = Program::at("/usr/bin/env")
        .arguments(["openssl"])
        .arguments(arguments.iter().copied())
        .finish()
        .await;
    assert_eq!(ended.code(), 0, "{arguments:?}: {}", ended.stderr);
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rsa,
    Ec,
    Ed,
}

/// A key pair in files.
struct Key {
    kind: Kind,
    scratch: Scratch,
}

impl Key {
    async fn make(kind: Kind) -> Key {
        let scratch = Scratch::new();
        let file = |name: &str| scratch.file(name).display().to_string();
        let algorithm: &[&str] = match kind {
            Kind::Rsa => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Kind::Ec => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Kind::Ed => &["-algorithm", "ED25519"],
        };
        openssl(&[&["genpkey", "-out", &file("key")], algorithm].concat()).await;
        openssl(&["pkey", "-in", &file("key"), "-pubout", "-out", &file("public")]).await;
        openssl(&["pkey", "-in", &file("key"), "-pubout", "-outform", "DER", "-out", &file("der")]).await;
        Key { kind, scratch }
    }

    fn public(&self) -> PathBuf {
        self.scratch.file("public")
    }

    fn jwk(&self, id: &str) -> String {
        let der = std::fs::read(self.scratch.file("der")).unwrap();
        let end = |length: usize| &der[der.len() - length..];
        let parts = match self.kind {
            Kind::Ec => format!(
                "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"{}\",\"y\":\"{}\"",
                base64url(&end(64)[..32]),
                base64url(end(32))
            ),
            Kind::Ed => format!("\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{}\"", base64url(end(32))),
            // The modulus of 256 bytes, then 02 03 01 00 01.
            Kind::Rsa => format!("\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"{}\"", base64url(&end(261)[..256])),
        };
        format!("{{{parts},\"use\":\"sig\",\"kid\":\"{id}\"}}")
    }

    async fn token(&self, id: &str, claims: &str) -> String {
        let algorithm = match self.kind {
            Kind::Rsa => "RS256",
            Kind::Ec => "ES256",
            Kind::Ed => "EdDSA",
        };
        let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"{id}\"}}");
        let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signed = self.scratch.write("message", &message).display().to_string();
        let (key, out) = (self.scratch.file("key").display().to_string(), self.scratch.file("signature"));
        let out = out.display().to_string();
        match self.kind {
            Kind::Ed => {
                openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &signed, "-out", &out]).await;
            }
            _ => openssl(&["dgst", "-sha256", "-sign", &key, "-out", &out, &signed]).await,
        }
        let signature = std::fs::read(&out).unwrap();
        let signature = if self.kind == Kind::Ec { raw(&signature) } else { signature };
        format!("{message}.{}", base64url(&signature))
    }
}

/// r and s of a DER signature, 32 bytes each.
fn raw(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = der[at + 1] as usize;
        let bytes = &der[at + 2..at + 2 + length];
        let bytes = &bytes[bytes.len().saturating_sub(32)..];
        ([vec![0; 32 - bytes.len()], bytes.to_vec()].concat(), at + 2 + length)
    };
    let (r, next) = number(2);
    [r, number(next).0].concat()
}

/// Far away.
const CLAIMS: &str = "{\"sub\":\"anna\",\"exp\":4000000000}";

async fn status(gateway: &Gateway, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    http::get_with(gateway.address("web"), "/", &[("Authorization", &bearer)]).await.status
}

fn route(jwt: &str) -> String {
    format!("filters = [{{ jwt = {{ {jwt} }} }}]")
}

#[tokio::test]
async fn tokens_of_each_kind_of_key_are_known_from_a_file() {
    let origin = Origin::start(Reply::ok("x")).await;
    for kind in [Kind::Rsa, Kind::Ec, Kind::Ed] {
        let (key, other) = (Key::make(kind).await, Key::make(kind).await);
        let route = route(&format!("file = \"{}\"", key.public().display()));
        let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
        let token = key.token("k", CLAIMS).await;
        assert_eq!(status(&gateway, &token).await, 200);
        assert_eq!(status(&gateway, &other.token("k", CLAIMS).await).await, 401);
        let expired = key.token("k", "{\"exp\":1000000000}").await;
        let answer =
            http::get_with(gateway.address("web"), "/", &[("Authorization", &format!("Bearer {expired}"))])
                .await;
        let challenge = answer.field("www-authenticate").unwrap_or_default();
        assert!(answer.status == 401 && challenge.contains("The token has expired"), "{challenge}");
        confused(&gateway, &key).await;
    }
}

/// A public key taken for a shared secret, and no signature at all.
async fn confused(gateway: &Gateway, key: &Key) {
    let public = std::fs::read(key.public()).unwrap();
    let hex: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
    for header in ["{\"alg\":\"HS256\"}", "{\"alg\":\"none\"}", "{\"alg\":\"None\"}"] {
        let message = format!("{}.{}", base64url(header.as_bytes()), base64url(CLAIMS.as_bytes()));
        let signature = hmac(&format!("hexkey:{hex}"), &message).await;
        assert_eq!(status(gateway, &format!("{message}.{}", base64url(&signature))).await, 401, "{header}");
        assert_eq!(status(gateway, &format!("{message}.")).await, 401, "{header}");
    }
}

/// HMAC-SHA256; the key as `openssl dgst -macopt` takes it.
async fn hmac(key: &str, text: &str) -> Vec<u8> {
    let scratch = Scratch::new();
    let (text, out) =
        (scratch.write("text", text).display().to_string(), scratch.file("mac").display().to_string());
    openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", key, "-binary", "-out", &out, &text]).await;
    std::fs::read(out).unwrap()
}

fn publish(origin: &Origin, keys: &[String]) {
    origin.set_script(Reply::ok(format!("{{\"keys\":[{}]}}", keys.join(","))));
}

#[tokio::test]
async fn a_published_key_set_is_followed_and_outlives_its_publisher() {
    let (origin, mut issuer) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("{}")).await);
    let (old, new) = (Key::make(Kind::Ec).await, Key::make(Kind::Rsa).await);
    publish(&issuer, &[old.jwk("old")]);
    let route = route(&format!("jwks = \"http://{}/keys\", refresh = \"1s\"", issuer.address()));
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let (of_old, of_new) = (old.token("old", CLAIMS).await, new.token("new", CLAIMS).await);
    assert_eq!(status(&gateway, &of_old).await, 200);
    assert_eq!(status(&gateway, &of_new).await, 401, "nobody knows this key");

    publish(&issuer, &[new.jwk("new")]);
    sluice_testkit::eventually("the new key to be known", async || {
        (status(&gateway, &of_new).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&gateway, &of_old).await, 401, "a key that is taken out counts no longer");

    issuer.stop().await;
    let again = new.token("new", "{\"sub\":\"bob\",\"exp\":4000000000}").await;
    assert_eq!(status(&gateway, &again).await, 200, "the last set stays in use");
}

#[tokio::test]
async fn unknown_key_ids_cause_one_fetch_and_no_flood() {
    let (origin, issuer) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("{}")).await);
    let key = Key::make(Kind::Ec).await;
    publish(&issuer, &[key.jwk("k")]);
    let route = route(&format!("jwks = \"http://{}/keys\", refresh = \"1h\"", issuer.address()));
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    assert_eq!(status(&gateway, &key.token("k", CLAIMS).await).await, 200);
    for index in 0..5 {
        assert_eq!(status(&gateway, &key.token(&format!("other-{index}"), CLAIMS).await).await, 401);
    }
    assert!(issuer.count() <= 2, "{}", issuer.count());
    // All at the same time, as long as the issuer is not asked again in its own time.
    let (token, address) = (key.token("another", CLAIMS).await, gateway.address("web"));
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let bearer = format!("Bearer {token}");
        flood.spawn(async move { http::get_with(address, "/", &[("Authorization", &bearer)]).await.status });
    }
    assert!(flood.join_all().await.iter().all(|status| *status == 401));
    assert!(issuer.count() <= 3, "{}", issuer.count());
}

#[tokio::test]
async fn a_flood_of_unknown_key_ids_waits_for_one_fetch() {
    let (origin, issuer) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("{}")).await);
    let (old, new) = (Key::make(Kind::Ec).await, Key::make(Kind::Ec).await);
    publish(&issuer, &[old.jwk("old")]);
    let route = route(&format!("jwks = \"http://{}/keys\", refresh = \"1h\"", issuer.address()));
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    assert_eq!(status(&gateway, &old.token("old", CLAIMS).await).await, 200);
    publish(&issuer, &[old.jwk("old"), new.jwk("new")]);
    let token = new.token("new", CLAIMS).await;
    // The first fetch may have been a moment ago; whoever asks then is refused and told so.
    sluice_testkit::eventually("the new key to be fetched", async || {
        (status(&gateway, &token).await == 200).then_some(())
    })
    .await;
    assert_eq!(issuer.count(), 2);
}

#[tokio::test]
async fn a_key_set_over_tls_is_believed_from_its_authority_alone() {
    let (origin, issuer) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("{}")).await);
    let (scratch, key) = (Scratch::new(), Key::make(Kind::Ec).await);
    let (authority, stranger) = (tls::Authority::new("ours"), tls::Authority::new("theirs"));
    publish(&issuer, &[key.jwk("k")]);
    // Who publishes it stands behind TLS: once with a certificate for its address, once with one for another name.
    let publisher = async |name: &str| {
        let (chain, key) = authority.leaf(&[name]).write(&scratch, name);
        let (chain, key) = (chain.display(), key.display());
        let more = format!("[certificates.c]\nchain = \"{chain}\"\nkey = \"{key}\"\n");
        let listener = "tls = { certificates = [\"c\"] }";
        Lines { listener, more: &more, ..Lines::default() }.start(&[issuer.address()]).await
    };
    let (right, other) = (publisher("127.0.0.1").await, publisher("id.example").await);
    let token = key.token("k", CLAIMS).await;
    let [ours, theirs] = [(authority, "ours.pem"), (stranger, "theirs.pem")]
        .map(|(authority, name)| format!(", ca = \"{}\"", authority.write(&scratch, name).display()));
    let asking = async |publisher: &Gateway, ca: &str| {
        let jwks = format!("jwks = \"https://{}/keys\"{ca}", publisher.address("web"));
        Lines { route: &route(&jwks), ..Lines::default() }.start(&[origin.address()]).await
    };
    for (publisher, ca) in [(&right, ""), (&right, &*theirs), (&other, &*ours)] {
        let gateway = asking(publisher, ca).await;
        assert_eq!(status(&gateway, &token).await, 503);
        let told = async || {
            let told = gateway.stderr();
            (told.contains("a key set could not be fetched") && told.contains("TLS")).then_some(())
        };
        sluice_testkit::eventually("the operator to be told", told).await;
    }
    assert_eq!(issuer.count(), 0, "nobody who is not believed is asked");
    assert_eq!(status(&asking(&right, &ours).await, &token).await, 200);
}

#[tokio::test]
async fn the_last_set_is_used_for_a_bounded_time() {
    let (origin, mut issuer) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("{}")).await);
    let key = Key::make(Kind::Ec).await;
    publish(&issuer, &[key.jwk("k")]);
    let jwks =
        format!("jwks = \"http://{}/keys\", refresh = \"1s\", stale_if_error = \"2s\"", issuer.address());
    let route = route(&jwks);
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let token = key.token("k", CLAIMS).await;
    assert_eq!(status(&gateway, &token).await, 200);
    issuer.stop().await;
    assert_eq!(status(&gateway, &token).await, 200, "remembered, and its keys are still good");
    let over = async || (status(&gateway, &token).await == 503).then_some(());
    sluice_testkit::eventually("its time to be over", over).await;
}

#[tokio::test]
async fn while_a_key_set_was_never_reached_nobody_comes_in() {
    let (origin, mut issuer) = (Origin::start(Reply::ok("x")).await, Origin::start(Reply::ok("{}")).await);
    issuer.stop().await;
    let key = Key::make(Kind::Ec).await;
    let route = route(&format!("jwks = \"http://{}/keys\"", issuer.address()));
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let token = key.token("k", CLAIMS).await;
    assert_eq!(status(&gateway, &token).await, 503);
    publish(&issuer, &[key.jwk("k")]);
    issuer.start_again().await;
    sluice_testkit::eventually("the key set to be fetched", async || {
        (status(&gateway, &token).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_lives_in_redis() {
    let (origin, redis) = (Origin::start(Reply::ok("x")).await, Peer::redis().await);
    let key = Key::make(Kind::Ed).await;
    let route = route(&format!(
        "file = \"{}\", session = {{ redis = \"redis://{}?timeout=5s\", prefix = \"t:\", renew = \"1h\", csrf = {{ header = \"X-CSRF\", \
         except = [\"/free/*\"] }} }}",
        key.public().display(),
        redis.address()
    ));
    let gateway = Lines { route: &route, ..Lines::default() }.start(&[origin.address()]).await;
    let token = key.token("k", CLAIMS).await;
    let bearer = format!("Bearer {token}");
    let ask = async |method: &str, target: &str, csrf: &str| {
        let fields = [("Authorization", &*bearer), ("X-CSRF", csrf)];
        http::request(gateway.address("web"), method, target, &fields, b"").await.status
    };
    assert_eq!(ask("GET", "/", "").await, 401, "Redis does not know it");
    let mut wire = Wire::connect(redis.address()).await;
    wire.send(format!("SET t:{token} secret EX 100\r\n")).await.expect("+OK\r\n").await;
    for (method, target, csrf, expected) in [
        ("GET", "/", "", 200),
        ("POST", "/", "", 403),
        ("POST", "/", "wrong", 403),
        ("POST", "/", "secret", 200),
        ("POST", "/free/x", "", 200),
    ] {
        assert_eq!(ask(method, target, csrf).await, expected, "{method} {target} {csrf}");
    }
    wire.send(format!("TTL t:{token}\r\n")).await.expect(":3600\r\n").await;
    wire.send(format!("DEL t:{token}\r\n")).await.expect(":1\r\n").await;
    assert_eq!(ask("GET", "/", "").await, 401);
    drop(redis);
    sluice_testkit::eventually("Redis to be missed", async || {
        (ask("GET", "/", "").await == 503).then_some(())
    })
    .await;
}

/// What signs requests with key k1 of consumer shop.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

async fn signing(filter: &str, origin: &Origin) -> Gateway {
    let more = format!("[consumers.shop]\nhmac_keys = {{ k1 = \"{SECRET}\" }}\n");
    let route = format!("filters = [{{ hmac = {{ {filter} }} }}]");
    Lines { route: &route, more: &more, ..Lines::default() }.start(&[origin.address()]).await
}

async fn date() -> String {
    let date = Program::at("/usr/bin/env").arguments(["date", "-u", "+%a, %d %b %Y %H:%M:%S GMT"]);
    date.finish().await.stdout.trim().to_owned()
}

/// The line of Authorization for these names of fields and the text they make.
async fn signed(names: &str, text: &str) -> String {
    let signature = standard(&hmac(&format!("key:{SECRET}"), text).await);
    format!("hmac username=\"k1\", algorithm=\"hmac-sha256\", headers=\"{names}\", signature=\"{signature}\"")
}

#[tokio::test]
async fn a_signed_request_lets_in_and_a_changed_one_does_not() {
    let origin = Origin::start(Reply::ok("x")).await;
    let gateway = signing("body = true", &origin).await;
    let host = gateway.address("web").to_string();
    let (date, digest) = (date().await, digest_of("hello").await);
    let text = format!("@request-target: post /a?b=1\nhost: {host}\ndate: {date}\ndigest: {digest}");
    let line = signed("@request-target host date digest", &text).await;
    let ask = async |target: &str, body: &str, line: &str| {
        let fields = [("Authorization", line), ("Date", &date), ("Digest", &digest)];
        http::request(gateway.address("web"), "POST", target, &fields, body.as_bytes()).await.status
    };
    assert_eq!(ask("/a?b=1", "hello", &line).await, 200);
    assert_eq!(origin.last().body, b"hello");
    for (target, body, line) in [
        ("/a?b=2", "hello", &*line),
        ("/a?b=1", "hellO", &*line),
        ("/a?b=1", "hello", &*line.replace("k1", "k2")),
        ("/a?b=1", "hello", &*line.replace("sha256", "sha512")),
        ("/a?b=1", "hello", ""),
    ] {
        assert_eq!(ask(target, body, line).await, 401, "{target} {body} {line}");
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(ask("/a?b=1", "hello", &line).await, 200, "a copy passes where it is not refused");
}

#[tokio::test]
async fn a_copy_of_a_signed_request_is_refused_here_and_on_other_gateways() {
    let (origin, redis) = (Origin::start(Reply::ok("x")).await, Peer::redis().await);
    let shared = format!("replay = {{ shared = \"redis://{}?timeout=5s\" }}", redis.address());
    let (alone, one, other) = (
        signing("replay = { room = 2 }", &origin).await,
        signing(&shared, &origin).await,
        signing(&shared, &origin).await,
    );
    let date = date().await;
    let ask = async |gateway: &Gateway, number: &str, line: &str| {
        let fields = [("Authorization", line), ("Date", &date), ("Host", "shop"), ("X-Number", number)];
        http::get_with(gateway.address("web"), "/a", &fields).await.status
    };
    let line = async |number: &str| {
        let text = format!("@request-target: get /a\nhost: shop\ndate: {date}\nx-number: {number}");
        signed("@request-target host date x-number", &text).await
    };
    let (first, second, third) = (line("1").await, line("2").await, line("3").await);
    assert_eq!(ask(&alone, "2", &first).await, 401, "what is not right is not remembered");
    assert_eq!([ask(&alone, "1", &first).await, ask(&alone, "1", &first).await], [200, 401]);
    assert_eq!([ask(&alone, "2", &second).await, ask(&alone, "2", &second).await], [200, 401]);
    assert_eq!(ask(&alone, "3", &third).await, 503, "there is no room");
    assert_eq!(origin.count(), 2);
    assert_eq!([ask(&one, "1", &first).await, ask(&other, "1", &first).await], [200, 401]);
    assert_eq!([ask(&other, "2", &second).await, ask(&one, "2", &second).await], [200, 401]);
    drop(redis);
    let missed = async || (ask(&one, "3", &third).await == 503).then_some(());
    sluice_testkit::eventually("Redis to be missed", missed).await;
}

async fn digest_of(body: &str) -> String {
    let scratch = Scratch::new();
    let (text, out) =
        (scratch.write("body", body).display().to_string(), scratch.file("sum").display().to_string());
    openssl(&["dgst", "-sha256", "-binary", "-out", &out, &text]).await;
    format!("SHA-256={}", standard(&std::fs::read(out).unwrap()))
}

/// RFC 4648 section 4.
fn standard(bytes: &[u8]) -> String {
    let mut text = base64url(bytes).replace('-', "+").replace('_', "/");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

#[tokio::test]
async fn given_keys_sign_and_are_replaced_without_a_gap() {
    let (scratch, origin) = (Scratch::new(), Origin::start(Reply::ok("x")).await);
    let directory = scratch.file("keys").display().to_string();
    let file = |name: &str| scratch.file(name).display().to_string();
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", &file("old")])
        .await;
    openssl(&["genpkey", "-algorithm", "ED25519", "-out", &file("new")]).await;
    openssl(&["pkey", "-in", &file("old"), "-pubout", "-out", &file("old.pub")]).await;
    let key = |name: &str| format!("{{ file = \"{}\" }}", file(name));
    let document = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|name| key(name)).collect();
        issue::with(&directory, &origin, &format!(", keys = [{}]", keys.join(", ")))
    };
    let gateway = Gateway::start(&document(&["old"])).await;
    let published = async || http::get(gateway.address("web"), "/oauth/keys").await.text();
    let before = published().await;
    assert!(before.contains("\"P-384\"") && !before.contains("\"d\""), "{before}");
    let (of_old, _) = issue::issue(&gateway).await;
    assert_eq!(issue::uses(&gateway, &of_old).await, 200);
    for keys in [&["old", "new"][..], &["new", "old"], &["new", "old.pub"]] {
        assert_eq!(gateway.reload(&document(keys)).await.status, 200, "{keys:?}");
        assert_eq!(published().await.matches("kid").count(), 2);
        let (token, _) = issue::issue(&gateway).await;
        assert_eq!((issue::uses(&gateway, &of_old).await, issue::uses(&gateway, &token).await), (200, 200));
    }
    let (of_new, _) = issue::issue(&gateway).await;
    assert_eq!(gateway.reload(&document(&["new"])).await.status, 200);
    assert_eq!((issue::uses(&gateway, &of_old).await, issue::uses(&gateway, &of_new).await), (401, 200));
    for (keys, told) in [(&["old.pub"][..], "the first key is to sign"), (&["none"], "cannot be read")] {
        let refused = gateway.reload(&document(keys)).await;
        assert!(refused.body.contains(told), "{}", refused.body);
    }
    assert_eq!(issue::uses(&gateway, &of_new).await, 200);
}

#[tokio::test]
async fn gateways_with_one_redis_tell_each_other_what_was_taken_back() {
    let (scratch, origin, redis) = (Scratch::new(), Origin::start(Reply::ok("x")).await, Peer::redis().await);
    let key = scratch.file("key").display().to_string();
    openssl(&["genpkey", "-algorithm", "ED25519", "-out", &key]).await;
    let server = format!("redis://{}?timeout=5s", redis.address());
    let more = format!(", keys = [{{ file = \"{key}\" }}], shared = \"{server}\"");
    // Two machines: a directory for each, one key for both; and a third one that only checks.
    let directory = |name: &str| scratch.file(name).display().to_string();
    let one = Gateway::start(&issue::with(&directory("one"), &origin, &more)).await;
    let other = Gateway::start(&issue::with(&directory("other"), &origin, &more)).await;
    let jwks = format!("jwks = \"http://{}/oauth/keys\", revocations = \"{server}\"", one.address("web"));
    let third = Lines { route: &route(&jwks), ..Lines::default() }.start(&[origin.address()]).await;
    let (token, refresh) = issue::issue(&one).await;
    for gateway in [&one, &other, &third] {
        assert_eq!(issue::uses(gateway, &token).await, 200);
    }
    let renew = format!("grant_type=refresh_token&refresh_token={refresh}");
    assert_eq!(issue::give(&other, "/oauth/tokens", &renew).await, 200);
    assert_eq!(issue::give(&one, "/oauth/tokens", &renew).await, 400, "it is of use once, anywhere");
    assert_eq!(issue::give(&one, "/oauth/revoke", &format!("token={token}")).await, 200);
    assert_eq!(issue::uses(&one, &token).await, 401);
    for gateway in [&other, &third] {
        let refused = async || (issue::uses(gateway, &token).await == 401).then_some(());
        sluice_testkit::eventually("the others to hear of it", refused).await;
    }
    let mut wire = Wire::connect(redis.address()).await;
    wire.send("EVAL \"local k = redis.call('KEYS', 'sluice:revoked:*') local n = 0 for _, one in ipairs(k) do if redis.call('TTL', one) > 0 then n = n + 1 end end return n\" 0\r\n").await.expect(":2\r\n").await;
    // Without Redis nobody knows: nobody is let in, and nothing is said to be taken back.
    let (another, _) = issue::issue(&other).await;
    drop(redis);
    let missed = async || (issue::uses(&third, &another).await == 503).then_some(());
    sluice_testkit::eventually("Redis to be missed", missed).await;
    assert_eq!(issue::give(&other, "/oauth/revoke", &format!("token={another}")).await, 503);
}
