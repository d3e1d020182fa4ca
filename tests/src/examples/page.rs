//! The page of an example: its commands, and what each line says will come of it.
//!
//! In blocks of `sh`, a line is a command, then two spaces, `# ` and clauses between `; `:
//!
//! | clause | |
//! |---|---|
//! | `200` | the status |
//! | `from NAME` | the upstream, or the endpoint by its address in the document |
//! | `same endpoint` | as the answer before |
//! | `it sees GET /x` | the request line of the endpoint, without the version |
//! | `it sees NAME: VALUE` | a field of the request that the endpoint gets |
//! | `has NAME: VALUE` | a field of the answer that contains the value |
//! | `answers TEXT` | the body contains it |
//! | `says TEXT` | the output of a command contains it |
//!
//! `NAME=value` sets a variable, which later lines use as `$NAME`; so does `NAME=$(curl ... | jq -r .key)` to a text of
//! an answer in JSON, and `NAME=$(curl ... -w '%header{name}')` to a field of it. `redis-cli` talks to a Redis server
//! that the test starts for a page that has a line with `redis-server`.
//!
//! What follows in brackets is for people. A line that is not understood fails the test.

/// A command of a page.
pub(super) enum Command {
    Curl(Curl),
    /// What only curl itself can do: TLS, HTTP/2.
    RealCurl(Vec<String>),
    /// A datagram that nc sends to this port.
    Datagram {
        text: String,
        port: String,
    },
    Grep {
        text: String,
        file: String,
    },
    Sluice(Vec<String>),
    Redis(Vec<String>),
    /// Done by the test before.
    Started,
}

/// A variable's value.
pub(super) enum Value {
    Text(String),
    /// This key of an answer in JSON.
    Key(Curl, String),
    /// This field of an answer.
    Field(Curl, String),
}

/// A request as a curl command line.
#[derive(Default)]
pub(super) struct Curl {
    pub(super) method: String,
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
    /// The proxy it goes through.
    pub(super) proxy: Option<String>,
    /// Cookie jars.
    pub(super) reads: Option<String>,
    pub(super) writes: Option<String>,
}

/// What a line says will come of it.
pub(super) enum Expected {
    Status(u16),
    From(String),
    SameEndpoint,
    Sees(String),
    SeesField(String, String),
    Has(String, String),
    Answers(String),
    Says(String),
}

/// The lines of all `sh` blocks.
pub(super) fn commands(page: &str) -> Vec<&str> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter(|line| !line.trim().is_empty()).collect()
}

/// The words of the command, and the clauses behind it.
pub(super) fn split(line: &str) -> (Vec<String>, Vec<Expected>) {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut rest = "";
    for (at, letter) in line.char_indices() {
        match letter {
            '\'' | '"' if quote == Some(letter) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            '#' if quote.is_none() && words.last().is_some_and(String::is_empty) => {
                rest = &line[at + 1..];
                break;
            }
            ' ' if quote.is_none() && words.last().is_some_and(String::is_empty) => {}
            ' ' if quote.is_none() => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    assert!(quote.is_none(), "{line}: a quote is open");
    words.retain(|word| !word.is_empty());
    let remark = rest.find(" (").unwrap_or(rest.len());
    let clauses = rest[..remark].split("; ").map(str::trim).filter(|clause| !clause.is_empty());
    (words, clauses.map(|clause| expected(line, clause)).collect())
}

fn expected(line: &str, clause: &str) -> Expected {
    let field = |text: &str| {
        let (name, value) = text.split_once(':').unwrap_or_else(|| panic!("{line}: no field in {clause:?}"));
        (name.to_owned(), value.trim().to_owned())
    };
    if let Ok(status) = clause.parse() {
        return Expected::Status(status);
    }
    if clause == "same endpoint" {
        return Expected::SameEndpoint;
    }
    for (word, make) in [
        ("from ", Expected::From as fn(String) -> Expected),
        ("answers ", Expected::Answers),
        ("says ", Expected::Says),
    ] {
        if let Some(text) = clause.strip_prefix(word) {
            return make(text.to_owned());
        }
    }
    if let Some(text) = clause.strip_prefix("has ") {
        let (name, value) = field(text);
        return Expected::Has(name, value);
    }
    match clause.strip_prefix("it sees ") {
        Some(text) if text.contains(": ") => {
            let (name, value) = field(text);
            Expected::SeesField(name, value)
        }
        Some(text) => Expected::Sees(text.to_owned()),
        None => panic!("{line}: {clause:?} is not understood"),
    }
}

/// The variable that a line sets, and to what; `filled` puts in those that are known.
pub(super) fn variable(line: &str, filled: &dyn Fn(&str) -> String) -> Option<(String, Value)> {
    let (name, value) = line.split_once('=')?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let words = |text: &str| split(text).0.iter().map(|word| filled(word)).collect::<Vec<_>>();
    let Some(inner) = value.strip_prefix("$(curl ").and_then(|rest| rest.trim_end().strip_suffix(')')) else {
        return Some((name.to_owned(), Value::Text(words(value).concat())));
    };
    if let Some((asked, key)) = inner.split_once(" | jq -r .") {
        return Some((name.to_owned(), Value::Key(curl(&words(asked)), key.to_owned())));
    }
    let mut asked = words(inner);
    let place =
        asked.iter().position(|word| word == "-w").unwrap_or_else(|| panic!("{line}: nothing is kept"));
    let field = asked.drain(place..place + 2).next_back().unwrap();
    let field = field.strip_prefix("%header{").and_then(|field| field.strip_suffix('}'));
    Some((name.to_owned(), Value::Field(curl(&asked), field.expect(line).to_owned())))
}

/// What the words of a line ask for.
pub(super) fn command(words: &[String]) -> Command {
    match words {
        [program, rest @ ..] if program == "curl" && rest.iter().any(|word| needs_curl(word)) => {
            Command::RealCurl(rest.to_vec())
        }
        [program, rest @ ..] if program == "curl" => Command::Curl(curl(rest)),
        [program, rest @ ..] if program == "redis-cli" => Command::Redis(rest.to_vec()),
        [program, ..] if program == "redis-server" => Command::Started,
        [program, rest @ ..] if program == "sluice" && !rest.is_empty() => Command::Sluice(rest.to_vec()),
        [program, fixed, text, file] if program == "grep" && fixed == "-F" => {
            Command::Grep { text: text.clone(), file: file.clone() }
        }
        [echo, text, pipe, nc, udp, wait, _, port] if [echo, pipe, nc, udp, wait] == NC => {
            Command::Datagram { text: text.clone(), port: port.clone() }
        }
        _ => panic!("{words:?} is not understood"),
    }
}

const NC: [&str; 5] = ["echo", "|", "nc", "-u", "-w1"];

fn needs_curl(word: &str) -> bool {
    word.starts_with("https://") || word.starts_with("--http")
}

fn curl(words: &[String]) -> Curl {
    let mut curl = Curl { method: "GET".into(), ..Curl::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_else(|| panic!("{word} needs a value")).clone();
        match word.as_str() {
            "-i" | "-s" => {}
            "-o" => assert_eq!(next(), "/dev/null"),
            "-I" => curl.method = "HEAD".into(),
            "-X" => curl.method = next(),
            "-c" => curl.writes = Some(next()),
            "-d" => curl.body = next(),
            "-x" => curl.proxy = Some(next()),
            "-b" => match next() {
                cookies if cookies.contains('=') => curl.fields.push(("Cookie".into(), cookies)),
                jar => curl.reads = Some(jar),
            },
            "-H" => {
                let field = next();
                let (name, value) = field.split_once(": ").unwrap_or_else(|| panic!("{field:?} is no field"));
                curl.fields.push((name.into(), value.into()));
            }
            url => {
                let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url:?} is not understood"));
                let at = rest.find('/').unwrap_or_else(|| panic!("{url:?} has no path"));
                (curl.authority, curl.target) = (rest[..at].into(), rest[at..].into());
            }
        }
    }
    curl
}
