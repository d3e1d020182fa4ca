//! Field names and values that a document writes into messages: checked and compiled when it is loaded.
//!
//! Promise: no edit can break framing or split a head, and no value asks for what is not known when it is
//! written.

use std::collections::BTreeMap;

use sluice_http::name::is_value;
use sluice_http::{FieldName, NameId};

use crate::problem::{At, Problems};
use crate::template::{Escape, Template};

/// Which variables a value may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variables {
    /// All.
    All,
    /// Those that are still known when the request's head has been given to the endpoint.
    Exchange,
}

/// Compiles a table of field names and value templates; `None` when a problem was added.
pub(crate) fn compile_values(
    values: &BTreeMap<String, String>,
    allowed: Variables,
    at: &At,
    problems: &mut Problems,
) -> Option<Vec<(FieldName, Template)>> {
    let mut compiled: Vec<Option<(FieldName, Template)>> = Vec::with_capacity(values.len());
    for (name, text) in values {
        let at = at.key(name.as_str());
        let name = editable_name(name, &at, problems);
        let twin = name.as_ref().and_then(|name| {
            let mut before = compiled.iter().flatten().map(|(other, _)| other.as_str());
            before.find(|other| other.eq_ignore_ascii_case(name.as_str()))
        });
        if let Some(twin) = twin {
            let message = format!("`{twin}` is the same field name: case does not matter");
            problems.add(&at, message).hint("keep one of the two");
            compiled.push(None);
            continue;
        }
        compiled.push(name.zip(compile_value(text, allowed, &at, problems)));
    }
    compiled.into_iter().collect()
}

fn compile_value(text: &str, allowed: Variables, at: &At, problems: &mut Problems) -> Option<Template> {
    if !text.bytes().all(is_value) {
        let hint = "write it on one line, without control characters";
        problems.add(at, "a field value may not hold control characters").hint(hint);
        return None;
    }
    let template = problems.take(at, Template::compile(text, Escape::None))?;
    if allowed == Variables::Exchange
        && let Some(variable) = template.variables().find(|name| !known_after_forwarding(name))
    {
        let message = format!("`{{{variable}}}` is not known when the response comes back");
        let hint = "use {client}, {listener}, {param.NAME}, {request_id}, {route} or {scheme}";
        problems.add(at, message).hint(hint);
        return None;
    }
    Some(template)
}

fn known_after_forwarding(variable: &str) -> bool {
    matches!(variable, "client" | "listener" | "request_id" | "route" | "scheme")
        || variable.starts_with("param.")
        || variable.starts_with("tls.")
}

/// Checks a field name that a document wants to edit: a token, and none of those that the gateway itself
/// answers for, because they say where a message ends or what the connection does.
pub(crate) fn editable_name(text: &str, at: &At, problems: &mut Problems) -> Option<FieldName> {
    let Some(name) = FieldName::new(text) else {
        let hint = "letters, digits and !#$%&'*+-.^_`|~, for example \"X-Request-Source\"";
        problems.add(at, format!("`{text}` is not a field name")).hint(hint);
        return None;
    };
    let hint = match name.id() {
        NameId::Host => "to choose the host that the endpoint sees, use `host` of the route's `forward`",
        NameId::ContentLength | NameId::TransferEncoding | NameId::Trailer => {
            "the gateway writes it to fit the body"
        }
        NameId::Connection
        | NameId::Expect
        | NameId::Http2Settings
        | NameId::KeepAlive
        | NameId::ProxyConnection
        | NameId::Te
        | NameId::Upgrade => "it belongs to one connection, and each side of the gateway has its own",
        _ => return Some(name),
    };
    problems.add(at, format!("`{text}` cannot be edited")).hint(hint);
    None
}
