//! Finding and reading configurations.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use sluice_proxy::config::{self, Format, Loaded, Report, Source, Style, SystemEnvironment};

use crate::cli::{Exit, complain};

/// Where a configuration is looked for when none is named.
const PLACES: [&str; 2] = ["sluice.toml", "/etc/sluice/sluice.toml"];

/// A configuration could not be used.
pub(crate) enum Unusable {
    /// It could not be read.
    Unreadable(String),
    /// It has problems.
    Problems(Box<Report>),
}

/// The configuration that is meant.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let found = PLACES.iter().map(Path::new).find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        format!(
            "no configuration: neither {} nor {} exists\n\
             hint: name one (`sluice run my.toml`), or try `sluice demo`",
            PLACES[0], PLACES[1]
        )
    })
}

/// Reads a configuration's text.
pub(crate) fn read(path: &Path) -> Result<Source, Unusable> {
    let name = path.display().to_string();
    let Some(format) = Format::of_path(path) else {
        return Err(Unusable::Unreadable(format!("{name}: not a .toml, .yaml, .yml or .json file")));
    };
    let bytes = std::fs::read(path).map_err(|error| Unusable::Unreadable(format!("{name}: {error}")))?;
    Source::from_bytes(name, bytes, format).map_err(|report| Unusable::Problems(Box::new(report)))
}

/// Reads a configuration's document; `folder` is where `${file:...}` starts from.
pub(crate) fn load(source: &Source, folder: Option<&Path>) -> Result<Loaded, Unusable> {
    let environment = SystemEnvironment { folder: folder.map(Path::to_owned).unwrap_or_default() };
    config::load(source, &environment).map_err(|report| Unusable::Problems(Box::new(report)))
}

impl Unusable {
    /// Shows what is wrong on standard error.
    pub(crate) fn complain(&self) -> Exit {
        match self {
            Unusable::Unreadable(text) => complain(&format!("error: {text}")),
            Unusable::Problems(report) => {
                complain(report.render(style()).trim_end());
                let (count, s) = (report.len(), if report.len() == 1 { "" } else { "s" });
                complain(&format!("error: {count} problem{s} in {}", report.source().name));
            }
        }
        Exit::Config
    }

    /// What is wrong, for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Unusable::Unreadable(text) => serde_json::json!([{ "message": text }]),
            Unusable::Problems(report) => report.to_json(),
        }
    }

    /// How many problems there are.
    pub(crate) fn count(&self) -> usize {
        match self {
            Unusable::Unreadable(_) => 1,
            Unusable::Problems(report) => report.len(),
        }
    }

    /// What is wrong, in plain text.
    pub(crate) fn text(&self) -> String {
        match self {
            Unusable::Unreadable(text) => text.clone(),
            Unusable::Problems(report) => report.render(Style::Plain),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "NO_COLOR is about this terminal, not about a configuration")]
fn style() -> Style {
    let colour =
        std::io::stderr().is_terminal() && std::env::var("NO_COLOR").map_or(true, |value| value.is_empty());
    if colour { Style::Colour } else { Style::Plain }
}
