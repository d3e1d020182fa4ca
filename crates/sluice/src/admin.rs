//! Asking a running gateway through its admin endpoints.
//!
//! Promise: no question takes longer than half a minute, nor more than 16 MiB of an answer.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use crate::cli::{AdminArgs, Exit, complain};
use crate::documents;

/// The most bytes of an answer.
const LONGEST: u64 = 16 * 1024 * 1024;

/// What an admin endpoint answered.
pub(crate) struct Answer {
    /// Who did.
    pub(crate) admin: String,
    /// The status code.
    pub(crate) status: u16,
    /// The body, without the newline at its end.
    pub(crate) body: String,
}

impl Answer {
    /// Complains of an answer that nobody expects.
    pub(crate) fn complain(&self) -> Exit {
        complain(&format!("error: {} answered {}: {}", self.admin, self.status, self.body));
        Exit::Failure
    }
}

/// Asks `request`, a method and a path.
///
/// # Errors
/// How the program ends, when it is not known whom to ask, or nobody answers; the user has been told.
pub(crate) fn ask(args: &AdminArgs, request: &str) -> Result<Answer, Exit> {
    let admin = address(args).map_err(|text| {
        complain(&format!("error: {text}"));
        Exit::Usage
    })?;
    match exchange(&admin, request) {
        Ok((status, body)) => Ok(Answer { admin, status, body }),
        Err(error) => {
            complain(&format!("error: no gateway answers at {admin}: {error}"));
            Err(Exit::Failure)
        }
    }
}

fn address(args: &AdminArgs) -> Result<String, String> {
    if let Some(admin) = &args.admin {
        return Ok(admin.trim_start_matches("http://").trim_end_matches('/').to_owned());
    }
    let path = documents::find(args.config.path.as_deref())?;
    // A configuration with problems cannot say where the gateway is; the gateway would refuse it anyway.
    let loaded = documents::read(&path).and_then(|source| documents::load(&source, path.parent()));
    let loaded = loaded.map_err(|unusable| unusable.text())?;
    let admin = loaded.document.process.admin.map(|admin| admin.address);
    admin.ok_or_else(|| {
        let path = path.display();
        format!(
            "{path} has no process.admin address\nhint: name it: --admin 127.0.0.1:9900; a gateway without one obeys \
             signals only: SIGHUP reloads it"
        )
    })
}

fn exchange(admin: &str, request: &str) -> io::Result<(u16, String)> {
    let limit = Some(Duration::from_secs(30));
    let address = admin.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    write!(stream, "{request} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.trim_end().to_owned());
    status.zip(body).ok_or_else(|| io::Error::other("not an HTTP answer"))
}
