//! `sluice make-key`: an API key, and the hash that stands for it in a document.
//!
//! Promise: the key is drawn from the system's random numbers and shown this once.

use sluice_proxy::credentials::KeyForm;

use crate::cli::{Exit, MakeKeyArgs, complain, say};

/// Prints a key and its hash.
pub(crate) fn make_key(args: &MakeKeyArgs) -> Exit {
    match KeyForm::new(&args.prefix).and_then(|form| form.make()) {
        Ok((key, hash)) => say(&format!("key:  {key}\nhash: {}", hash.0)),
        Err(text) => {
            complain(&format!("error: {text}"));
            Exit::Failure
        }
    }
}
