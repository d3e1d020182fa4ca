//! What somebody orders while the gateway runs: what is dark, and whether requests use it.

use std::sync::Arc;

use super::Tunnels;
use super::darkness::{Disobeyed, Subject};

impl Tunnels {
    /// Makes something dark, until it is taken back or the process ends; `by` is who says so.
    ///
    /// # Errors
    /// [`Disobeyed::TooMany`].
    pub fn darken(self: &Arc<Self>, subject: Subject, by: &str) -> Result<(), Disobeyed> {
        let said = subject.to_string();
        self.with_darkness(|darkness| darkness.order(subject))?;
        self.told("made dark", &said, by);
        Ok(())
    }

    /// Takes that back; requests use what is lit from now on.
    ///
    /// # Errors
    /// It was not ordered.
    pub fn lighten(self: &Arc<Self>, subject: &Subject, by: &str) -> Result<(), Disobeyed> {
        self.with_darkness(|darkness| darkness.revoke(subject))?;
        self.told("no longer dark", &subject.to_string(), by);
        Ok(())
    }

    /// Lets all requests use what is dark, or what is not.
    ///
    /// # Errors
    /// [`Disobeyed::NothingDark`].
    pub fn set_gray(self: &Arc<Self>, is_gray: bool, by: &str) -> Result<(), Disobeyed> {
        self.with_darkness(|darkness| darkness.set_gray(is_gray))?;
        self.told(if is_gray { "requests use what is dark" } else { "requests use what is lit" }, "all", by);
        Ok(())
    }

    fn told(&self, change: &str, subject: &str, by: &str) {
        let fields: [(&str, &dyn std::fmt::Display); 3] =
            [("change", &change), ("subject", &subject), ("by", &by)];
        self.diagnostics.info("dark launch", &fields);
    }

    /// Whether this is dark.
    pub fn is_dark(&self, subject: &Subject) -> bool {
        self.ask_darkness(|darkness| darkness.has(subject))
    }

    /// Addresses, networks and routes that are dark.
    pub fn dark(&self) -> (Vec<String>, Vec<String>) {
        self.ask_darkness(|darkness| (darkness.addresses(), darkness.routes()))
    }

    /// Whether anything is dark, and whether requests use it.
    pub fn dark_mode(&self) -> (bool, bool) {
        self.ask_darkness(|darkness| (darkness.is_on(), darkness.is_gray()))
    }
}
