//! Real clients: curl, git and pip, in front of a site under TLS.

use sluice_testkit::{Finished, Gateway, Origin, Peer, Program, Reply, Scratch};

use super::{LOOPBACK, document, gateway};
use crate::auth::HASH;

async fn run(program: &str, arguments: &[&str], scratch: &Scratch) -> Finished {
    // Nothing of the machine's own configuration counts.
    let program = Program::at(program).arguments(arguments).directory(scratch.path());
    let program = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]
        .iter()
        .fold(program, |program, name| program.environment(name, "").environment(&name.to_uppercase(), ""));
    let home = scratch.path().display().to_string();
    program.environment("HOME", &home).environment("GIT_CONFIG_NOSYSTEM", "1").finish().await
}

#[track_caller]
fn well(ended: &Finished) {
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
}

fn proxy(gateway: &Gateway) -> String {
    format!("http://{}", gateway.address("proxy"))
}

/// A site under TLS with the files of `scratch`, and the file with its certificate.
async fn site(scratch: &Scratch) -> (Peer, String) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let chain = scratch.write("site.pem", key.cert.pem());
    let secret = scratch.write("site.key", key.signing_key.serialize_pem());
    (Peer::python_tls(scratch.path(), &chain, &secret).await, chain.display().to_string())
}

#[tokio::test]
async fn curl_gets_pages_in_both_ways() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("plain page")).await;
    scratch.write("page", "page under TLS");
    let (site, chain) = site(&scratch).await;
    let gateway = gateway(LOOPBACK).await;
    let proxy = proxy(&gateway);
    let plain = format!("http://{}/", origin.address());
    let ended = run("curl", &["-sS", "-x", &proxy, &plain], &scratch).await;
    well(&ended);
    assert_eq!(ended.stdout, "plain page");
    let tunnelled = run("curl", &["-sS", "-p", "-x", &proxy, &plain], &scratch).await;
    assert_eq!(tunnelled.stdout, "plain page", "{}", tunnelled.stderr);
    let secure = format!("https://localhost:{}/page", site.address().port());
    let ended = run("curl", &["-sS", "-x", &proxy, "--cacert", &chain, &secure], &scratch).await;
    well(&ended);
    assert_eq!(ended.stdout, "page under TLS");
}

#[tokio::test]
async fn a_proxy_may_ask_for_credentials() {
    let scratch = Scratch::new();
    let origin = Origin::start(Reply::ok("for anna")).await;
    let filter =
        format!("filters = [{{ basic_auth = {{ realm = \"inside\", users = {{ anna = \"{HASH}\" }} }} }}]\n");
    let document =
        document(LOOPBACK, "").replace("[routes.forward_proxy]", &format!("{filter}[routes.forward_proxy]"));
    let gateway = Gateway::start(&document).await;
    let (proxy, url) = (proxy(&gateway), format!("http://{}/", origin.address()));
    let said = ["-sS", "-o", "said", "-w", "%{http_code} %{http_connect}", "-x", &proxy];
    for (way, code) in [(&[][..], "407 000"), (&["-p"], "000 407")] {
        let asked = run("curl", &[&said, way, &[&url]].concat(), &scratch).await;
        assert_eq!(asked.stdout, code, "{}", asked.stderr);
        let known = run("curl", &[&said, way, &["-U", "anna:correct horse", &url]].concat(), &scratch).await;
        assert!(known.stdout.starts_with("200"), "{} {}", known.stdout, known.stderr);
        assert_eq!(std::fs::read_to_string(scratch.file("said")).unwrap(), "for anna");
    }
    assert_eq!((origin.count(), origin.last().field("proxy-authorization")), (2, None));
}

#[tokio::test]
async fn curl_is_told_what_is_denied() {
    let scratch = Scratch::new();
    let gateway = gateway("").await;
    let said = ["-sS", "-o", "/dev/null", "-w", "%{http_connect}", "-x"];
    let ended = run("curl", &[&said[..], &[&proxy(&gateway), "https://127.0.0.1/"]].concat(), &scratch).await;
    assert_eq!((ended.code(), ended.stdout.as_str()), (56, "403"), "{}", ended.stderr);
}

#[tokio::test]
async fn git_clones_over_https() {
    let scratch = Scratch::new();
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t.test"];
    for arguments in [
        &["init", "-q", "work"][..],
        &[&["-C", "work"][..], &identity, &["commit", "-q", "--allow-empty", "-m", "first"]].concat(),
        &["clone", "-q", "--bare", "work", "site.git"],
        &["-C", "site.git", "update-server-info"],
    ] {
        well(&run("git", arguments, &scratch).await);
    }
    let (site, chain) = site(&scratch).await;
    let gateway = gateway(LOOPBACK).await;
    let (through, trust) = (format!("http.proxy={}", proxy(&gateway)), format!("http.sslCAInfo={chain}"));
    let url = format!("https://localhost:{}/site.git", site.address().port());
    let ended = run("git", &["-c", &through, "-c", &trust, "clone", "-q", &url, "copy"], &scratch).await;
    well(&ended);
    let log = run("git", &["-C", "copy", "log", "--format=%s"], &scratch).await;
    assert_eq!(log.stdout, "first\n");
    assert!(gateway.metric("sluice_requests_total", &["route=\"proxy\""]).await > 0.0);
}

/// Makes a wheel that pip takes.
const WHEEL: &str = "
import os, zipfile
os.makedirs('simple/hello')
name = 'hello-1.0-py3-none-any.whl'
with zipfile.ZipFile('simple/hello/' + name, 'w') as wheel:
    info = 'hello-1.0.dist-info/'
    wheel.writestr('hello.py', '')
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: hello\\nVersion: 1.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
open('simple/hello/index.html', 'w').write('<a href=\"%s\">%s</a>' % (name, name))
";

#[tokio::test]
async fn pip_downloads_from_an_index() {
    let scratch = Scratch::new();
    well(&run("python3", &["-c", WHEEL], &scratch).await);
    let (site, chain) = site(&scratch).await;
    let gateway = gateway(LOOPBACK).await;
    let index = format!("https://localhost:{}/simple/", site.address().port());
    let pip =
        ["-m", "pip", "--isolated", "--disable-pip-version-check", "download", "--no-deps", "-d", "got"];
    let from = ["--index-url", &index, "--cert", &chain, "--proxy", &proxy(&gateway), "hello"];
    let ended = run("python3", &[&pip[..], &from].concat(), &scratch).await;
    well(&ended);
    assert!(scratch.file("got").join("hello-1.0-py3-none-any.whl").is_file(), "{}", ended.stdout);
    assert!(gateway.metric("sluice_requests_total", &["route=\"proxy\""]).await > 0.0);
}
