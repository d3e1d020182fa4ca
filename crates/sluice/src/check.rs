//! `sluice check`: every problem of a configuration.

use sluice_proxy::config::check::check as check_document;

use crate::cli::{CheckArgs, Exit, ReportFormat, complain, say};
use crate::documents::{self, Unusable};

/// Checks a configuration without touching the network.
pub(crate) fn check(args: &CheckArgs) -> Exit {
    let path = match documents::find(args.config.path.as_deref()) {
        Ok(path) => path,
        Err(text) => {
            complain(&format!("error: {text}"));
            return Exit::Config;
        }
    };
    let checked = documents::read(&path).and_then(|source| {
        let loaded = documents::load(&source, path.parent())?;
        let model = check_document(&loaded.document)
            .map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))?;
        Ok((loaded.document.listeners.len(), model.routes.len(), model.upstreams.len()))
    });
    match (checked, args.format) {
        (Ok((listeners, routes, upstreams)), ReportFormat::Text) => say(&format!(
            "{}: fine ({listeners} listeners, {routes} routes, {upstreams} upstreams)",
            path.display()
        )),
        (Ok(_), ReportFormat::Json) => say("[]"),
        (Err(unusable), ReportFormat::Text) => unusable.complain(),
        (Err(unusable), ReportFormat::Json) => {
            say(&format!("{:#}", unusable.to_json()));
            Exit::Config
        }
    }
}
