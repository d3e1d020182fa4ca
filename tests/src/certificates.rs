//! Certificates: `sluice cert` makes them, every command reads them, and a renewed one is taken on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sluice_testkit::{Gateway, Origin, Program, Reply, Scratch, eventually, sluice};

use crate::forward::document;

/// `sluice cert` in a folder; it must succeed.
async fn cert(folder: &Path, arguments: &[&str]) -> String {
    let ended = sluice([&["cert"], arguments].concat()).directory(folder).finish().await;
    assert_eq!(ended.code(), 0, "{arguments:?}\n{}", ended.stderr);
    ended.stdout
}

#[tokio::test]
async fn the_cert_verb_makes_what_check_and_openssl_accept() {
    let scratch = Scratch::new();
    let said = cert(scratch.path(), &["shop.example", "*.shop.example", "127.0.0.1"]).await;
    let document: String = said
        .lines()
        .filter(|line| !line.starts_with("wrote") && !line.starts_with("try"))
        .fold(String::new(), |text, line| text + line + "\n");
    scratch.write("sluice.toml", document + "[[routes]]\nname = \"all\"\nrespond = {}\n");
    let ended = sluice(["check"]).directory(scratch.path()).finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);

    let openssl =
        |arguments: &str| Program::at("openssl").arguments(arguments.split(' ')).directory(scratch.path());
    let verify = "verify -CAfile certs/ca.pem -purpose sslserver -verify_hostname a.shop.example certs/shop.example.pem";
    let ended = openssl(verify).finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    cert(scratch.path(), &["--client", "--days", "7", "Ada Lovelace", "spiffe://example/ada"]).await;
    let ended =
        openssl("verify -CAfile certs/ca.pem -purpose sslclient certs/Ada_Lovelace.pem").finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);

    for key in ["ca.key", "shop.example.key", "Ada_Lovelace.key"] {
        let mode = fs::metadata(scratch.file("certs").join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[tokio::test]
async fn the_cert_verb_replaces_nothing_unasked_and_the_authority_never() {
    let scratch = Scratch::new();
    cert(scratch.path(), &["localhost"]).await;
    let read = |name: &str| fs::read(scratch.file("certs").join(name)).unwrap();
    let (authority, leaf) = (read("ca.pem"), read("localhost.pem"));
    let ended = sluice(["cert", "localhost"]).directory(scratch.path()).finish().await;
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("localhost.pem") && ended.stderr.contains("--force"), "{}", ended.stderr);
    assert_eq!(read("localhost.pem"), leaf);
    cert(scratch.path(), &["--force", "localhost"]).await;
    assert_ne!(read("localhost.pem"), leaf);
    assert_eq!(read("ca.pem"), authority);

    for misuse in ["a b", "ca", "http://a"] {
        let ended = sluice(["cert", misuse]).directory(scratch.path()).finish().await;
        assert_eq!(ended.code(), 2, "{misuse}: {}", ended.stderr);
    }
    fs::remove_file(scratch.file("certs").join("ca.key")).unwrap();
    let ended = sluice(["cert", "other.example"]).directory(scratch.path()).finish().await;
    assert_eq!(ended.code(), 1);
    assert!(ended.stderr.contains("ca.key"), "{}", ended.stderr);
}

/// A document with one more thing: a certificate.
fn with_certificate(origin: &Origin) -> String {
    document(&[origin.address()], "")
        + "[certificates.a]\nchain = \"certs/localhost.pem\"\nkey = \"certs/localhost.key\"\n"
}

#[tokio::test]
async fn check_and_run_name_the_file_that_cannot_be_used() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("")).await;
    scratch.write("sluice.toml", with_certificate(&origin));
    for command in ["check", "run"] {
        let ended = sluice([command]).directory(scratch.path()).finish().await;
        assert_eq!(ended.code(), 78, "{command}: {}", ended.stderr);
        for file in ["certs/localhost.pem", "certs/localhost.key"] {
            assert!(ended.stderr.contains(file), "{command}: {}", ended.stderr);
        }
    }
    let ended = sluice(["check", "--without-files"]).directory(scratch.path()).finish().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_on_and_a_broken_one_changes_nothing() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("")).await;
    cert(scratch.path(), &["localhost"]).await;
    let path = scratch.write("sluice.toml", with_certificate(&origin)).display().to_string();
    let certificate = scratch.file("certs").join("localhost.pem");
    let gateway = Gateway::launch(&sluice(["run", &path]), scratch).await;
    let revision = async || gateway.metric("sluice_config_revision", &[]).await;
    assert_eq!(revision().await, 1.0);

    cert(gateway.scratch().path(), &["--force", "localhost"]).await;
    eventually("the renewed certificate", async || (revision().await >= 2.0).then_some(())).await;
    let renewed = revision().await;

    fs::write(&certificate, "no certificate").unwrap();
    let refused = async || gateway.metric("sluice_config_reloads_total", &["result=\"refused\""]).await;
    eventually("the broken one to be refused", async || (refused().await >= 1.0).then_some(())).await;
    assert_eq!(revision().await, renewed);
    assert!(gateway.stderr().contains("localhost.pem"), "{}", gateway.stderr());
}
