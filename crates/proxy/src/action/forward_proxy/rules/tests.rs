//! What rules allow and deny, as tables.

use super::*;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    allow: Vec<AllowRule>,
    deny: Vec<DenyRule>,
}

fn checked(toml: &str) -> (Rules, Vec<String>) {
    let written: Written = toml_edit::de::from_str(toml).unwrap();
    let mut problems = Problems::new();
    let rules = Rules::check(&written.allow, &written.deny, &At::root(), &mut problems);
    (rules, problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message)).collect())
}

fn rules(toml: &str) -> Rules {
    let (rules, problems) = checked(toml);
    assert!(problems.is_empty(), "{toml}: {problems:?}");
    rules
}

/// "host port address" over CONNECT; the word says what comes out.
fn connect(rules: &Rules, host: &str, port: u16, address: &str) -> String {
    word(rules.decide(Destination { host, port, kind: Kind::Connect }, address.parse().unwrap()))
}

fn word(decision: Decision) -> String {
    match decision {
        Decision::Allowed(None) => "yes".to_owned(),
        Decision::Allowed(Some(rule)) => format!("allow {rule}"),
        Decision::Denied(Reason::Rule(rule)) => format!("deny {rule}"),
        Decision::Denied(Reason::Private(_)) => "private".to_owned(),
        Decision::Denied(Reason::Port) => "port".to_owned(),
        Decision::Denied(Reason::NoRule) => "no rule".to_owned(),
    }
}

#[track_caller]
fn table(toml: &str, rows: &[(&str, u16, &str, &str)]) {
    let rules = rules(toml);
    for (host, port, address, expected) in rows {
        assert_eq!(
            connect(&rules, host, *port, address),
            *expected,
            "{host}:{port} at {address} under {toml}"
        );
    }
}

#[test]
fn without_rules_what_is_public_is_allowed_on_default_ports() {
    table(
        "",
        &[
            ("a.test", 443, "1.1.1.1", "yes"),
            ("a.test", 443, "2606:4700::1", "yes"),
            ("1.1.1.1", 443, "1.1.1.1", "yes"),
            ("a.test", 22, "1.1.1.1", "port"),
            ("a.test", 25, "1.1.1.1", "port"),
            ("a.test", 80, "1.1.1.1", "port"),
            ("a.test", 443, "10.0.0.1", "private"),
            ("localhost", 443, "127.0.0.1", "private"),
            ("[::1]", 443, "::1", "private"),
            ("a.test", 443, "::ffff:127.0.0.1", "private"),
            ("a.test", 443, "64:ff9b::10.0.0.1", "private"),
            ("a.test", 443, "169.254.169.254", "private"),
        ],
    );
    let plain = |port| {
        let to = Destination { host: "a.test", port, kind: Kind::Plain };
        word(rules("").decide(to, "1.1.1.1".parse().unwrap()))
    };
    for (port, expected) in
        [(80, "yes"), (8080, "yes"), (1024, "yes"), (65535, "yes"), (443, "port"), (25, "port")]
    {
        assert_eq!(plain(port), expected, "{port}");
    }
}

#[test]
fn a_rule_applies_where_all_its_parts_do() {
    table(
        "[[allow]]\nhosts = ['*.example.org', 'example.net']\nports = [443, '8000-8001']\nnetworks = ['1.0.0.0/8']",
        &[
            ("a.example.org", 443, "1.2.3.4", "allow 0"),
            ("A.b.EXAMPLE.org.", 8001, "1.2.3.4", "allow 0"),
            ("example.net", 8000, "1.2.3.4", "allow 0"),
            ("example.org", 443, "1.2.3.4", "no rule"),
            ("aexample.org", 443, "1.2.3.4", "no rule"),
            ("a.example.net", 443, "1.2.3.4", "no rule"),
            ("example.net", 8002, "1.2.3.4", "no rule"),
            ("example.net", 443, "2.2.3.4", "no rule"),
        ],
    );
}

#[test]
fn a_rule_without_ports_means_the_default_ones() {
    table(
        "[[allow]]\nhosts = ['a.test']\n[[allow]]\nports = [22]",
        &[
            ("a.test", 443, "1.1.1.1", "allow 0"),
            ("a.test", 22, "1.1.1.1", "allow 1"),
            ("a.test", 25, "1.1.1.1", "port"),
            ("b.test", 443, "1.1.1.1", "no rule"),
        ],
    );
}

#[test]
fn denials_come_first_and_see_every_form_of_an_address() {
    table(
        "[[deny]]\nnetworks = ['1.1.0.0/16']\n[[deny]]\nhosts = ['*.bad.test', '9.9.9.9']\n[[deny]]\nhosts = ['half.test']\nports = [444]\n\
         [[allow]]\nports = ['1-65535']",
        &[
            ("a.test", 443, "1.1.2.3", "deny 0"),
            ("a.test", 443, "::ffff:1.1.2.3", "deny 0"),
            ("a.test", 443, "64:ff9b::1.1.2.3", "deny 0"),
            ("a.test", 443, "2002:101:203::1", "deny 0"),
            ("x.bad.test", 443, "8.8.8.8", "deny 1"),
            ("9.9.9.9", 443, "9.9.9.9", "deny 1"),
            ("hides-it.test", 443, "9.9.9.9", "deny 1"),
            ("half.test", 443, "8.8.8.8", "allow 0"),
            ("half.test", 444, "8.8.8.8", "deny 2"),
        ],
    );
}

#[test]
fn a_name_alone_opens_no_private_address() {
    table(
        "[[allow]]\nhosts = ['localhost', 'a.test', '*']",
        &[
            ("localhost", 443, "127.0.0.1", "private"),
            ("a.test", 443, "10.0.0.1", "private"),
            ("a.test", 443, "1.1.1.1", "allow 0"),
            ("10.0.0.1", 443, "10.0.0.1", "private"),
        ],
    );
}

#[test]
fn networks_private_and_literal_addresses_open_private_addresses() {
    table(
        "[[allow]]\nhosts = ['localhost']\nnetworks = ['127.0.0.0/8', '::1']\n\
         [[allow]]\nhosts = ['in.test']\nprivate = true\n\
         [[allow]]\nhosts = ['10.0.0.7']\n\
         [[allow]]\nnetworks = ['10.1.0.0/16']",
        &[
            ("localhost", 443, "127.0.0.1", "allow 0"),
            ("localhost", 443, "::1", "allow 0"),
            ("localhost", 443, "10.0.0.1", "no rule"),
            ("in.test", 443, "169.254.169.254", "allow 1"),
            ("out.test", 443, "169.254.169.254", "no rule"),
            ("10.0.0.7", 443, "10.0.0.7", "allow 2"),
            ("rebound.test", 443, "10.0.0.7", "no rule"),
            ("any.test", 443, "10.1.2.3", "allow 3"),
            ("any.test", 443, "64:ff9b::10.1.2.3", "no rule"),
        ],
    );
}

#[test]
fn a_network_wider_than_a_special_range_does_not_open_it() {
    table(
        "[[allow]]\nnetworks = ['0.0.0.0/0', '::/0']",
        &[
            ("a.test", 443, "1.1.1.1", "allow 0"),
            ("a.test", 443, "10.0.0.1", "private"),
            ("a.test", 443, "127.0.0.1", "private"),
            ("a.test", 443, "fd00::1", "private"),
            ("a.test", 443, "::1", "private"),
            ("a.test", 443, "64:ff9b::127.0.0.1", "private"),
        ],
    );
}

#[test]
fn a_name_is_denied_before_it_is_looked_up_where_no_address_could_help() {
    let rules = rules(
        "[[deny]]\nhosts = ['bad.test']\n[[deny]]\nnetworks = ['1.0.0.0/8']\n\
         [[allow]]\nhosts = ['*.test']\nnetworks = ['2.0.0.0/8']",
    );
    let name = |host, port| word(rules.decide_name(Destination { host, port, kind: Kind::Connect }));
    assert_eq!(name("a.test", 443), "allow 0");
    assert_eq!(name("bad.test", 443), "deny 0");
    assert_eq!(name("a.example", 443), "no rule");
    assert_eq!(name("a.test", 22), "port");
    assert_eq!(name("1.2.3.4", 443), "deny 1");
    assert!(rules.need_addresses() && !checked("").0.need_addresses());
}

#[test]
fn what_is_known_of_a_name_is_explained() {
    let rules = rules(
        "[[deny]]\nnetworks = ['1.0.0.0/8']\n[[allow]]\nnetworks = ['127.0.0.0/8']\n[[allow]]\nhosts = ['a.test']",
    );
    let explain = |host| rules.explain_name(Destination { host, port: 443, kind: Kind::Connect });
    assert_eq!(explain("a.test"), "allowed by allow[1]; its address may change that: deny[0], allow[0]");
    assert_eq!(
        explain("b.test"),
        "denied: no allow rule applies; its address may change that: deny[0], allow[0]"
    );
}

#[test]
fn wrong_rules_are_problems_with_a_place() {
    let (_, problems) = checked(
        "[[allow]]\nhosts = ['a b', 'ok.test', '*.', 'http://x']\nports = [0, '9-8', 'x', '1-70000', '+1-2']\n\
         [[deny]]\nhosts = ['']",
    );
    let places: Vec<_> = problems.iter().map(|text| text.split(':').next().unwrap()).collect();
    let expected = [
        "deny[0].hosts[0]",
        "allow[0].hosts[0]",
        "allow[0].hosts[2]",
        "allow[0].hosts[3]",
        "allow[0].ports[0]",
        "allow[0].ports[1]",
        "allow[0].ports[2]",
        "allow[0].ports[3]",
        "allow[0].ports[4]",
    ];
    assert_eq!(places, expected);
}
