//! USR2: a new process of the program takes over without a refused or reset connection.
//!
//! The process that runs starts the program again with its own arguments and gives it, over a Unix socket that
//! only this user can reach, copies of its listening sockets and the secret that signs affinity cookies. When the
//! new process says that it is ready, the old one drains. When it cannot start, the old one goes on as if nothing
//! had been asked.
//!
//! Both hold the same open sockets, so the kernel's queue of waiting connections belongs to both all the time.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde_json::json;
use sluice_proxy::gateway::Legacy;
use sluice_proxy::sockets::{Listening, Place};
use tokio::net::UnixListener;

/// Tells the new process where to ask for its legacy.
const VARIABLE: &str = "SLUICE_HANDOVER";
/// The kernel's limit for one message (SCM_MAX_FD).
const MOST: usize = 253;
/// How long the new process has to become ready.
const PATIENCE: Duration = Duration::from_secs(60);
const READY: &[u8] = b"ready\n";

/// What a process got from the one before it.
pub(crate) struct Received {
    /// Sockets and secret.
    pub(crate) legacy: Legacy,
    /// The socket of the admin endpoints, by its configured address.
    pub(crate) admin: Option<(SocketAddr, TcpListener)>,
    before: UnixStream,
}

impl Received {
    /// Tells the process before that it can drain now.
    pub(crate) fn ready(mut self) -> io::Result<()> {
        self.before.write_all(READY)
    }
}

/// What a process hands over.
pub(crate) struct Offer {
    /// Sockets and secret.
    pub(crate) legacy: Legacy,
    /// The socket of the admin endpoints.
    pub(crate) admin: Option<(SocketAddr, TcpListener)>,
}

/// Asks the process before for its legacy, if there is one.
pub(crate) fn receive() -> io::Result<Option<Received>> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let before = UnixStream::connect(path)?;
    before.set_read_timeout(Some(PATIENCE))?;
    let (text, mut sockets) = read_offer(&before)?;
    let wrong = || io::Error::other("the process before sent something else");
    let offer: serde_json::Value = serde_json::from_str(&text).map_err(io::Error::other)?;
    let addresses = offer["addresses"].as_array().ok_or_else(wrong)?;
    let addresses = addresses.iter().map(|text| text.as_str().and_then(|text| text.parse().ok()));
    let mut places: Vec<Place> = addresses.collect::<Option<_>>().ok_or_else(wrong)?;
    let secret = offer["secret"].as_array().ok_or_else(wrong)?;
    let secret = secret.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()));
    let secret: Vec<u8> = secret.collect::<Option<_>>().ok_or_else(wrong)?;
    if places.len() != sockets.len() || secret.is_empty() {
        return Err(wrong());
    }
    let admin = match offer["admin"] == true {
        true => places.pop().and_then(|place| place.address.inet()).zip(sockets.pop().map(TcpListener::from)),
        false => None,
    };
    let listening = |(place, fd): (Place, OwnedFd)| {
        let socket = Listening::from_fd(&place, fd);
        (place, socket)
    };
    let sockets = places.into_iter().zip(sockets).map(listening).collect();
    Ok(Some(Received { legacy: Legacy { secret, sockets }, admin, before }))
}

fn read_offer(before: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 64 * 1024];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(before, &mut [IoSliceMut::new(&mut text)], &mut ancillary, flags)?;
    text.truncate(received.bytes);
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    if text.last() != Some(&b'\n') {
        BufReader::new(before.take(64 * 1024)).read_until(b'\n', &mut text)?;
    }
    String::from_utf8(text).map(|text| (text, sockets)).map_err(io::Error::other)
}

/// Starts the program again and hands over. Ready when the new process is.
///
/// # Errors
/// Why it did not become ready; it runs no longer then.
pub(crate) async fn hand_over(program: &Path, arguments: Vec<OsString>, offer: Offer) -> io::Result<()> {
    let folder = Folder::make()?;
    let path = folder.0.join("socket");
    let listener = UnixListener::bind(&path)?;
    let mut child = Command::new(program).args(arguments).env(VARIABLE, &path).spawn()?;
    let taken = tokio::select! {
        taken = give(&listener, &offer) => taken,
        status = ended(&mut child) => Err(io::Error::other(format!("the new process ended: {status}"))),
        () = tokio::time::sleep(PATIENCE) => Err(io::ErrorKind::TimedOut.into()),
    };
    if taken.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    taken
}

async fn give(listener: &UnixListener, offer: &Offer) -> io::Result<()> {
    let (mut stream, _) = listener.accept().await?;
    let sockets = offer.legacy.sockets.iter().map(|(place, socket)| (place.to_string(), socket.as_fd()));
    let admin = offer.admin.iter().map(|(address, socket)| (address.to_string(), socket.as_fd()));
    let all: Vec<_> = sockets.chain(admin).collect();
    if all.len() > MOST {
        return Err(io::Error::other(format!("more than {MOST} sockets cannot be handed over")));
    }
    let addresses: Vec<&str> = all.iter().map(|(place, _)| place.as_str()).collect();
    let text =
        json!({ "addresses": addresses, "admin": offer.admin.is_some(), "secret": offer.legacy.secret });
    let text = format!("{text}\n");
    let fds: Vec<_> = all.iter().map(|(_, socket)| *socket).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    stream.writable().await?;
    let bytes = [IoSlice::new(text.as_bytes())];
    let sent = rustix::net::sendmsg(&stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL)?;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(&text.as_bytes()[sent..]).await?;
    let mut answer = Vec::new();
    stream.take(READY.len() as u64).read_to_end(&mut answer).await?;
    match answer == READY {
        true => Ok(()),
        false => Err(io::Error::other("the new process gave up; it says why above")),
    }
}

async fn ended(child: &mut Child) -> String {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        look.tick().await;
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return status.to_string(),
            Err(error) => return error.to_string(),
        }
    }
}

/// A folder that only this user can look into; it goes with the hand-over.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("sluice-handover-{}", std::process::id()));
        // One that a crash left behind: its process had our id and runs no longer.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is an empty socket file in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
