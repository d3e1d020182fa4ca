//! Both ends of a long stream: an origin that is a process of its own, and a client.
//!
//! The content is made at either end from its length alone, and no two of its pieces are equal. `GET /any/BYTES` gets
//! so much of it; what is sent is answered with its hash.

use std::hash::{DefaultHasher, Hasher};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::Failed;

/// Bytes given to the kernel, or asked of it, at a time.
const PIECE: usize = 256 << 10;
/// A peer that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(30);

/// `bench tunnel-origin PORT`: serves until it is killed.
pub(in super::super) fn origin(arguments: &[&str]) -> std::result::Result<(), Failed> {
    let [Ok(port)] = arguments.iter().map(|text| text.parse::<u16>()).collect::<Vec<_>>()[..] else {
        return Err("tunnel-origin PORT".into());
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("cannot listen on {port}: {error}"))?;
    for stream in listener.incoming().flatten() {
        // Who goes away is told by the other end.
        thread::spawn(move || serve(stream));
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> Result<()> {
    let (head, rest) = head_of(&mut stream)?;
    if head.starts_with("GET ") {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let bytes = path.rsplit('/').next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        return each_piece(bytes, |piece| stream.write_all(piece));
    }
    let length = length_of(&head)?;
    let hash = hash_of(&mut stream, &rest, length)?;
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{hash}", hash.len());
    stream.write_all(answer.as_bytes())
}

/// Sends so much content to the gateway at this port; an error unless the other end got the same.
pub(super) fn upload(port: u16, route: &str, bytes: u64) -> Result<()> {
    let mut stream = connect(port)?;
    let head = format!("PUT /{route}/ HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    each_piece(bytes, |piece| stream.write_all(piece))?;
    let (head, mut content) = head_of(&mut stream)?;
    let length = length_of(&head)?;
    let left = length.saturating_sub(content.len() as u64);
    (&stream).take(left).read_to_end(&mut content)?;
    same(&String::from_utf8_lossy(&content), bytes)
}

/// Gets so much content from the gateway at this port; an error unless it is what the other end makes.
pub(super) fn download(port: u16, route: &str, bytes: u64) -> Result<()> {
    let mut stream = connect(port)?;
    let head = format!("GET /{route}/{bytes} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let (head, rest) = head_of(&mut stream)?;
    let length = length_of(&head)?;
    same(&hash_of(&mut stream, &rest, length)?, bytes)
}

fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

fn same(hash: &str, bytes: u64) -> Result<()> {
    let mut made = DefaultHasher::new();
    each_piece(bytes, |piece| {
        made.write(piece);
        Ok(())
    })?;
    match *hash == shown(&made) {
        true => Ok(()),
        false => Err(Error::other(format!("what arrived is not what was sent: {hash:?}"))),
    }
}

fn shown(hasher: &DefaultHasher) -> String {
    format!("{:016x}", hasher.finish())
}

/// The content, piece by piece: noise, with the piece's number in front.
fn each_piece(bytes: u64, mut with: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece: Vec<u8> = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise.to_le_bytes()
    })
    .take(PIECE / 8)
    .flatten()
    .collect();
    let mut left = bytes;
    while left > 0 {
        piece[..8].copy_from_slice(&left.to_le_bytes());
        let length = left.min(PIECE as u64) as usize;
        with(&piece[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// The hash of so much content, of which some was read already.
fn hash_of(stream: &mut TcpStream, read: &[u8], length: u64) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(read);
    let mut left = length.saturating_sub(read.len() as u64);
    let mut piece = vec![0; PIECE];
    while left > 0 {
        match stream.read(&mut piece)? {
            0 => return Err(Error::new(ErrorKind::UnexpectedEof, format!("{left} bytes are missing"))),
            read => {
                hasher.write(&piece[..read]);
                left = left.saturating_sub(read as u64);
            }
        }
    }
    Ok(shown(&hasher))
}

/// A head, and what was read behind it.
fn head_of(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&read).into_owned(), rest));
        }
        match stream.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&piece[..count]),
        }
    }
}

/// What Content-Length says, of a request or of a good answer.
fn length_of(head: &str) -> Result<u64> {
    let first = head.lines().next().unwrap_or_default();
    let is_good = !first.starts_with("HTTP/") || first.contains(" 200 ");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    length.filter(|_| is_good).ok_or_else(|| Error::other(format!("not a good head: {first}")))
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
    fn content_is_the_same_at_both_ends_however_it_is_cut() {
        let odd = 3 * PIECE as u64 + 5;
        upload(served(), "any", odd).unwrap();
        download(served(), "any", odd).unwrap();
    }

    #[test]
    fn pieces_differ_and_a_wrong_hash_is_seen() {
        let mut seen = Vec::new();
        each_piece(2 * PIECE as u64, |piece| {
            seen.push(piece.to_vec());
            Ok(())
        })
        .unwrap();
        assert!(seen.len() == 2 && seen[0] != seen[1]);
        assert!(same("0", 1).is_err());
    }
}
