//! `sluice check`: every problem of a configuration.

use std::time::SystemTime;

use sluice_proxy::config::check::check as check_document;
use sluice_proxy::config::model::Model;
use sluice_proxy::problem::Problems;
use sluice_proxy::tls;

use crate::cli::{CheckArgs, Exit, ReportFormat, complain, say};
use crate::documents::{self, Unusable};
use crate::run::wall;

/// Reads the files that a configuration names, as running it would.
fn files(model: &Model) -> Result<Vec<String>, Problems> {
    let now = wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = now.as_secs().try_into().unwrap_or(i64::MAX);
    let mut problems = Problems::new();
    let loaded = tls::Loaded::load(&model.tls(), None, now, &mut problems);
    if problems.is_empty() { Ok(loaded.cautions().to_vec()) } else { Err(problems) }
}

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
        if !args.without_files {
            let cautions = files(&model);
            let cautions =
                cautions.map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))?;
            for caution in cautions {
                complain(&format!("warning: {caution}"));
            }
        }
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
