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
    let mut quoted = false;
    let mut rest = "";
    for (at, letter) in line.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '#' if !quoted && words.last().is_some_and(String::is_empty) => {
                rest = &line[at + 1..];
                break;
            }
            ' ' if !quoted && words.last().is_some_and(String::is_empty) => {}
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    assert!(!quoted, "{line}: a quote is open");
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

/// What the words of a line ask for.
pub(super) fn command(words: &[String]) -> Command {
    match words {
        [program, rest @ ..] if program == "curl" && rest.iter().any(|word| needs_curl(word)) => {
            Command::RealCurl(rest.to_vec())
        }
        [program, rest @ ..] if program == "curl" => Command::Curl(curl(rest)),
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
