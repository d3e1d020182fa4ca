//! What a program may change on the way, and what it is told.

use std::io;

use sluice_http::RequestHead;

use super::address::Address;
use super::handshake::OpenFailed;
use super::target::TargetFailed;
use crate::event::Cancel;
use crate::registration::Version;
use crate::websocket::Ended;

/// Where a program takes part; everything does nothing unless it is written.
pub trait Hooks {
    /// A tunnel is about to be announced: add fields, such as a token.
    fn register(&self, router: &Address, head: &mut RequestHead) {
        let _ = (router, head);
    }

    /// A request came and is about to be passed to the target.
    fn request(&self, router: &Address, head: &mut RequestHead) {
        let _ = (router, head);
    }

    /// Something happened.
    fn event(&self, event: &Event<'_>) {
        let _ = event;
    }
}

/// No hooks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {}

/// What happens in a connector.
#[derive(Debug)]
pub enum Event<'a> {
    /// The list of gateways is known, or another.
    RoutersChanged {
        /// New ones.
        added: &'a [Address],
        /// Gone ones; their tunnels are drained.
        removed: &'a [Address],
        /// Those that stay.
        unchanged: &'a [Address],
    },
    /// The list could not be found out.
    RoutersUnknown(&'a io::Error),
    /// A tunnel is open.
    Opened(&'a Address, Version),
    /// A tunnel could not be opened.
    OpenFailed(&'a Address, &'a OpenFailed),
    /// A tunnel has ended.
    Closed(&'a Address, &'a Ended),
    /// A deregistration failed; draining goes on.
    DeregisterFailed(&'a Address, &'a OpenFailed),
    /// The target did not answer, or not completely.
    TargetFailed {
        /// Where the request came from.
        router: &'a Address,
        /// What it asked for, as the target saw it.
        target: &'a str,
        /// How it failed.
        failed: TargetFailed,
    },
    /// An exchange was given up from the other side.
    Cancelled(Cancel),
}
