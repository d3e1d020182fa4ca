//! `sluice demo` and `sluice proxy`: gateways without a configuration file.
//!
//! Both write the document they run, so that `--print` shows a person how to go on. The demo's three
//! sample origins are listeners of the same process that give fixed answers.

use std::net::TcpListener;

use sluice_proxy::config::{Format, Source};

use crate::cli::{DemoArgs, Exit, LogFormat, ProxyArgs, complain, say};
use crate::run::{Origin, serve};

const DEMO: &str = include_str!("demo.toml");

/// A gateway and three sample origins in one process.
pub(crate) fn demo(args: &DemoArgs) -> Exit {
    let ports = match free_ports(3) {
        Ok(ports) => ports,
        Err(error) => {
            complain(&format!("error: no free ports for the sample origins: {error}"));
            return Exit::Failure;
        }
    };
    let mut document = DEMO.replace("{address}", &args.address).replace("{admin}", &args.admin);
    for (number, port) in ports.iter().enumerate() {
        document = document.replace(&format!("{{origin{}}}", number + 1), &format!("127.0.0.1:{port}"));
    }
    if args.print {
        return say(document.trim_end());
    }
    let address = args.address.clone();
    serve(text("demo.toml", document), LogFormat::Text, &move |_| {
        vec![
            String::new(),
            format!(
                "try       curl http://{address}/                        # three origins in turn: run it again"
            ),
            format!(
                "          curl -i http://{address}/sticky               # the same origin for who sends the cookie"
            ),
            format!("          curl -i -H 'X-Beta: 1' http://{address}/      # routed by a header"),
            format!("          curl -i http://{address}/old/page             # a redirect"),
            format!(
                "          curl -i http://{address}/items/seven          # no route: problem+json says why"
            ),
            "see       sluice demo --print                        # the configuration behind it".to_owned(),
            "stop      Ctrl-C".to_owned(),
            String::new(),
        ]
    })
}

/// A reverse proxy from the command line.
pub(crate) fn proxy(args: &ProxyArgs) -> Exit {
    let target = |target: &String| {
        let target = target.trim_end_matches('/');
        match target.strip_prefix("http://") {
            Some(host) if !host.contains(':') => format!("{host}:80"),
            Some(host) => host.to_owned(),
            None => target.to_owned(),
        }
    };
    let targets: Vec<String> = args.targets.iter().map(target).collect();
    if let Some(https) = targets.iter().find(|target| target.contains("://")) {
        complain(&format!("error: {https}: only http:// targets can be reached so far"));
        return Exit::Usage;
    }
    let quoted: Vec<String> = targets.iter().map(|target| format!("{target:?}")).collect();
    let admin = args
        .admin
        .as_ref()
        .map_or(String::new(), |admin| format!("[process]\nadmin = {{ address = {admin:?} }}\n\n"));
    let document = format!(
        "{admin}[listeners.web]\naddress = {:?}\n\n\
         [[routes]]\nname = \"everything\"\nforward = {{ upstream = \"targets\", upgrade = true }}\n\n\
         [upstreams.targets]\nendpoints = [{}]\n",
        args.listen,
        quoted.join(", ")
    );
    if args.print {
        return say(document.trim_end());
    }
    serve(text("proxy.toml", document), LogFormat::Text, &|listener| {
        vec![
            format!("try       curl -i http://{listener}/"),
            "see       the same command with --print               # the configuration behind it".to_owned(),
            "stop      Ctrl-C".to_owned(),
        ]
    })
}

fn text(name: &str, document: String) -> Origin {
    Origin::Text(Source::new(name, document, Format::Toml))
}

/// Ports that are free now. Held together until all are found, so that they differ.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    held.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect()
}
