//! What a model names that is outside of it: files, directories, servers. Read when it is to run, and when somebody
//! only asks what is wrong with it.
//!
//! Promise: [`look`] finds what a start would refuse, and touches nothing: it opens no socket and writes no file. Only
//! the start itself finds out whether an address is free to listen on and whether names can be resolved.

use std::sync::Arc;
use std::time::Duration;

use crate::action::Action;
use crate::address::Address;
use crate::config::document::Document;
use crate::config::model::Model;
use crate::filter;
use crate::limit::consumer::OfConsumer;
use crate::limit::seen::Seen;
use crate::observe::access_log::AccessLog;
use crate::problem::{At, Problems};
use crate::purpose::{Purpose, could_add};
use crate::tls;

/// Finds out what a start with this model would refuse; `now` is Unix time. Gives what an operator is to be warned of.
///
/// # Errors
/// All problems.
pub fn look(document: &Document, mut model: Model, now: Duration) -> Result<Vec<String>, Problems> {
    let mut problems = Problems::new();
    let shared = filter::Shared::for_purpose(Purpose::Looking, b"");
    if let Some(state) = &document.process.state {
        shared.limits.keep_in(state.into());
    }
    load_listeners(&mut model, &shared, &mut problems);
    load_filters(&mut model, &shared, &mut problems);
    consumer_limits(&model, &shared, &mut problems);
    let now = now.as_secs().try_into().unwrap_or(i64::MAX);
    let tls = tls::Loaded::load(&model.tls(), None, now, &mut problems);
    if let Some(plan) = &model.access_log
        && let Err(error) = AccessLog::look(plan)
    {
        let at = At::root().key("access_log").key("path");
        problems.add(&at, format!("the access log cannot be opened: {error}"));
    }
    for listener in &model.listeners {
        if let Address::Unix(path) = &listener.place.address
            && let Err(error) = path.parent().map_or(Ok(()), could_add)
        {
            let at = At::root().key("listeners").key(&*listener.name).key("address");
            problems.add(&at, format!("{} cannot be listened on: {error}", listener.place.address));
        }
    }
    if problems.is_empty() { Ok(tls.cautions().to_vec()) } else { Err(problems) }
}

/// Reads the lists of who may come in through listeners, and takes what limits how much runs there.
pub fn load_listeners(model: &mut Model, shared: &filter::Shared, problems: &mut Problems) {
    let at = At::root().key("listeners");
    for listener in &mut model.listeners {
        let at = at.key(&*listener.name).key("ip_access");
        // Nobody else has it yet: the model was made for this.
        let Some(listener) = Arc::get_mut(listener) else { continue };
        if let Some(access) = &mut listener.access {
            access.read(&at, problems);
        }
        if let Some(requests) = &mut listener.requests {
            requests.load(&shared.gates, &listener.name);
        }
    }
}

/// Reads the files of filters, and of actions that have some.
pub fn load_filters(model: &mut Model, shared: &filter::Shared, problems: &mut Problems) {
    let (routes, seen) = (At::root().key("routes"), Seen::default());
    // First, since filters may read what they make.
    for (route, place) in model.routes.iter_mut().zip(0..) {
        if let Action::Token(token) = &mut route.action {
            let who = (&model.consumers, &shared.verifier);
            let at = routes.index(place).key("token");
            token.load(who, (&shared.rings, &shared.revoked, &shared.redis), &at, problems);
        }
    }
    for (route, place) in model.routes.iter_mut().zip(0..) {
        let at = routes.index(place).key("filters");
        if let Action::Forward(forward) = &mut route.action {
            forward.load(&shared.circuits, &route.name);
        }
        let upstream = match &route.action {
            Action::Forward(forward) => model.upstreams.get(forward.upstream).map(|(name, _)| &**name),
            _ => None,
        };
        let consumers = &model.consumers;
        let loading = filter::Loading { shared, route: &route.name, upstream, consumers, seen: &seen };
        for (filter, place) in route.filters.iter_mut().zip(0..) {
            filter.load(&loading, &at.index(place), problems);
        }
    }
}

/// The limits of each consumer, by its position.
pub fn consumer_limits(model: &Model, shared: &filter::Shared, problems: &mut Problems) -> Vec<OfConsumer> {
    let at = At::root().key("consumer_limits");
    let places = (&*shared.redis, &shared.limits);
    let consumers = model.consumers.all().iter();
    consumers
        .map(|consumer| OfConsumer::load(consumer, &model.consumer_limits, places, &at, problems))
        .collect()
}
