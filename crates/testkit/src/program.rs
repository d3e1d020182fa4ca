//! The `sluice` program as a child process: found, run, stopped.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::deadline::within;

/// Where the program under test is, and with what environment it runs.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: Option<PathBuf>,
    input: Option<String>,
}

/// What a program that has ended left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Its exit code; a signal that killed it fails the test.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("killed: {}\n{}", self.status, self.stderr))
    }
}

/// The `sluice` program with these arguments.
pub fn sluice<A: AsRef<str>>(arguments: impl IntoIterator<Item = A>) -> Program {
    Program::at(sluice_path()).arguments(arguments)
}

/// `SLUICE_BINARY`, which `cargo xtask test` sets, or the program beside the test binary's folder.
fn sluice_path() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_BINARY") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).expect("a test binary lies in target/PROFILE/deps");
    let path = target.join("sluice");
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`, or `cargo build -p sluice` first",
        path.display()
    );
    path
}

impl Program {
    /// The program at `path`, without arguments.
    pub fn at(path: impl Into<PathBuf>) -> Program {
        Program {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            input: None,
        }
    }

    /// Adds arguments.
    pub fn arguments<A: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = A>) -> Program {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable of the child.
    pub fn environment(mut self, name: &str, value: &str) -> Program {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Where it runs.
    pub fn directory(mut self, path: &Path) -> Program {
        self.directory = Some(path.to_owned());
        self
    }

    /// What it reads from its standard input, when it is run to its end.
    pub fn input(mut self, text: &str) -> Program {
        self.input = Some(text.to_owned());
        self
    }

    /// Where the program is.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} {}", self.path.display(), self.arguments.join(" "))
    }

    /// Runs it to its end.
    pub async fn finish(&self) -> Finished {
        let what = self.describe();
        let mut child = self.command().spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        if let (Some(text), Some(mut stdin)) = (&self.input, child.stdin.take()) {
            // A program that does not read all of it is no failure of the test; a pipe holds what tests send.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (status, _, _) = within(&format!("the end of {what}"), async {
            tokio::join!(child.wait(), out.read_to_end(&mut stdout), err.read_to_end(&mut stderr))
        })
        .await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Finished { status: status.unwrap(), stdout: text(&stdout), stderr: text(&stderr) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_gives_its_code_and_what_it_said() {
        let shell = Program::at("/bin/sh").environment("WORD", "hello");
        let ended = shell.arguments(["-c", "echo $WORD; echo no >&2; exit 78"]).finish().await;
        assert_eq!((ended.code(), ended.stdout.as_str(), ended.stderr.as_str()), (78, "hello\n", "no\n"));
        let fed = Program::at("/bin/sh").arguments(["-c", "cat"]).input("fed").finish().await;
        assert_eq!(fed.stdout, "fed");
    }
}
