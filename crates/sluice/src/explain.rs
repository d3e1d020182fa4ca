//! `sluice route explain`: which route a request takes, why, and where it would go.

use sluice_proxy::config::check::check;
use sluice_proxy::explain::{Question, explain as answer};
use sluice_proxy::world::Clock;

use crate::cli::{Exit, ExplainArgs, ReportFormat, complain, say};
use crate::documents::{self, Unusable};

/// Explains a request's route.
pub(crate) fn explain(args: &ExplainArgs) -> Exit {
    let path = match documents::find(args.config.as_deref()) {
        Ok(path) => path,
        Err(text) => {
            complain(&format!("error: {text}"));
            return Exit::Config;
        }
    };
    let model = documents::read(&path).and_then(|source| {
        let loaded = documents::load(&source, path.parent())?;
        check(&loaded.document).map_err(|problems| Unusable::Problems(Box::new(loaded.report(&problems))))
    });
    let model = match model {
        Ok(model) => model,
        Err(unusable) => return unusable.complain(),
    };
    let question = Question {
        method: &args.method,
        url: &args.url,
        fields: &args.headers,
        client: args.client,
        listener: args.listener.as_deref(),
    };
    match (answer(&model, &question, Clock::start()), args.format) {
        (Ok(answer), ReportFormat::Text) => say(answer.to_string().trim_end()),
        (Ok(answer), ReportFormat::Json) => say(&format!("{:#}", answer.to_json())),
        (Err(text), _) => {
            complain(&format!("error: {text}"));
            Exit::Usage
        }
    }
}
