//! Child processes: announced, run, their failure a sentence.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Failed;

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    command
}

/// Where builds of this profile's programs are: `target/debug`, `target/release`.
pub(crate) fn built(profile: &str, program: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    root().join(target).join(profile).join(program)
}

/// Where the program `name` is: in PATH or in one of the places Debian keeps daemons.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Prints what is about to run.
pub(crate) fn announce(command: &Command) {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    println!("==> {program} {}", arguments.join(" "));
}

/// Announces and runs it; anything but success is a failure.
pub(crate) fn run(command: &mut Command) -> Result<(), Failed> {
    announce(command);
    let status =
        command.status().map_err(|error| format!("cannot start {:?}: {error}", command.get_program()))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{:?} failed: {status}", command.get_program())),
    }
}

/// Its standard output; anything but success is a failure. Its standard error goes to ours.
pub(crate) fn output(command: &mut Command) -> Result<String, Failed> {
    let what = format!("{:?}", command.get_program());
    let ended = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {what}: {error}"))?;
    match ended.status.success() {
        true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        false => Err(format!("{what} failed: {}", ended.status)),
    }
}

/// The value after the option `name`, taken out of the arguments.
pub(crate) fn option<'a>(arguments: &mut Vec<&'a str>, name: &str) -> Result<Option<&'a str>, Failed> {
    let Some(at) = arguments.iter().position(|argument| *argument == name) else { return Ok(None) };
    if at + 1 == arguments.len() {
        return Err(format!("{name} needs a value"));
    }
    arguments.remove(at);
    Ok(Some(arguments.remove(at)))
}

/// The number after the option `name`, or `default`.
pub(crate) fn number(arguments: &mut Vec<&str>, name: &str, default: usize) -> Result<usize, Failed> {
    match option(arguments, name)? {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{name} needs a number above 0, not {text:?}")),
        },
    }
}

/// Whether the flag `name` stands among the arguments; it is taken out.
pub(crate) fn flag(arguments: &mut Vec<&str>, name: &str) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| *argument != name);
    arguments.len() != before
}

/// Fails when arguments are left that nothing took.
pub(crate) fn none_left(arguments: &[&str]) -> Result<(), Failed> {
    match arguments {
        [] => Ok(()),
        left => Err(format!("unknown arguments: {} (see `cargo xtask help`)", left.join(" "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_out_and_what_is_left_is_refused() {
        let mut arguments = vec!["--rounds", "3", "--quick", "x"];
        assert_eq!(number(&mut arguments, "--rounds", 5), Ok(3));
        assert_eq!(number(&mut arguments, "--seconds", 5), Ok(5));
        assert!(flag(&mut arguments, "--quick") && !flag(&mut arguments, "--quick"));
        assert!(none_left(&arguments).is_err());
        assert!(number(&mut vec!["--rounds"], "--rounds", 1).is_err());
        assert!(number(&mut vec!["--rounds", "0"], "--rounds", 1).is_err());
    }
}
