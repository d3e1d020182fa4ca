//! The command line: what it prints, and its exit codes: 0, 1, 2 for misuse, 78 for a bad document.

use sluice_testkit::{Gateway, Origin, Reply, Scratch, Wire, sluice};

use crate::forward::document;

#[tokio::test]
async fn an_unknown_option_or_command_is_misuse() {
    for arguments in
        [vec!["--no-such-option"], vec!["no-such-command"], vec!["run", "--no-such-option"], vec!["proxy"]]
    {
        let ended = sluice(&arguments).finish().await;
        assert_eq!(ended.code(), 2, "{arguments:?}\n{}", ended.stderr);
        assert!(!ended.stderr.is_empty() && ended.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn version_help_completions_and_schema_print_and_end_with_0() {
    for arguments in [vec!["version"], vec!["--help"], vec!["completions", "bash"], vec!["config", "schema"]]
    {
        let ended = sluice(&arguments).finish().await;
        assert_eq!(ended.code(), 0, "{arguments:?}\n{}", ended.stderr);
        assert!(!ended.stdout.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn the_schema_is_json_and_knows_the_sections() {
    let schema = sluice(["config", "schema"]).finish().await.stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    for section in ["process", "listeners", "routes", "upstreams"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
}

#[tokio::test]
async fn check_and_run_refuse_a_bad_document_with_78_and_every_problem() {
    let scratch = Scratch::new();
    let text = "[listeners.web]\naddres = \"127.0.0.1:0\"\n\n[[routes]]\nname = \"a\"\nforward = { upstream = \"nowhere\" }\n";
    let path = scratch.write("bad.toml", text).display().to_string();
    for command in ["check", "run"] {
        let ended = sluice([command, &path]).finish().await;
        assert_eq!(ended.code(), 78, "{command}\n{}", ended.stderr);
        assert!(ended.stderr.contains("bad.toml:2:1"), "{command}: no place:\n{}", ended.stderr);
        assert!(ended.stderr.contains("address"), "{command}: no proposal:\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn check_refuses_what_a_start_refuses_in_the_same_words() {
    let scratch = Scratch::new();
    scratch.write("file", "x");
    let here = scratch.path().display();
    let route = |lines: &str| format!("[[routes]]\nname = \"a\"\nrespond = {{}}\n{lines}\n");
    let filter = |filter: &str| route(&format!("filters = [{{ {filter} }}]"));
    for (lines, told) in [
        (filter("acl = { consumers = [\"ana\"] }"), "there is no consumer `ana`"),
        (filter("forward_auth = { upstream = \"no\", path = \"/\" }"), "there is no upstream `no`"),
        (filter("api_key = {}"), "no consumer has an API key"),
        (filter(&format!("basic_auth = {{ file = \"{here}/no\" }}")), "cannot be read"),
        (filter(&format!("ip_access = {{ deny_file = \"{here}/no\" }}")), "cannot be read"),
        (filter(&format!("jwt = {{ file = \"{here}/no\" }}")), "cannot be used"),
        (filter(&format!("jwt = {{ jwks = \"https://a.example\", ca = \"{here}/no\" }}")), "cannot be read"),
        (
            filter(&format!("rate_limit = {{ rate = \"1/s\", shared = \"rediss://a?ca={here}/no\" }}")),
            "cannot be read",
        ),
        (
            format!(
                "[[routes]]\nname = \"a\"\ntoken = {{ endpoint = \"keys\", issuer = \"i\", directory = \"{here}/file/x\" }}\n"
            ),
            "it cannot be made",
        ),
        (route("") + &format!("[access_log]\npath = \"{here}/no/log\"\n"), "the access log cannot be opened"),
        (
            filter("quota = { limit = 1, period = \"day\" }")
                + &format!("[process]\nstate = \"{here}/file/x\"\n"),
            "quotas cannot be kept in",
        ),
        (route("[routes.tls]"), "unknown key"),
    ] {
        let text = format!("[listeners.web]\naddress = \"127.0.0.1:0\"\n{lines}");
        let path = scratch.write("bad.toml", &text).display().to_string();
        let checked = sluice(["check", &path]).finish().await;
        let run = sluice(["run", &path]).finish().await;
        assert_eq!((checked.code(), run.code()), (78, 78), "{text}\n{}{}", checked.stderr, run.stderr);
        assert!(checked.stderr.contains(told), "{text}\n{}", checked.stderr);
        assert_eq!(checked.stderr, run.stderr, "{text}");
    }
}

#[tokio::test]
async fn check_opens_no_socket_and_writes_no_file() {
    let (scratch, redis) = (Scratch::new(), Origin::start(Reply::ok("")).await);
    let (here, server) = (scratch.path().display().to_string(), redis.address());
    let text = format!(
        "[process]\nstate = \"{here}/state\"\n\
         [listeners.web]\naddress = \"unix:{here}/socket\"\n\
         [access_log]\npath = \"{here}/log\"\n\
         [[routes]]\nname = \"keys\"\nmatch = {{ path = \"/keys\" }}\n\
         token = {{ issuer = \"i\", directory = \"{here}/keys\" }}\n\
         [[routes]]\nname = \"all\"\nrespond = {{}}\nfilters = [\
         {{ jwt = {{ jwks = \"http://{server}/keys\" }} }}, \
         {{ rate_limit = {{ rate = \"1/s\", shared = \"redis://{server}\" }} }}, \
         {{ quota = {{ limit = 1, period = \"day\" }} }}]\n\
         [consumers.a]\napi_keys = [\"sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\"]\n"
    );
    let path = scratch.write("good.toml", &text).display().to_string();
    let ended = sluice(["check", &path]).finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let there = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(there.collect::<Vec<_>>(), ["good.toml"]);
    assert_eq!(redis.connections(), 0);
}

#[tokio::test]
async fn check_accepts_a_good_document_with_0() {
    let scratch = Scratch::new();
    let path =
        scratch.write("good.toml", document(&["127.0.0.1:9".parse().unwrap()], "")).display().to_string();
    let ended = sluice(["check", &path]).finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let ended = sluice(["run", "/nowhere/sluice.toml"]).finish().await;
    assert_ne!(ended.code(), 0);
    assert!(ended.stderr.contains("/nowhere/sluice.toml"), "{}", ended.stderr);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = Origin::start(Reply::ok("")).await;
    let scratch = Scratch::new();
    let text = document(&[taken.address()], "");
    let text = text.replacen(
        "[listeners.web]\naddress = \"127.0.0.1:0\"",
        &format!("[listeners.web]\naddress = \"{}\"", taken.address()),
        1,
    );
    let path = scratch.write("taken.toml", text).display().to_string();
    let ended = sluice(["run", &path]).finish().await;
    assert_ne!(ended.code(), 0);
    assert!(ended.stderr.contains(&taken.address().to_string()), "{}", ended.stderr);
}

#[tokio::test]
async fn explain_names_the_winner_and_the_upstream() {
    let scratch = Scratch::new();
    let text = document(&["127.0.0.1:9".parse().unwrap()], "");
    let more =
        "[[routes]]\nname = \"special\"\nmatch = { path = \"/special\" }\nrespond = { status = 200 }\n";
    let path = scratch.write("sluice.toml", text + more).display().to_string();
    for (url, route) in [("http://a.example/special", "special"), ("http://a.example/x", "all")] {
        let ended = sluice(["route", "explain", "GET", url, "--config", &path]).finish().await;
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        assert!(ended.stdout.contains(route), "{url}:\n{}", ended.stdout);
    }
}

#[tokio::test]
async fn the_start_message_names_every_listener() {
    let origin = Origin::start(Reply::ok("")).await;
    let more = "[listeners.other]\naddress = \"127.0.0.1:0\"\n";
    let gateway = Gateway::start(&(document(&[origin.address()], "") + more)).await;
    assert_ne!(gateway.address("web"), gateway.address("other"));
    Wire::connect(gateway.address("other")).await;
}
