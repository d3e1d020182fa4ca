//! Tokens: which are let in, which are not, and what becomes of them. Those of other kinds of keys, made by others,
//! are tested at the socket.

use jsonwebtoken::EncodingKey;
use sluice_http::NameId;

use super::*;
use crate::filter::{Shared, fixture};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn sign(header: &str, payload: &str, secret: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, token::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn hs256(payload: &str) -> String {
    sign(r#"{"alg":"HS256"}"#, payload, SECRET)
}

fn now() -> u64 {
    Clock::start().unix().as_secs()
}

fn build(toml: &str, consumers: &str) -> Result<(Jwt, Shared), Vec<String>> {
    let config: Config = toml_edit::de::from_str(toml).unwrap();
    let mut problems = Problems::new();
    let at = At::root().key("jwt");
    let mut built = Jwt::build(&config, &at, &mut problems);
    let (shared, consumers) = (Shared::new(b""), fixture::consumers(consumers));
    if let Some(filter) = &mut built {
        let loading = Loading { consumers: &consumers, ..fixture::loading(&shared) };
        filter.load(&loading, &at, &mut problems);
    }
    let told = || problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect();
    built.filter(|_| problems.is_empty()).map(|filter| (filter, shared)).ok_or_else(told)
}

fn filter(more: &str, consumers: &str) -> Jwt {
    build(&format!("secret = '{SECRET}'\n{more}"), consumers).unwrap().0
}

struct Asked {
    result: Result<(), Failure>,
    exchange: Exchange,
    request: Request,
}

async fn ask(filter: &Jwt, path: &str, fields: &[(&str, &str)]) -> Asked {
    let mut exchange = fixture::exchange(path);
    let mut request = fixture::request("GET", path);
    for (name, value) in fields {
        request.head.fields.append(&fixture::name(name), value.as_bytes());
    }
    let flow = filter.on_request(&fixture::stage().scene(), &mut exchange, &mut request).await;
    Asked { result: flow.map(|_| ()), exchange, request }
}

async fn with(filter: &Jwt, token: &str) -> Asked {
    ask(filter, "/", &[("Authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test(flavor = "local")]
async fn only_a_valid_token_lets_in() {
    let filter = filter("issuer = 'id'\naudience = ['a', 'b']\nrequire = ['exp', 'sub']\nleeway = '5s'", "");
    let soon = now() + 60;
    let claims = |more: &str| format!(r#"{{"iss":"id","aud":["x","b"],"sub":"s","exp":{soon}{more}}}"#);
    let good = claims("");
    let other = |from: &str, to: &str| hs256(&good.replace(from, to));
    let invalid = ", error=\"invalid_token\"";
    let expired = ", error=\"invalid_token\", error_description=\"The token has expired\"";
    let [header, payload, signature] =
        hs256(&good).split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let long = hs256(&claims(&format!(r#","x":"{}""#, "x".repeat(LONGEST_TOKEN))));
    for (token, challenge) in [
        (hs256(&good), None),
        (other("[\"x\",\"b\"]", "\"a\""), None),
        (other(&soon.to_string(), &format!("{}.5", now() - 4)), None),
        (other(&soon.to_string(), &(now() - 6).to_string()), Some(expired)),
        (other(&soon.to_string(), "\"soon\""), Some(invalid)),
        (other("\"id\"", "\"di\""), Some(invalid)),
        (other("\"b\"", "\"c\""), Some(invalid)),
        (other("\"sub\":\"s\",", ""), Some(invalid)),
        (other("\"sub\":\"s\"", "\"sub\":null"), Some(invalid)),
        (hs256(&claims(&format!(r#","nbf":{}"#, now() + 4))), None),
        (hs256(&claims(&format!(r#","nbf":{}"#, now() + 20))), Some(invalid)),
        (sign(r#"{"alg":"HS256"}"#, &good, "another secret, as long as it"), Some(invalid)),
        (sign(r#"{"alg":"HS384"}"#, &good, SECRET), Some(invalid)),
        (sign(r#"{"alg":"HS256","crit":["b64"]}"#, &good, SECRET), Some(invalid)),
        (sign(r#"{"alg":"none"}"#, &good, SECRET), Some(invalid)),
        (format!("{none}.{payload}."), Some(invalid)),
        (format!("{none}.{payload}.{signature}"), Some(invalid)),
        (format!("{header}.{payload}."), Some(invalid)),
        (format!("{header}.{payload}"), Some(invalid)),
        (format!("{header}.{payload}.{signature}."), Some(invalid)),
        (format!("{header}.{payload}.{signature}="), Some(invalid)),
        (hs256("[]"), Some(invalid)),
        (hs256("{"), Some(invalid)),
        (String::new(), Some("")),
        ("\u{e9}.a.b".to_owned(), Some(invalid)),
        (long, Some(invalid)),
    ] {
        // The second time it may be remembered.
        for _ in 0..2 {
            let asked = with(&filter, &token).await;
            let expected = challenge.map_or(Ok(()), |_| Err(Failure::Unauthenticated));
            assert_eq!(asked.result, expected, "{token}");
            if let Some(challenge) = challenge.filter(|challenge| !challenge.is_empty()) {
                assert_eq!(
                    &*asked.exchange.challenge,
                    format!("Bearer realm=\"restricted\"{challenge}"),
                    "{token}"
                );
            }
            assert_eq!(asked.exchange.claims.is_some(), challenge.is_none());
        }
    }
    let asked = ask(&filter, "/", &[]).await;
    assert_eq!(&*asked.exchange.challenge, "Bearer realm=\"restricted\"");
    let bearer = format!("Bearer {}", hs256(&good));
    let twice = ask(&filter, "/", &[("Authorization", &bearer), ("Authorization", &bearer)]).await;
    assert_eq!(twice.result, Err(Failure::Unauthenticated));
}

#[tokio::test(flavor = "local")]
async fn claims_go_on_in_headers_that_the_client_cannot_fill() {
    let filter = filter(
        "claims_to_headers = { X-User = 'sub', X-Roles = 'realm.roles' }\nexcept = ['/open']\nhide_credentials = true",
        "",
    );
    let token = format!("Bearer {}", hs256(&format!(r#"{{"sub":"anna","exp":{}}}"#, now() + 60)));
    let forged = [("X-User", "root"), ("x-roles", "admin"), ("Authorization", &*token)];
    let asked = ask(&filter, "/", &forged).await;
    let values = |name: &str, asked: &Asked| fixture::values(&asked.request.head.fields, name);
    assert_eq!(values("X-User", &asked), ["anna"]);
    assert!(
        values("X-Roles", &asked).is_empty() && !asked.request.head.fields.contains(NameId::Authorization)
    );
    assert_eq!(asked.exchange.claims.as_ref().and_then(|claims| claims.get("sub")), Some("anna"));
    let open = ask(&filter, "/open", &forged).await;
    assert!(open.result.is_ok() && open.exchange.claims.is_none() && values("X-User", &open).is_empty());
}

#[tokio::test(flavor = "local")]
async fn a_token_belongs_to_a_consumer() {
    let consumers =
        "[shop]\njwt = { subject = 'app-1' }\n[late]\nstatus = 'disabled'\njwt = { subject = 'app-2' }";
    let token = |issuer: &str| hs256(&format!(r#"{{"iss":"{issuer}","exp":{}}}"#, now() + 60));
    for (more, issuer, expected) in [
        ("consumer_claim = 'iss'", "app-1", Ok(Some("shop"))),
        ("consumer_claim = 'iss'", "app-2", Err(Failure::Forbidden)),
        ("consumer_claim = 'iss'", "app-3", Ok(None)),
        ("consumer_claim = 'iss'\nrequire_consumer = true", "app-3", Err(Failure::Forbidden)),
        ("require_consumer = true", "app-1", Err(Failure::Forbidden)),
    ] {
        let asked = with(&filter(more, consumers), &token(issuer)).await;
        let name = asked.exchange.consumer.as_ref().map(|one| &*one.name);
        assert_eq!(asked.result.map(|()| name), expected, "{more} {issuer}");
    }
}

#[tokio::test(flavor = "local")]
async fn a_token_that_was_taken_back_is_not_valid() {
    let (filter, shared) = build(&format!("secret = '{SECRET}'"), "").unwrap();
    let token = hs256(&format!(r#"{{"jti":"t-1","exp":{}}}"#, now() + 60));
    assert!(with(&filter, &token).await.result.is_ok());
    shared.revoked.add("t-1", now() + 60, now());
    assert_eq!(with(&filter, &token).await.result, Err(Failure::Unauthenticated));
}

#[tokio::test(flavor = "local")]
async fn an_answer_carries_a_renewed_token() {
    let filter = filter("renew = { header = 'X-Token', ttl = '1h' }", "");
    let token = hs256(&format!(r#"{{"sub":"anna","n":{{"a":[1,true]}},"exp":{}}}"#, now() + 60));
    let mut asked = with(&filter, &token).await;
    let mut response = fixture::response(200);
    filter.on_response(&mut asked.exchange, &mut response).await.unwrap();
    let renewed = fixture::values(&response.head.fields, "x-token").remove(0);
    assert!(with(&filter, &renewed).await.result.is_ok());
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(renewed.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!((&claims["sub"], &claims["n"]["a"][1]), (&"anna".into(), &true.into()));
    assert!(claims["exp"].as_u64().unwrap().abs_diff(now() + 3600) < 5);
    let mut refused = with(&filter, "x").await;
    let mut response = fixture::response(401);
    filter.on_response(&mut refused.exchange, &mut response).await.unwrap();
    assert!(fixture::values(&response.head.fields, "x-token").is_empty());
}

#[tokio::test(flavor = "local")]
async fn without_redis_or_a_key_set_nobody_comes_in() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let token = hs256(&format!(r#"{{"exp":{}}}"#, now() + 60));
    let session = filter(&format!("session = {{ redis = 'redis://127.0.0.1:{port}' }}"), "");
    assert_eq!(with(&session, &token).await.result, Err(Failure::AuthUnavailable));
    let (remote, _shared) = build(&format!("jwks = 'http://127.0.0.1:{port}/keys'"), "").unwrap();
    let es256 = sign(r#"{"alg":"ES256","kid":"k"}"#, "{}", SECRET);
    assert_eq!(with(&remote, &es256).await.result, Err(Failure::AuthUnavailable));
    assert_eq!(
        with(&remote, &token).await.result,
        Err(Failure::Unauthenticated),
        "HS256 is not even looked up"
    );
}

#[test]
fn what_is_wrong_is_told_at_its_place_without_the_secret() {
    for (toml, expected) in [
        ("", &["jwt: keys come from exactly one of secret, keys, file, jwks and directory"][..]),
        ("secret = 'top-secret'", &["jwt.secret: a secret has at least 16 bytes"]),
        ("keys = 'top-secret'", &["jwt.keys: it holds no key that could check a token"]),
        (
            "keys = '{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2hvcnQ\"},{\"kty\":\"X\"}]}'",
            &["jwt.keys: it holds no key that could check a token"],
        ),
        (
            "keys = '-----BEGIN PRIVATE KEY-----'",
            &["jwt.keys: it is a private key; tokens are checked with the public one"],
        ),
        (
            "jwks = 'id.example'",
            &["jwt.jwks: `id.example` is not a URL that can be asked: \"https://id.example/keys\""],
        ),
        (
            "jwks = 'http://a'\nalgorithms = ['HS256']\nrenew = { header = 'x', ttl = '1h' }",
            &[
                "jwt.algorithms[0]: a published key set never checks HS256, HS384 and HS512",
                "jwt.renew: a new token can only be signed with a shared `secret`",
            ],
        ),
        (
            "secret = '0123456789abcdef'\nalgorithms = ['ES256']\nrefresh = '1m'\nissuer = []\n\
             claims_to_headers = { 'a b' = 'c' }\nsession = { redis = 'x', csrf = { header = 'a b' } }",
            &[
                "jwt.refresh: `refresh` means nothing without `jwks`",
                "jwt.claims_to_headers.a b: `a b` is not a header name",
                "jwt.algorithms[0]: a secret checks HS256, HS384 and HS512",
                "jwt.issuer: an empty list or text would refuse every token",
                "jwt.session.redis: a Redis server is written \"redis://host:6379/0\", \"rediss://host:6380\" or \"unix:///run/redis.sock\"",
                "jwt.session.csrf.header: `a b` is not a header name",
            ],
        ),
    ] {
        assert_eq!(build(toml, "").unwrap_err(), expected, "{toml}");
    }
}
