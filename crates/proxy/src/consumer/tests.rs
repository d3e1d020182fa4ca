//! Consumers: what is checked of them, how they are found, who is turned away.

use std::collections::BTreeMap;

use super::*;
use crate::filter::fixture;
use crate::problem::{At, Problems};

const HASH: &str = "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A=";
/// Of "key".
const KEY: &str = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

fn checked(toml: &str) -> (Arc<Consumers>, Vec<String>) {
    let table: BTreeMap<String, Config> = toml_edit::de::from_str(toml).unwrap();
    let mut problems = Problems::new();
    let consumers = check(&table, &At::root().key("consumers"), &mut problems);
    (consumers, problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
}

#[test]
fn a_consumer_is_found_by_each_of_its_credentials() {
    let toml = format!(
        "[anna]\ngroups = ['gold', 'all']\napi_keys = ['{KEY}']\nbasic = {{ password = '{HASH}' }}\n\
         jwt = {{ subject = 's-1' }}\nhmac_keys = {{ k1 = '0123456789abcdef' }}\n\
         rate_limit = {{ rate = '100/s', burst = 7 }}\nquota = {{ limit = 5, period = 'day' }}\n\
         [bob]\nbasic = {{ user = 'robert', password = '{HASH}' }}\njwt = {{ issuer = 'i', subject = 's-1' }}"
    );
    let (consumers, problems) = checked(&toml);
    assert!(problems.is_empty(), "{problems:?}");
    let name = |found: Option<&Arc<Consumer>>| found.map(|one| one.name.to_string());
    let (anna, bob) = (Some("anna".to_owned()), Some("bob".to_owned()));
    assert_eq!(name(consumers.named("anna")), anna);
    assert_eq!((name(consumers.by_key(b"key")), name(consumers.by_key(b"kez"))), (anna.clone(), None));
    assert_eq!(name(consumers.by_user("robert")), bob);
    assert_eq!((name(consumers.by_user("anna")), name(consumers.by_user("bob"))), (anna.clone(), None));
    assert!(consumers.users().find("robert").is_some());
    assert_eq!(name(consumers.by_subject(Some("i"), "s-1")), bob);
    assert_eq!(name(consumers.by_subject(Some("j"), "s-1")), anna);
    assert_eq!(
        (name(consumers.by_subject(None, "s-1")), name(consumers.by_subject(None, "x"))),
        (anna.clone(), None)
    );
    let (signer, secret) = consumers.by_hmac_key("k1").unwrap();
    assert_eq!((&*signer.name, secret.bytes()), ("anna", &b"0123456789abcdef"[..]));
    assert!(consumers.has_keys() && consumers.has_hmac_keys() && consumers.has_group("all"));
    assert!(!consumers.has_group("none") && signer.is_in("gold") && &*signer.groups_text == "gold,all");
    assert_eq!(signer.rate_limit.unwrap().rate.to_string(), "100/s");
    assert_eq!(signer.quota.unwrap().period.to_string(), "day");
}

#[test]
fn a_credential_belongs_to_one_and_problems_show_none() {
    let toml = format!(
        "[anna]\napi_keys = ['{KEY}', 'top-secret']\nbasic = {{ user = 'u', password = '{HASH}' }}\n\
         jwt = {{ issuer = 'i', subject = 's' }}\nhmac_keys = {{ k = '0123456789abcdef' }}\n\
         [bob]\napi_keys = ['{KEY}']\nbasic = {{ user = 'u', password = 'top-secret' }}\n\
         jwt = {{ issuer = 'i', subject = 's' }}\nhmac_keys = {{ k = 'top-secret', 'é' = '0123456789abcdef' }}\n\
         groups = ['a', 'a', 'b,c']\nrate_limit = {{ rate = '1/s', burst = 0 }}\n\
         quota = {{ limit = 0, period = '1h' }}\nip_access = {{}}\n[\"\"]\njwt = {{ subject = '' }}"
    );
    let (_, problems) = checked(&toml);
    assert_eq!(
        problems,
        [
            "consumers.: a consumer's name has 1 to 128 bytes that can be printed",
            "consumers..jwt.subject: an empty subject is nobody's",
            "consumers.anna.api_keys[1]: an API key's hash is \"sha256:\" and 64 hexadecimal digits; `sluice make-key` makes one",
            "consumers.bob.groups[1]: group `a` stands here twice",
            "consumers.bob.groups[2]: a group's name is empty, or has a comma or control characters in it",
            "consumers.bob.rate_limit.burst: with a burst of zero nothing would be let through",
            "consumers.bob.quota.limit: with a quota of zero nothing would be let through",
            "consumers.bob.ip_access: it allows everybody",
            "consumers.bob.api_keys[0]: consumer `anna` has this API key already",
            "consumers.bob.basic.user: user `u` stands here or elsewhere already",
            "consumers.bob.jwt.subject: consumer `anna` has this subject of the same issuer already",
            "consumers.bob.hmac_keys.k: a secret that requests are signed with has at least 16 bytes",
            "consumers.bob.hmac_keys.k: consumer `anna` has key id `k` already",
            "consumers.bob.hmac_keys.é: a key id has printable ASCII characters only, and no quotes",
        ]
    );
}

#[test]
fn who_is_disabled_or_comes_from_a_wrong_address_is_turned_away_and_noted() {
    let consumers = fixture::consumers(
        "[anna]\n[bob]\nstatus = 'disabled'\n[carl]\nip_access = { allow = ['10.0.0.0/8'] }\n\
         [dora]\nip_access = { deny = ['192.0.2.7'] }\n[eve]\nip_access = { allow = ['192.0.2.0/24'], deny = ['10.0.0.1'] }",
    );
    for (name, expected) in [
        ("anna", Ok(())),
        ("bob", Err(Failure::Forbidden)),
        ("carl", Err(Failure::Forbidden)),
        ("dora", Err(Failure::Forbidden)),
        ("eve", Ok(())),
    ] {
        // It comes from 192.0.2.7.
        let mut exchange = fixture::exchange("/");
        assert_eq!(identify(&mut exchange, consumers.named(name).unwrap()), expected, "{name}");
        assert_eq!(exchange.consumer.map(|one| one.name.to_string()).as_deref(), Some(name));
    }
}

#[test]
fn two_filters_must_agree_on_who_is_asking() {
    let consumers = fixture::consumers("[anna]\n[bob]");
    let (anna, bob) = (consumers.named("anna").unwrap(), consumers.named("bob").unwrap());
    let mut exchange = fixture::exchange("/");
    assert_eq!(identify(&mut exchange, anna), Ok(()));
    assert_eq!(identify(&mut exchange, anna), Ok(()));
    assert_eq!(identify(&mut exchange, bob), Err(Failure::Forbidden));
}
