//! Both ends of `bench tcp`, each a process of its own: an origin, and clients that load a proxy before it.
//!
//! The client's first byte says what it wants; then the origin sends without end, or counts what comes until
//! the client's end and answers with the count, or sends one byte back.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::counted;
use crate::Failed;

/// Bytes given to the kernel, or asked of it, at a time.
const PIECE: usize = 256 << 10;
/// A peer that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(10);

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Download,
    Upload,
    /// One byte each way.
    Echo,
}

impl Ask {
    pub(super) fn word(self) -> &'static str {
        match self {
            Ask::Download => "download",
            Ask::Upload => "upload",
            Ask::Echo => "echo",
        }
    }

    fn of(word: &str) -> Option<Ask> {
        [Ask::Download, Ask::Upload, Ask::Echo].into_iter().find(|ask| ask.word() == word)
    }

    /// The byte that says it to the origin.
    fn byte(self) -> u8 {
        self.word().as_bytes()[0]
    }

    /// Units of the scenario for what [`ask`] counted: MiB, or connections.
    fn units(self, counted: u64) -> f64 {
        match self {
            Ask::Download | Ask::Upload => counted as f64 / f64::from(1 << 20),
            Ask::Echo => counted as f64,
        }
    }
}

/// `bench tcp-origin PORT`: serves until it is killed.
pub(super) fn origin(arguments: &[&str]) -> std::result::Result<(), Failed> {
    let [Ok(port)] = arguments.iter().map(|text| text.parse::<u16>()).collect::<Vec<_>>()[..] else {
        return Err("tcp-origin PORT".into());
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("cannot listen on {port}: {error}"))?;
    for stream in listener.incoming().flatten() {
        // A client that goes away ends its thread; that is how downloads end.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    if first[0] == Ask::Download.byte() {
        let piece = vec![b'x'; PIECE];
        loop {
            stream.write_all(&piece)?;
        }
    }
    if first[0] == Ask::Upload.byte() {
        let counted = read_until(&mut stream, None)?;
        return stream.write_all(&counted.to_be_bytes());
    }
    stream.write_all(&first)
}

/// `bench tcp-client WORD PORT CONNECTIONS SECONDS`: prints what it moved, as [`counted`] has it.
pub(super) fn client(arguments: &[&str]) -> std::result::Result<(), Failed> {
    let usage = "tcp-client download|upload|echo PORT CONNECTIONS SECONDS";
    let (Some(one), Some(&[Ok(port), Ok(connections), Ok(seconds)])) = (
        arguments.first().and_then(|word| Ask::of(word)),
        arguments
            .get(1..)
            .map(|rest| rest.iter().map(|text| text.parse::<u16>()).collect::<Vec<_>>())
            .as_deref(),
    ) else {
        return Err(usage.into());
    };
    let start = Instant::now();
    let deadline = start + Duration::from_secs(seconds.into());
    let threads: Vec<_> =
        (0..connections).map(|_| thread::spawn(move || repeat(one, port, deadline))).collect();
    let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap_or((0, 1))).collect();
    let took = start.elapsed().as_secs_f64();
    let (counts, errors): (Vec<u64>, Vec<u64>) = ended.into_iter().unzip();
    println!("{}", counted::line(one.units(counts.iter().sum()), took, errors.iter().sum::<u64>() as f64));
    Ok(())
}

/// Asks until the deadline, one connection after another; what was counted, and how many connections failed.
fn repeat(one: Ask, port: u16, deadline: Instant) -> (u64, u64) {
    let (mut counted, mut errors) = (0, 0);
    while Instant::now() < deadline {
        match ask(one, port, deadline) {
            Ok(count) => counted += count,
            Err(_) => errors += 1,
        }
        // A proxy that refuses at once must not turn this into a race.
        if errors > 1000 {
            break;
        }
    }
    (counted, errors)
}

/// One connection: bytes moved until the deadline, or 1 for an echo.
pub(super) fn ask(one: Ask, port: u16, deadline: Instant) -> Result<u64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.write_all(&[one.byte()])?;
    match one {
        Ask::Download => read_until(&mut stream, Some(deadline)),
        Ask::Upload => {
            let piece = vec![b'x'; PIECE];
            let mut sent = 0;
            while Instant::now() < deadline {
                stream.write_all(&piece)?;
                sent += PIECE as u64;
            }
            stream.shutdown(Shutdown::Write)?;
            let mut count = [0; 8];
            stream.read_exact(&mut count)?;
            // What the origin counted is what went through the proxy: all of it must have.
            match u64::from_be_bytes(count) == sent {
                true => Ok(sent),
                false => Err(Error::other("bytes were lost")),
            }
        }
        Ask::Echo => {
            let mut back = Vec::new();
            stream.read_to_end(&mut back)?;
            match back == [one.byte()] {
                true => Ok(1),
                false => Err(ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// How many bytes came until the deadline or the end; an end before the deadline is an error.
fn read_until(stream: &mut TcpStream, deadline: Option<Instant>) -> Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut counted = 0;
    loop {
        match (stream.read(&mut piece)?, deadline) {
            (0, Some(_)) => return Err(ErrorKind::UnexpectedEof.into()),
            (0, None) => return Ok(counted),
            (read, _) => counted += read as u64,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        port
    }

    #[test]
    fn each_wish_is_served_and_counted() {
        let soon = || Instant::now() + Duration::from_millis(20);
        assert_eq!(ask(Ask::Echo, served(), soon()).unwrap(), 1);
        assert!(ask(Ask::Upload, served(), soon()).unwrap() >= PIECE as u64);
        assert!(ask(Ask::Download, served(), soon()).unwrap() > 0);
    }

    #[test]
    fn a_word_is_what_it_was_made_from() {
        for one in [Ask::Download, Ask::Upload, Ask::Echo] {
            assert_eq!(Ask::of(one.word()), Some(one));
        }
        assert_eq!(Ask::of("sideways"), None);
    }
}
