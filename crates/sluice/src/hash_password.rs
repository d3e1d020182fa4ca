//! `sluice hash-password`: what stands for a password in `basic_auth` and in htpasswd files.
//!
//! Promise: a password is read from standard input alone (an argument would stand in the list of processes and
//! in the shell's history) and is not shown while it is typed.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sluice_proxy::credentials::{Making, make};

use crate::cli::{Exit, HashPasswordArgs, complain, say};

/// The most bytes that are read: more than any password may have.
const MOST: u64 = 64 * 1024;

/// Reads a password and prints its hash.
pub(crate) fn hash_password(args: &HashPasswordArgs) -> Exit {
    let making = if args.bcrypt { Making::Bcrypt } else { Making::Argon2id };
    let read = if std::io::stdin().is_terminal() { ask_twice() } else { read_line() };
    match read.and_then(|password| make(&password, making)) {
        Ok(hash) => say(&hash),
        Err(text) => {
            complain(&format!("error: {text}"));
            Exit::Failure
        }
    }
}

/// The first line, without its end.
fn read_line() -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(MOST).read_until(b'\n', &mut line);
    read.map_err(|error| format!("standard input cannot be read: {error}"))?;
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        line.pop_if(|byte| *byte == b'\r');
    }
    Ok(line)
}

fn ask_twice() -> Result<Vec<u8>, String> {
    let password = ask("Password: ")?;
    match ask("Again: ")? == password {
        true => Ok(password),
        false => Err("the two are not the same".to_owned()),
    }
}

fn ask(prompt: &str) -> Result<Vec<u8>, String> {
    // The prompt is not part of the output, which may go into a file.
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{prompt}").and_then(|()| stderr.flush());
    let quiet = Quiet::begin().map_err(|error| format!("the terminal cannot be kept quiet: {error}"))?;
    let line = read_line();
    drop(quiet);
    let _ = writeln!(stderr);
    line
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> std::io::Result<Quiet> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nobody to tell when the terminal has gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}
