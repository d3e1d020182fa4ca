//! `sluice reload`: makes a running gateway read its configuration again, and says how that went.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::cli::{Exit, ReloadArgs, complain, say};
use crate::documents;

/// Asks the admin endpoint.
pub(crate) fn reload(args: &ReloadArgs) -> Exit {
    let admin = match admin_address(args) {
        Ok(admin) => admin,
        Err(text) => {
            complain(&format!("error: {text}"));
            return Exit::Usage;
        }
    };
    match post(&admin) {
        Err(error) => {
            complain(&format!("error: no gateway answers at {admin}: {error}"));
            Exit::Failure
        }
        Ok((200, body)) => say(&body),
        Ok((422, body)) => {
            complain(&body);
            Exit::Config
        }
        Ok((status, body)) => {
            complain(&format!("error: {admin} answered {status}: {body}"));
            Exit::Failure
        }
    }
}

fn admin_address(args: &ReloadArgs) -> Result<String, String> {
    if let Some(admin) = &args.admin {
        return Ok(admin.trim_start_matches("http://").trim_end_matches('/').to_owned());
    }
    let path = documents::find(args.config.path.as_deref())?;
    // A configuration with problems cannot say where the gateway is; the gateway would refuse it anyway.
    let loaded = documents::read(&path).and_then(|source| documents::load(&source, path.parent()));
    let loaded = loaded.map_err(|unusable| unusable.text())?;
    let admin = loaded.document.process.admin.map(|admin| admin.address);
    admin.ok_or_else(|| {
        format!("{} has no process.admin address\nhint: send the gateway SIGHUP, or name it: --admin 127.0.0.1:9900", path.display())
    })
}

fn post(admin: &str) -> std::io::Result<(u16, String)> {
    let limit = Some(Duration::from_secs(30));
    let address = admin.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    write!(
        stream,
        "POST /v1/reload HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.take(16 * 1024 * 1024).read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned());
    status.zip(body).ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}
