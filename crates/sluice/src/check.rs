//! `sluice check`: every problem of a configuration, which is everything that a start would refuse but addresses that
//! are taken and names that nobody can resolve: it opens no socket and writes no file.

use std::time::SystemTime;

use sluice_proxy::config::check::check as check_document;
use sluice_proxy::load;

use crate::cli::{CheckArgs, Exit, ReportFormat, complain, say};
use crate::documents::{self, Unusable};
use crate::run::wall;

/// Checks a configuration and the files it names, without touching the network.
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
        let counts = (loaded.document.listeners.len(), model.routes.len(), model.upstreams.len());
        if !args.without_files {
            let now = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let cautions = load::look(&loaded.document, model, now);
            let cautions =
                cautions.map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))?;
            for caution in cautions {
                complain(&format!("warning: {caution}"));
            }
        }
        Ok(counts)
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
