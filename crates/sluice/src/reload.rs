//! `sluice reload`: makes a running gateway read its configuration again, and says how that went.

use crate::admin;
use crate::cli::{AdminArgs, Exit, complain, say};

/// Asks the admin endpoint.
pub(crate) fn reload(args: &AdminArgs) -> Exit {
    match admin::ask(args, "POST /v1/reload") {
        Err(exit) => exit,
        Ok(answer) if answer.status == 200 => say(&answer.body),
        Ok(answer) if answer.status == 422 => {
            complain(&answer.body);
            Exit::Config
        }
        Ok(answer) => answer.complain(),
    }
}
