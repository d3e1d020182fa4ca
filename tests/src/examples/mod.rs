//! Every folder in examples/ is started, with its addresses replaced by those of the test, and what its page says
//! is done: see `page` for the words a page may use.

mod document;
mod page;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sluice_testkit::{
    Answer, Fields, Gateway, Origin, Peer, Program, Scratch, eventually, http, sluice, within,
};
use tokio::net::UdpSocket;

use crate::connect::child::Connector;
use document::Adapted;
use page::{Command, Curl, Expected, Value};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<_> =
        fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    assert!(folders.len() >= 12, "{folders:?}");
    folders
}

/// A reader who goes through one page.
struct Reader {
    gateway: Gateway,
    adapted: Adapted,
    jars: BTreeMap<String, BTreeMap<String, String>>,
    variables: BTreeMap<String, String>,
    /// The endpoint of the answer before.
    endpoint: Option<String>,
    connector: Option<Connected>,
    redis: Option<Peer>,
}

/// A connector that the page has started.
struct Connected {
    connector: Connector,
    /// Where its health endpoint is, as written.
    health: Option<String>,
    /// The services behind it answer as long as this lives.
    _origins: Vec<Origin>,
}

fn page_of(folder: &Path) -> String {
    fs::read_to_string(folder.join("README.md")).unwrap()
}

/// Whether a page wants servers of other makers beside the gateway.
fn wants_peers(page: &str) -> bool {
    page::commands(page).iter().any(|line| line.starts_with("redis-server"))
}

#[tokio::test]
async fn every_example_does_what_its_page_says() {
    for folder in folders().into_iter().filter(|folder| !wants_peers(&page_of(folder))) {
        read(&folder, None).await;
    }
}

/// Does what a page says.
async fn read(folder: &Path, redis: Option<Peer>) {
    let mut text = fs::read_to_string(folder.join("sluice.toml")).unwrap();
    if let Some(redis) = &redis {
        // A machine that is busy may take its time.
        let patient = format!("redis://{}/0?timeout=5s", redis.address());
        text = text.replace("redis://127.0.0.1:6379/0?timeout=250ms", &patient);
        text = text.replace("redis://127.0.0.1:6379", &format!("redis://{}", redis.address()));
    }
    let adapted = document::adapt(&text).await;
    let page = page_of(folder);
    let gateway = start(&page, &adapted.text).await;
    let (jars, variables) = Default::default();
    let (endpoint, connector) = (None, None);
    let mut reader = Reader { gateway, adapted, jars, variables, endpoint, connector, redis };
    let lines = page::commands(&page);
    assert!(lines.len() > 1, "{}: a page without commands", folder.display());
    for line in lines {
        reader.obey(line).await;
    }
}

/// Starts the gateway, after the commands that the page has before it does.
async fn start(page: &str, document: &str) -> Gateway {
    let scratch = Scratch::new();
    for line in page::commands(page).into_iter().take_while(|line| !line.starts_with("sluice run")) {
        let Command::Sluice(words) = page::command(&page::split(line).0) else { continue };
        let ended = sluice(words).directory(scratch.path()).finish().await;
        assert_eq!(ended.code(), 0, "{line}\n{}", ended.stderr);
    }
    let path = scratch.write("sluice.toml", document);
    Gateway::launch(&sluice(["run", &path.display().to_string()]), scratch).await
}

impl Reader {
    /// A text with the values of the variables in it.
    fn filled(&self, text: &str) -> String {
        let known = self.variables.iter();
        known.fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }

    async fn set(&mut self, line: &str, name: String, value: Value) {
        let value = match value {
            Value::Text(text) => text,
            Value::Key(curl, key) => {
                let answer = self.ask(&curl).await;
                let found = answer.json()[&key].as_str().map(str::to_owned);
                found.unwrap_or_else(|| panic!("{line}\n{}", answer.text()))
            }
            Value::Field(curl, field) => {
                let answer = self.ask(&curl).await;
                answer.field(&field).unwrap_or_else(|| panic!("{line}\n{}", answer.text())).to_owned()
            }
        };
        self.variables.insert(name, value);
    }

    async fn obey(&mut self, line: &str) {
        if let Some((name, value)) = page::variable(line, &|text| self.filled(text)) {
            return self.set(line, name, value).await;
        }
        let (words, expected) = page::split(line);
        let words: Vec<String> = words.iter().map(|word| self.filled(word)).collect();
        match page::command(&words) {
            Command::Started => assert!(self.redis.is_some(), "{line}: there is none"),
            Command::Redis(words) => {
                let port = self.redis.as_ref().unwrap().address().port().to_string();
                let words = [vec!["-p".to_owned(), port], words].concat();
                let ended = Program::at("redis-cli").arguments(words).finish().await;
                assert_eq!(ended.code(), 0, "{line}\n{}", ended.stderr);
                says(line, &expected, &ended.stdout);
            }
            Command::Curl(curl) => {
                let answer = self.ask(&curl).await;
                for clause in expected {
                    self.compare(line, &clause, &answer);
                }
                self.endpoint = answer.field("x-endpoint").map(str::to_owned);
            }
            Command::RealCurl(words) => {
                let answer = self.run_curl(line, words).await;
                for clause in expected {
                    self.compare(line, &clause, &answer);
                }
            }
            Command::Datagram { text, port } => {
                let listener = &self.adapted.listeners[&format!("127.0.0.1:{port}")];
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                socket.send_to(text.as_bytes(), self.gateway.address(listener)).await.unwrap();
                let mut buffer = [0; 2048];
                let length = within("a datagram", socket.recv(&mut buffer)).await.unwrap();
                for clause in expected {
                    let Expected::Says(expected) = clause else { panic!("{line}: only `says` fits here") };
                    assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected, "{line}");
                }
            }
            // Done before the gateway was started.
            Command::Sluice(words) if words[0] == "cert" => {}
            Command::Grep { text, file } => {
                let path = self.gateway.scratch().file(&file);
                let found =
                    async || fs::read_to_string(&path).is_ok_and(|lines| lines.contains(&text)).then_some(());
                eventually(line, found).await;
            }
            Command::Sluice(words) if words[0] == "run" => {
                assert!(root().join(&words[1]).is_file(), "{line}: there is no such file");
            }
            Command::Sluice(words) if words[0] == "connect" => self.connect(&words[1]).await,
            Command::Sluice(mut words) => {
                if words[0] == "reload" || words[0] == "status" {
                    words.extend(["--admin".into(), self.gateway.admin().to_string()]);
                }
                let ended = sluice(words).directory(root()).finish().await;
                assert_eq!(ended.code(), 0, "{line}\n{}", ended.stderr);
                says(line, &expected, &ended.stdout);
            }
        }
    }

    /// Starts the connector of this file, and waits until its services are published.
    async fn connect(&mut self, file: &str) {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let gateway = self.gateway.address("tunnels");
        let (text, origins, health) = document::adapt_connector(&text, gateway).await;
        let scratch = Scratch::new();
        let path = scratch.write("connector.toml", text).display().to_string();
        let connector = Connector::of(Gateway::launch(&sluice(["connect", &path]), scratch).await);
        connector.wait("up").await;
        self.connector = Some(Connected { connector, health, _origins: origins });
    }

    /// Runs curl as written, but with the addresses of the test.
    async fn run_curl(&self, line: &str, words: Vec<String>) -> Answer {
        let mut words = [vec!["-s".to_owned()], words].concat();
        for (written, listener) in &self.adapted.listeners {
            let port = written.rsplit_once(':').unwrap().1;
            let to = self.gateway.address(listener);
            words.extend(["--connect-to".into(), format!(":{port}:{to}")]);
        }
        let ended =
            Program::at("curl").arguments(words).directory(self.gateway.scratch().path()).finish().await;
        assert_eq!(ended.code(), 0, "{line}\n{}", ended.stderr);
        let (head, body) = ended.stdout.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: use -i"));
        let mut lines = head.lines();
        let start = lines.next().unwrap_or_default();
        let fields = lines.filter_map(|field| field.split_once(": ")).map(|(n, v)| (n.into(), v.into()));
        Answer {
            head: head.into(),
            status: start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(),
            reason: String::new(),
            version: start.split(' ').next().unwrap_or_default().to_owned(),
            fields: Fields(fields.collect()),
            body: body.into(),
            body_on_wire: body.into(),
            trailers: Fields::default(),
        }
    }

    async fn ask(&mut self, curl: &Curl) -> Answer {
        let address = match self.adapted.listeners.get(&curl.authority) {
            Some(listener) => self.gateway.address(listener),
            None if self.adapted.admin.as_ref() == Some(&curl.authority) => self.gateway.admin(),
            None if self.connector.as_ref().is_some_and(|it| it.health.as_ref() == Some(&curl.authority)) => {
                self.connector.as_ref().unwrap().connector.health
            }
            None => panic!("nothing listens on {}", curl.authority),
        };
        let (mut address, mut target, mut authority) = (address, curl.target.clone(), curl.authority.clone());
        if let Some(proxy) = &curl.proxy {
            // Through a proxy the real address stands in the target.
            authority = address.to_string();
            target = format!("http://{authority}{target}");
            address = self.gateway.address(&self.adapted.listeners[proxy]);
        }
        let mut fields = curl.fields.clone();
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            fields.push(("Host".into(), authority));
        }
        if let Some(jar) = curl.reads.as_ref().and_then(|jar| self.jars.get(jar)) {
            let cookies: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
            fields.push(("Cookie".into(), cookies.join("; ")));
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = http::request(address, &curl.method, &target, &fields, curl.body.as_bytes()).await;
        if let Some(jar) = &curl.writes {
            for line in answer.fields.all("set-cookie") {
                let pair = line.split(';').next().unwrap_or_default();
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                self.jars.entry(jar.clone()).or_default().insert(name.into(), value.into());
            }
        }
        answer
    }

    fn compare(&self, line: &str, expected: &Expected, answer: &Answer) {
        let shown = || format!("{line}\n{}{}", String::from_utf8_lossy(&answer.head), answer.text());
        match expected {
            Expected::Status(status) => assert_eq!(answer.status, *status, "{}", shown()),
            Expected::From(who) => {
                let from = [answer.field("x-upstream"), answer.field("x-endpoint")];
                assert!(from.contains(&Some(who)), "{}", shown());
            }
            Expected::SameEndpoint => {
                assert!(self.endpoint.is_some(), "{}", shown());
                assert_eq!(answer.field("x-endpoint"), self.endpoint.as_deref(), "{}", shown());
            }
            Expected::SeesField(name, value) => {
                let seen = answer.json();
                let fields = seen["fields"].as_array().unwrap();
                let is = |field: &&serde_json::Value| {
                    field[0].as_str().is_some_and(|seen| seen.eq_ignore_ascii_case(name))
                };
                assert!(fields.iter().filter(is).any(|field| field[1] == value.as_str()), "{}", shown());
            }
            Expected::Sees(request) => {
                let seen = answer.json();
                let seen = format!(
                    "{} {}",
                    seen["method"].as_str().unwrap_or_default(),
                    seen["target"].as_str().unwrap_or_default()
                );
                assert_eq!(&seen, request, "{}", shown());
            }
            Expected::Has(name, value) => {
                let mut all = answer.fields.all(name);
                assert!(all.any(|one| one.contains(value.as_str())), "{}", shown());
            }
            Expected::Answers(text) => assert!(answer.text().contains(text.as_str()), "{}", shown()),
            Expected::Says(_) => panic!("{line}: `says` is for commands"),
        }
    }
}

fn says(line: &str, expected: &[Expected], output: &str) {
    for clause in expected {
        let Expected::Says(text) = clause else { panic!("{line}: only `says` fits here") };
        assert!(output.contains(text.as_str()), "{line}\n{output}");
    }
}

#[tokio::test]
async fn all_documents_of_an_example_say_the_same() {
    for folder in folders() {
        let mut shown = Vec::new();
        for name in ["sluice.toml", "sluice.yaml", "sluice.json"] {
            let path = folder.join(name).display().to_string();
            if !Path::new(&path).is_file() {
                continue;
            }
            let checked = sluice(["check", "--without-files", &path]).finish().await;
            assert_eq!(checked.code(), 0, "{}", checked.stderr);
            shown.push(sluice(["config", "show", &path, "--format", "json"]).finish().await.stdout);
        }
        assert!(
            shown.iter().all(|one| *one == shown[0] && one.starts_with('{')),
            "{}: {shown:#?}",
            folder.display()
        );
    }
}

mod with_peers {
    use super::*;

    #[tokio::test]
    async fn examples_with_servers_beside_them_do_what_their_pages_say() {
        let folders: Vec<_> = folders().into_iter().filter(|folder| wants_peers(&page_of(folder))).collect();
        assert!(!folders.is_empty());
        for folder in folders {
            read(&folder, Some(Peer::redis().await)).await;
        }
    }

    #[tokio::test]
    async fn a_service_without_a_way_in_is_reached_through_its_tunnel() {
        let script = root().join("examples/reverse-tunnel/two-machines.sh");
        let own = sluice([""; 0]);
        let ended = Program::at(script).environment("SLUICE", own.path()).finish().await;
        if ended.code() == 77 {
            // Nobody may make namespaces here; then nothing else can either.
            let tried = Program::at("unshare").arguments(["--user", "--map-root-user", "--net", "true"]);
            assert_ne!(tried.finish().await.code(), 0, "{}", ended.stdout);
            return;
        }
        assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
        let lines: Vec<&str> = ended.stdout.lines().collect();
        let through = "through the tunnel: origin1 got GET /orders/1 for 127.0.0.1 from 127.0.0.1";
        let direct = ["10.0.0.2", "127.0.0.1"].map(|at| format!("directly at {at}:9001: nothing answers"));
        assert_eq!(lines, [through, &direct[0], &direct[1]]);
    }
}
