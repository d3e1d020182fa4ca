//! A connector that reads its file again.

use sluice_testkit::tls::Authority;
use sluice_testkit::{Gateway, Load, Origin, Reply, Scratch, Signal, Wire, eventually, http, sluice};

use super::child::Connector;
use super::document;

/// A connector of a file, at a gateway.
struct Filed {
    gateway: Gateway,
    connector: Connector,
    scratch: Scratch,
}

const FILE: &str = "connector.toml";

impl Filed {
    /// Publishes these services: their names and what else stands in their tables.
    async fn start(services: &[(&str, &str)]) -> Filed {
        let gateway = Gateway::start(&document(0, "")).await;
        let scratch = Scratch::new();
        let text = Filed::text(&gateway, services);
        let path = scratch.write(FILE, text).display().to_string();
        let connector = Connector::of(Gateway::launch(&sluice(["connect", &path]), Scratch::new()).await);
        connector.wait("up").await;
        Filed { gateway, connector, scratch }
    }

    fn text(gateway: &Gateway, services: &[(&str, &str)]) -> String {
        let mut text =
            format!("routers = [\"ws://{}\"]\nhealth = \"127.0.0.1:0\"\n", gateway.address("tunnels"));
        for (name, lines) in services {
            text.push_str(&format!("\n[services.{name}]\n{lines}\n"));
        }
        text
    }

    /// Writes another file and has it read.
    async fn reload(&self, services: &[(&str, &str)]) {
        self.reload_text(&Filed::text(&self.gateway, services), "configuration applied").await;
    }

    async fn reload_text(&self, text: &str, said: &str) {
        let before = self.connector.process.stderr().matches(said).count();
        self.scratch.write(FILE, text);
        self.connector.process.signal(Signal::Hup).await;
        eventually(said, async || {
            (self.connector.process.stderr().matches(said).count() > before).then_some(())
        })
        .await;
    }

    async fn get(&self, path: &str) -> String {
        let answer = http::get(self.gateway.address("web"), path).await;
        if answer.status == 200 { answer.text() } else { answer.status.to_string() }
    }

    /// Waits until a path is answered so.
    async fn wait(&self, path: &str, text: &str) {
        eventually(&format!("{text} at {path}"), async || (self.get(path).await == text).then_some(())).await;
    }

    /// What is shown of a service.
    async fn shown(&self, service: &str) -> serde_json::Value {
        self.connector.health().await["services"][service].clone()
    }
}

fn target(origin: &Origin) -> String {
    format!("target = \"http://{}\"", origin.address())
}

#[tokio::test]
async fn services_come_change_and_go_and_the_others_are_not_touched() {
    let origins = [
        Origin::start(Reply::ok("one")).await,
        Origin::start(Reply::ok("two")).await,
        Origin::start(Reply::ok("three")).await,
    ];
    let [one, two, three] = origins.each_ref().map(target);
    let filed = Filed::start(&[("stays", &one), ("changes", &two), ("goes", &three)]).await;
    filed.wait("/goes/", "three").await;
    let load = Load {
        requests: usize::MAX,
        target: "/stays/".into(),
        body: Some(b"one".to_vec()),
        ..Load::default()
    };
    let load = load.start(filed.gateway.address("web"));
    let changing = Load { target: "/changes/".into(), requests: usize::MAX, ..Load::default() };
    let changing = changing.start(filed.gateway.address("web"));
    eventually("load", async || (changing.answered() > 100).then_some(())).await;

    filed.reload(&[("stays", &one), ("changes", &three), ("comes", &two)]).await;
    filed.wait("/comes/", "two").await;
    filed.wait("/changes/", "three").await;
    eventually("the end of `goes`", async || (filed.get("/goes/").await != "three").then_some(())).await;
    let before = (load.answered(), changing.answered());
    eventually("more load", async || {
        (load.answered() > before.0 + 100 && changing.answered() > before.1 + 100).then_some(())
    })
    .await;
    load.finish().await.assert_clean();
    changing.finish().await.assert_clean();

    let said = filed.connector.process.stderr();
    let line = said.lines().find(|line| line.contains("configuration applied")).unwrap();
    assert!(line.ends_with("kept=1 started=2 stopped=2"), "{line}");
    assert_eq!(said.matches("registered service=stays").count(), 1, "{said}");
    assert!(filed.shown("stays").await["requests"]["total"].as_u64().unwrap() > 100, "it keeps its counts");
    assert!(filed.shown("goes").await.is_null());
    assert_eq!(filed.connector.health().await["status"], "up");
}

#[tokio::test]
async fn a_request_that_runs_outlives_its_service() {
    let origin = Origin::start(Reply::ok("late").held()).await;
    let other = Origin::start(Reply::ok("other")).await;
    let lines = [target(&origin), target(&other)];
    for version in super::VERSIONS {
        let held = format!("{}\nversions = [\"{version}\"]", lines[0]);
        let mut filed = Filed::start(&[("goes", &held), ("stays", &lines[1])]).await;
        let mut client = Wire::connect(filed.gateway.address("web")).await;
        client.send("GET /goes/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        origin.wait_held(1).await;
        filed.reload(&[("stays", &lines[1])]).await;
        eventually("the deregistration", async || {
            let registrations =
                http::get(filed.gateway.address("tunnels"), "/health/connectors").await.json();
            let connectors = registrations["services"]["goes"]["connectors"].as_array().cloned();
            let connections = |one: &serde_json::Value| one["connections"].as_array().map_or(0, Vec::len);
            (connectors.unwrap_or_default().iter().map(connections).sum::<usize>() == 0).then_some(())
        })
        .await;
        origin.release();
        assert_eq!(client.answer().await.text(), "late", "{version}");
        origin.wait_held(0).await;
        assert_eq!(filed.get("/stays/").await, "other");
        filed.connector.process.signal(Signal::Term).await;
        assert!(filed.connector.process.wait_exit().await.success());
    }
}

#[tokio::test]
async fn a_wrong_file_changes_nothing_and_is_shown_with_its_places() {
    let origin = Origin::start(Reply::ok("here")).await;
    let lines = target(&origin);
    let filed = Filed::start(&[("shop", &lines)]).await;
    let refused = "configuration refused, what ran before runs on";
    for (text, said) in [
        ("routers = [".to_owned(), "connector.toml:1:"),
        (
            Filed::text(&filed.gateway, &[("shop", &lines), ("b", "target = \"ftp://x\"")]),
            "connector.toml:8:10",
        ),
        (Filed::text(&filed.gateway, &[]) + "\n[services]\n", "nothing is published"),
        (
            Filed::text(&filed.gateway, &[("shop", &lines.replace("http:", "https:"))])
                + "target_tls = { ca = \"missing.pem\" }\n",
            "missing.pem",
        ),
    ] {
        filed.reload_text(&text, refused).await;
        filed.connector.says(said).await;
        assert_eq!(filed.get("/shop/").await, "here");
    }
    filed.reload(&[("shop", &lines)]).await;
    let stderr = filed.connector.process.stderr();
    assert!(stderr.contains("kept=1 started=0 stopped=0"), "{stderr}");
    assert_eq!(stderr.matches("registered service=shop").count(), 1, "{stderr}");
}

#[tokio::test]
async fn renewed_certificates_are_for_tunnels_to_come() {
    let (scratch, old, new) = (Scratch::new(), Authority::new("Old"), Authority::new("New"));
    let ca = old.write(&scratch, "ca.pem").display().to_string();
    let port = sluice_testkit::free_port();
    let secure = |authority: &Authority, name: &str| {
        let (chain, key) = authority.leaf(&["127.0.0.1"]).write(&scratch, name);
        let certificate =
            format!("\n[certificates.own]\nchain = \"{}\"\nkey = \"{}\"\n", chain.display(), key.display());
        document(port, "tls = { certificates = [\"own\"] }") + &certificate
    };
    let gateway = Gateway::start(&secure(&old, "old")).await;
    let origin = Origin::start(Reply::ok("secure")).await;
    let text = format!(
        "routers = [\"wss://127.0.0.1:{port}\"]\nhealth = \"127.0.0.1:0\"\ntls = {{ ca = \"{ca}\" }}\n\n\
         [services.shop]\n{}\n",
        target(&origin)
    );
    let path = scratch.write(FILE, text).display().to_string();
    let connector = Connector::of(Gateway::launch(&sluice(["connect", &path]), Scratch::new()).await);
    connector.wait("up").await;
    new.write(&scratch, "ca.pem");
    connector.process.signal(Signal::Hup).await;
    eventually("the reload", async || {
        connector.process.stderr().contains("kept=1 started=0 stopped=0").then_some(())
    })
    .await;
    assert_eq!(connector.process.stderr().matches("registered").count(), 1, "its tunnels stay");
    drop(gateway);
    connector.wait("down").await;
    let gateway = Gateway::start(&secure(&new, "new")).await;
    connector.wait("up").await;
    assert_eq!(http::get(gateway.address("web"), "/shop/").await.text(), "secure");
}
