//! Golden documents: each file under `golden/*/good` reads into the document written beside it, each under
//! `golden/*/bad` gives exactly the report written beside it.
//!
//! `UPDATE_GOLDEN=1 cargo test -p sluice-proxy --test golden` writes the files anew; read the difference.
//! `golden/document` holds real configurations, `golden/shapes` a type with every construct serde knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sluice_proxy::config::document::Document;
use sluice_proxy::config::{Environment, Format, Loaded, Report, Source, Style, load_as, schema, show};
use sluice_proxy::problem::{At, Problems};
use sluice_proxy::value::{ByteSize, Network, Period, Ratio};

/// Every construct that a document's types may use.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Shapes {
    name: String,
    count: Option<u32>,
    small: Option<u8>,
    signed: Option<i32>,
    flag: bool,
    share: Option<Ratio>,
    wait: Option<Period>,
    size: Option<ByteSize>,
    networks: Vec<Network>,
    #[schemars(length(min = 1), inner(regex(pattern = "^[A-Z]+$")))]
    methods: Option<Vec<String>>,
    mode: Mode,
    plain: Option<Undocumented>,
    steps: Vec<Stage>,
    endpoints: Vec<Endpoint>,
    hosts: Option<OneOrMany>,
    groups: BTreeMap<String, Group>,
    labels: BTreeMap<String, String>,
    source: Option<Tagged>,
    when: Option<Condition>,
    moment: Option<String>,
    address: Option<std::net::IpAddr>,
}

/// Documented unit variants.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// First.
    #[default]
    RoundRobin,
    /// Second.
    LeastRequests,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Undocumented {
    Red,
    Green,
}

/// Externally tagged, with a unit variant.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Stage {
    /// A struct.
    Cors(Cors),
    /// Fields.
    Limit {
        /// How many.
        burst: u32,
    },
    /// Nothing.
    Compress,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cors {
    origins: Vec<String>,
    #[serde(default)]
    credentials: bool,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Endpoint {
    Address(String),
    Table(EndpointTable),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointTable {
    address: String,
    #[serde(default)]
    weight: u16,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Group {
    size: u16,
    #[serde(default)]
    inner: Option<Inner>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inner {
    key: String,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Tagged {
    Dns { name: String },
    File { path: String },
}

/// Holds itself.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Condition {
    Path(String),
    All(Vec<Condition>),
    Not(Box<Condition>),
}

struct Fixed;

impl Environment for Fixed {
    fn var(&self, name: &str) -> Option<String> {
        match name {
            "COUNT" => Some("3".to_owned()),
            "HOST" => Some("shop.example".to_owned()),
            "WORD" => Some("many".to_owned()),
            "YES" => Some("true".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        match path {
            "number.txt" => Ok("4242".to_owned()),
            "tag.txt" => Ok("cors".to_owned()),
            "secret.txt" => Ok("hunter2-secret\n".to_owned()),
            _ => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such file")),
        }
    }
}

fn read<T: DeserializeOwned + JsonSchema>(name: &str, bytes: Vec<u8>) -> Result<Loaded<T>, Report> {
    let format = Format::of_path(Path::new(name)).expect("the extension names a language");
    let source = Source::from_bytes(name, bytes, format)?;
    load_as(&source, &Fixed)
}

/// The documents of a folder: all its files but the expected texts.
fn documents(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let entries = std::fs::read_dir(&folder).expect("the folder of golden files");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| Format::of_path(path).is_some());
    paths.sort();
    assert!(!paths.is_empty(), "no golden files in {}", folder.display());
    paths
}

fn compare(path: &Path, found: &str, wrong: &mut Vec<String>) {
    let beside = PathBuf::from(format!("{}.txt", path.display()));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&beside, found).expect("written");
        return;
    }
    let expected = std::fs::read_to_string(&beside).unwrap_or_default();
    if expected != found {
        wrong.push(format!("{}\n--- expected\n{expected}\n--- found\n{found}", path.display()));
    }
}

fn run<T: DeserializeOwned + Serialize + JsonSchema>(folder: &str) {
    let mut wrong = Vec::new();
    for path in documents(&format!("{folder}/good")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        match read::<T>(name, std::fs::read(&path).expect("readable")) {
            Ok(loaded) => {
                let json = serde_json::to_string_pretty(&loaded.document).expect("json") + "\n";
                compare(&path, &json, &mut wrong);
                shown_again::<T>(&loaded, &json);
            }
            Err(report) => wrong.push(format!("{}\n{}", path.display(), report.render(Style::Plain))),
        }
    }
    for path in documents(&format!("{folder}/bad")) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        match read::<T>(name, std::fs::read(&path).expect("readable")) {
            Ok(_) => wrong.push(format!("{} was accepted", path.display())),
            Err(report) => {
                let text = report.render(Style::Plain);
                let json = report.to_json().to_string();
                for secret in ["hunter2", "4242"] {
                    assert!(!text.contains(secret) && !json.contains(secret), "a secret shows:\n{text}");
                }
                compare(&path, &text, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A document written in each language reads back as itself.
fn shown_again<T: DeserializeOwned + Serialize + JsonSchema>(loaded: &Loaded<T>, json: &str) {
    for (format, name) in [(Format::Toml, "a.toml"), (Format::Yaml, "a.yaml"), (Format::Json, "a.json")] {
        let text = show(&loaded.document, format).expect("shown");
        // What stands in the document is text by now: it is not filled in again.
        let text = text.replace("${", "$${");
        let again = read::<T>(name, text.clone().into_bytes());
        let again = again.unwrap_or_else(|report| panic!("{}\n{text}", report.render(Style::Plain)));
        assert_eq!(serde_json::to_string_pretty(&again.document).expect("json") + "\n", json, "{text}");
    }
}

#[test]
fn documents_read_or_report_as_recorded() {
    run::<Document>("document");
}

#[test]
fn every_construct_reads_or_reports_as_recorded() {
    run::<Shapes>("shapes");
}

#[test]
fn the_three_languages_say_the_same() {
    let toml =
        "name = \"a\"\ncount = 3\nflag = true\n[groups.x]\nsize = 1\n[[steps]]\ncors = {origins = ['*']}\n";
    let yaml =
        "name: a\ncount: 3\nflag: true\ngroups:\n  x: {size: 1}\nsteps:\n- cors:\n    origins: ['*']\n";
    let json = r#"{"name":"a","count":3,"flag":true,"groups":{"x":{"size":1}},"steps":[{"cors":{"origins":["*"]}}]}"#;
    let read = |name: &str, text: &str| {
        let loaded = read::<Shapes>(name, text.as_bytes().to_vec()).expect("accepted");
        serde_json::to_value(loaded.document).expect("json")
    };
    assert_eq!(read("a.toml", toml), read("a.json", json));
    assert_eq!(read("a.yaml", yaml), read("a.json", json));
}

#[test]
fn a_later_check_gets_places_and_hides_secrets() {
    let text = "name = \"${file:secret.txt}\"\nmoment = \"a && b\"\n";
    let loaded = read::<Shapes>("a.toml", text.as_bytes().to_vec()).expect("accepted");
    assert_eq!(loaded.document.name, "hunter2-secret");
    let mut problems = Problems::new();
    problems.add(&At::root().key("moment"), "bad operator").part(2..4);
    problems.add(&At::root().key("name"), "no `hunter2` here").hint("hunter2-secret");
    problems.add(&At::root(), "two are called hunter2-secret");
    let report = loaded.report(&problems);
    let expected = "\
a.toml:1:1: two are called ${file:...}
1 | name = \"${file:secret.txt}\"
  | ^

a.toml:1:8: the value of \"${file:secret.txt}\" is not accepted here
1 | name = \"${file:secret.txt}\"
  |        ^^^^^^^^^^^^^^^^^^^^
hint: its text is not shown because it comes from a file

a.toml:2:13: bad operator
2 | moment = \"a && b\"
  |             ^^
";
    assert_eq!(report.render(Style::Plain), expected);
    let shown = loaded.show(Format::Toml).expect("shown");
    assert!(shown.contains("name = \"${file:secret.txt}\"") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_report_is_a_list_for_programs() {
    let report = read::<Shapes>("a.toml", b"nam = 1".to_vec()).expect_err("refused");
    assert_eq!(
        report.to_json(),
        serde_json::json!([{
            "file": "a.toml", "line": 1, "column": 1, "path": "nam",
            "message": "unknown key `nam`", "hint": "did you mean `name`?",
        }])
    );
    assert_eq!((report.len(), report.is_empty()), (1, false));
}

#[test]
fn the_schema_names_itself_and_knows_the_document() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["$id"].is_string() && schema["title"].is_string());
    assert!(schema["properties"]["listeners"].is_object());
}

#[test]
fn deep_documents_are_refused_not_followed() {
    let deep = 20_000;
    for (name, text) in [
        ("a.toml", format!("a = {}", "[".repeat(deep))),
        ("b.toml", format!("a = {}1{}", "[".repeat(70), "]".repeat(70))),
        ("c.toml", format!("[{}b]", "a.".repeat(75))),
        ("d.toml", format!("{}b = 1", "a.".repeat(75))),
        ("a.yaml", "[".repeat(deep)),
        ("b.yaml", (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect()),
        ("c.yaml", format!("{}a", "- ".repeat(deep))),
        ("a.json", format!("{}{}", "[".repeat(deep), "]".repeat(deep))),
        ("b.json", format!("{}1{}", "{\"a\":".repeat(70), "}".repeat(70))),
    ] {
        let report =
            read::<Shapes>(name, text.into_bytes()).err().unwrap_or_else(|| panic!("{name} accepted"));
        assert!(!report.is_empty(), "{name}");
    }
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let last = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![last; 10].join(", "));
    }
    let report = read::<Shapes>("a.yaml", text.into_bytes()).expect_err("refused");
    assert!(report.render(Style::Plain).contains("aliases repeat more than"));
}

#[test]
fn a_large_document_with_a_problem_each_line_is_reported_whole() {
    let text: String = (0..20_000).map(|line| format!("unknown{line} = 1\n")).collect();
    let report = read::<Shapes>("a.toml", text.into_bytes()).expect_err("refused");
    assert_eq!(report.len(), 20_000);
    assert!(report.render(Style::Plain).contains("a.toml:20000:1: unknown key `unknown19999`"));
}

/// Text near enough to documents to get past the first character.
fn document_like() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "name",
        "steps",
        "cors",
        "groups",
        "when",
        "all",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ":",
        ": ",
        ",",
        "\n",
        "\n  ",
        "\t",
        " ",
        "\"",
        "'",
        "'''",
        "\"\"\"",
        "\\",
        "\\u",
        "- ",
        "? ",
        "|",
        ">",
        "&a ",
        "*a",
        "!!str ",
        "<<",
        "%YAML",
        "---\n",
        "...",
        "#",
        "1",
        "-",
        "0x",
        "1e999",
        ".inf",
        "nan",
        "null",
        "true",
        "${",
        "${A}",
        "${A:-1}",
        "${file:x}",
        "$${",
        "é",
        "\u{feff}",
        "\r\n",
        "\u{2028}",
        "\0",
        "🦀",
        ".",
        "2020-01-01",
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

fn survives(bytes: &[u8]) {
    for name in ["a.toml", "a.yaml", "a.json"] {
        if let Err(report) = read::<Shapes>(name, bytes.to_vec()) {
            assert!(!report.is_empty());
            report.render(Style::Plain);
            report.render(Style::Colour);
            report.to_json();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&bytes);
    }

    #[test]
    fn no_text_does_harm(text in document_like()) {
        survives(text.as_bytes());
    }

    #[test]
    fn a_broken_document_does_no_harm(cut in 0usize..400, byte in any::<u8>(), change in 0usize..400) {
        let good = include_bytes!("golden/shapes/good/everything.toml");
        let mut bytes = good.to_vec();
        let change = change % bytes.len();
        bytes[change] = byte;
        bytes.truncate(good.len() - cut.min(good.len()));
        survives(&bytes);
    }
}
