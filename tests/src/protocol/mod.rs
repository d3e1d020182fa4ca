//! HTTP/1 at the socket, one file for each part of it.

mod connection;
mod deadlines;
mod endpoint;
mod expect;
mod framing;
mod hostile;
mod limits;
mod stream;
mod tunnel;
