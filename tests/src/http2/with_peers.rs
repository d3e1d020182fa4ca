//! HTTP/2 with clients that we did not write: curl and nghttp2's h2load.

use sluice_testkit::{Origin, Program, Reply, Script};

use crate::forward::gateway;

#[tokio::test]
async fn curl_speaks_http_1_and_http_2_on_the_same_port() {
    let origin = Origin::start(Script::each(|request| Reply::ok(request.target.clone()))).await;
    let gateway = gateway(&[origin.address()]).await;
    let url = format!("http://{}/x", gateway.address("web"));
    for (option, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http2", "1.1")] {
        let curl =
            Program::at("curl").arguments(["-sS", option, "-w", " %{http_version} %{http_code}", &url]);
        let finished = curl.finish().await;
        assert_eq!(finished.stdout, format!("/x {version} 200"), "{option}: {}", finished.stderr);
    }
}

#[tokio::test]
async fn curl_uploads_and_downloads_over_http_2() {
    let origin = Origin::start(Reply::echo()).await;
    let gateway = gateway(&[origin.address()]).await;
    let body: String = (0..400_000).map(|n| char::from(b'a' + (n % 19) as u8)).collect();
    let file = gateway.scratch().write("body", &body);
    let url = format!("http://{}/", gateway.address("web"));
    let data = format!("@{}", file.display());
    let curl =
        Program::at("curl").arguments(["-sS", "--http2-prior-knowledge", "--data-binary", &data, &url]);
    let finished = curl.finish().await;
    let echoed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert!(echoed["body"] == body.as_str(), "{}", finished.stderr);
}

#[tokio::test]
async fn h2load_gets_every_answer() {
    let origin = Origin::start(Reply::ok("x".repeat(100))).await;
    let gateway = gateway(&[origin.address()]).await;
    let url = format!("http://{}/", gateway.address("web"));
    let h2load = Program::at("h2load").arguments(["-n", "5000", "-c", "8", "-m", "32", &url]);
    let finished = h2load.finish().await;
    assert!(finished.stdout.contains("5000 succeeded, 0 failed"), "{}", finished.stdout);
}
