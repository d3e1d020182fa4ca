//! `sluice config`: the schema, and a configuration as it was understood.

use sluice_proxy::config::{self, Format};

use crate::cli::{Exit, Language, ShowArgs, complain, say};
use crate::documents;

/// Prints the JSON Schema.
pub(crate) fn schema() -> Exit {
    say(&format!("{:#}", config::schema()))
}

/// Prints a configuration as it was understood.
pub(crate) fn show(args: &ShowArgs) -> Exit {
    let path = match documents::find(args.config.path.as_deref()) {
        Ok(path) => path,
        Err(text) => {
            complain(&format!("error: {text}"));
            return Exit::Config;
        }
    };
    let format = match args.format {
        Language::Toml => Format::Toml,
        Language::Yaml => Format::Yaml,
        Language::Json => Format::Json,
    };
    match documents::read(&path).and_then(|source| documents::load(&source, path.parent())) {
        Ok(loaded) => match loaded.show(format) {
            Ok(text) => say(text.trim_end()),
            Err(error) => {
                complain(&format!("error: {error}"));
                Exit::Failure
            }
        },
        Err(unusable) => unusable.complain(),
    }
}
