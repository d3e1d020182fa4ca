//! `bench idle`: what an idle keep-alive connection costs in memory.
//!
//! Each connection makes one request and then stays open without a word. The connections are held by a
//! process of their own, because they need more open files than a shell allows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::http::{Listen, start};
use super::processor::resident;
use super::servers::Server;
use crate::Failed;

/// Connections from one address to one port: the kernel's range of source ports holds no more.
const MOST: usize = 25_000;

pub(super) fn run(connections: usize) -> Result<(), Failed> {
    if connections > MOST {
        return Err(format!("at most {MOST} connections: source ports run short"));
    }
    let servers = start(Listen::Http1, None)?;
    println!("\nidle: {connections} keep-alive connections after one request each");
    println!("  {:<8} {:>12} {:>12} {:>16}", "", "before KiB", "after KiB", "KiB/connection");
    for proxy in &servers.proxies {
        let (before, after) = measure(proxy, connections)?;
        let each = after.saturating_sub(before) as f64 / connections as f64;
        println!("  {:<8} {before:>12} {after:>12} {each:>16.2}", proxy.name);
    }
    Ok(())
}

fn measure(proxy: &Server, connections: usize) -> Result<(u64, u64), Failed> {
    let before = resident(proxy.id());
    let mut holder = Holder::start(proxy.port, connections)?;
    holder.wait_open().map_err(|failed| format!("{}: {failed}", proxy.name))?;
    Ok((before, resident(proxy.id())))
}

/// The process that holds the connections; it ends when its standard input does.
struct Holder(Child);

impl Holder {
    fn start(port: u16, connections: usize) -> Result<Holder, Failed> {
        let ourselves = std::env::current_exe().map_err(|error| format!("where are we? {error}"))?;
        let limit = "ulimit -n 65536 2>/dev/null || ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\"";
        let child = Command::new("sh")
            .arg("-c")
            .arg(limit)
            .arg(ourselves)
            .args(["bench", "idle-client", &port.to_string(), &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        child.map(Holder).map_err(|error| format!("cannot start the clients: {error}"))
    }

    fn wait_open(&mut self) -> Result<(), Failed> {
        let mut line = String::new();
        if let Some(stdout) = self.0.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        match line.trim() {
            "open" => Ok(()),
            _ => Err("not all connections could be opened".into()),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// `bench idle-client PORT COUNT`: opens the connections, says so, holds them until its input ends.
pub(super) fn client(arguments: &[&str]) -> Result<(), Failed> {
    let [port, count] = arguments else { return Err("idle-client PORT COUNT".into()) };
    let (Ok(port), Ok(count)) = (port.parse::<u16>(), count.parse::<usize>()) else {
        return Err("idle-client PORT COUNT".into());
    };
    let opened: Result<Vec<_>, _> =
        (0..count).map(|number| open(port).map_err(|error| (number, error))).collect();
    let _held = opened.map_err(|(number, error)| format!("connection {number}: {error}"))?;
    println!("open");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

/// One connection with one answered request.
fn open(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut piece = [0; 2048];
    // The head and the small body, whose length the head tells.
    while !complete(&answer) {
        match stream.read(&mut piece)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    Ok(stream)
}

fn complete(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        assert!(!complete(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx"));
        assert!(complete(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nxy"));
    }
}
