//! A name server of the test's own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Answers questions for addresses of names it knows; "silent.test" gets no answer, other names do not exist.
pub(super) struct Dns {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Dns {
    /// Starts it with IPv4 addresses of names.
    pub(super) async fn start(names: &[(&str, &[Ipv4Addr])]) -> Dns {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let names = names.iter().map(|(name, found)| ((*name).to_owned(), found.to_vec())).collect();
        let asked = Arc::default();
        let task = tokio::spawn(serve(socket, names, Arc::clone(&asked)));
        Dns { address, asked, task }
    }

    /// The table of a document that makes a gateway ask it.
    pub(super) fn table(&self) -> String {
        format!("[dns]\nservers = [\"{}\"]\ntimeout = \"200ms\"\nattempts = 1\n", self.address)
    }

    /// The names it was asked for.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, names: BTreeMap<String, Vec<Ipv4Addr>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let (name, kind, end) = question(&packet[..length]);
        asked.lock().unwrap().push(name.clone());
        if name != "silent.test" {
            let answer = answer(&packet[..end], kind, names.get(&name).map(Vec::as_slice));
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

/// The name and the type that are asked for, and where the question ends (RFC 1035 section 4.1.2).
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..at + 1 + length].to_vec()).unwrap());
        at += 1 + length;
    }
    (labels.join("."), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

fn answer(asked: &[u8], kind: u16, found: Option<&[Ipv4Addr]>) -> Vec<u8> {
    let mut out = asked.to_vec();
    // A recursive answer to one question; 3: there is no such name.
    let code = if found.is_some() { 0x80 } else { 0x83 };
    out[2..12].copy_from_slice(&[0x81, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    for address in found.unwrap_or_default().iter().filter(|_| kind == 1) {
        out[7] += 1;
        // The name of the question, A, IN, an hour, four bytes.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
        out.extend(address.octets());
    }
    out
}
