//! The program: command line, wiring, signals.
//!
//! `cli` says what can be asked; each command is a file or, `connect`, a folder. `run` is the life of a gateway process: load,
//! start, tell, then obey signals, file changes and the admin endpoint until it drains.

mod admin;
mod cert;
mod check;
pub mod cli;
mod config;
mod connect;
mod demo;
mod documents;
mod explain;
mod handover;
mod hash_password;
mod make_key;
mod reference;
mod reload;
mod run;
mod status;
mod watch;
