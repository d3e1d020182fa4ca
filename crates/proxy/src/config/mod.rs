//! What people write: document -> model.
//!
//! A [`Document`] is the text in our types, nothing resolved. [`check`](check::check) turns it into a
//! [`Model`](model::Model): names resolved, patterns compiled, defaults applied, or every problem at once.

pub mod document;
