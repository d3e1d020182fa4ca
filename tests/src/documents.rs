//! Documents at the command line: three formats, variables, every problem with its place.

use sluice_testkit::{Scratch, sluice};

#[tokio::test]
async fn the_three_formats_accept_the_same_document() {
    let toml =
        "[listeners.web]\naddress = \"127.0.0.1:0\"\n[[routes]]\nname = \"a\"\nrespond = { status = 204 }\n";
    let yaml =
        "listeners:\n  web:\n    address: 127.0.0.1:0\nroutes:\n  - name: a\n    respond: { status: 204 }\n";
    let json =
        r#"{"listeners":{"web":{"address":"127.0.0.1:0"}},"routes":[{"name":"a","respond":{"status":204}}]}"#;
    let scratch = Scratch::new();
    for (name, text) in [("a.toml", toml), ("a.yaml", yaml), ("a.json", json)] {
        let path = scratch.write(name, text).display().to_string();
        let ended = sluice(["check", &path]).finish().await;
        assert_eq!(ended.code(), 0, "{name}\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn r3_an_unknown_key_is_a_problem_with_its_line_in_every_format() {
    let scratch = Scratch::new();
    let cases = [
        ("a.toml", "[listeners.web]\naddress = \"127.0.0.1:0\"\nadress = 1\n", "a.toml:3:1"),
        ("a.yaml", "listeners:\n  web:\n    address: 127.0.0.1:0\n    adress: 1\n", "a.yaml:4:5"),
        (
            "a.json",
            "{\"listeners\":\n {\"web\": {\"address\": \"127.0.0.1:0\",\n  \"adress\": 1}}}",
            "a.json:3:3",
        ),
    ];
    for (name, text, place) in cases {
        let path = scratch.write(name, text).display().to_string();
        let ended = sluice(["check", &path]).finish().await;
        assert_eq!(ended.code(), 78, "{name}");
        assert!(ended.stderr.contains(place), "{name}: {place} is not in\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn variables_and_files_are_filled_in() {
    let scratch = Scratch::new();
    scratch.write("body.txt", "from a file");
    let text = "[listeners.web]\naddress = \"127.0.0.1:${PORT:-0}\"\n[[routes]]\nname = \"a\"\n\
                respond = { body = \"${file:body.txt}\" }\n";
    let path = scratch.write("a.toml", text).display().to_string();
    assert_eq!(sluice(["check", &path]).finish().await.code(), 0);
    let ended = sluice(["check", &path]).environment("PORT", "no port").finish().await;
    assert_eq!(ended.code(), 78, "{}", ended.stderr);
}
