//! Reverse tunnels at the socket: connectors written here byte by byte, and ours.

mod connector;
mod dark;
mod events;
mod exchanges;
mod load;
mod raw;
mod registration;
mod shared;
mod streams;
mod waiting;
mod websocket;

use sluice_testkit::Gateway;

/// A gateway whose first path segment names the tunnel, with more at the end.
async fn gateway(more: &str) -> Gateway {
    Gateway::start(&document("300ms", "", more)).await
}

/// Its document: how long requests wait, what the tunnel listener says, and more at the end.
fn document(wait: &str, admission: &str, more: &str) -> String {
    format!(
        "[process]\nadmin = {{ address = \"127.0.0.1:0\" }}\ndrain_timeout = \"10s\"\n\n\
         [listeners.web]\naddress = \"127.0.0.1:0\"\n\n\
         [listeners.tunnels]\naddress = \"127.0.0.1:0\"\nprotocol = \"tunnel\"\n{admission}\n\n\
         [[routes]]\nname = \"any\"\ntunnel = {{ wait = \"{wait}\", upgrade = true }}\n\n{more}"
    )
}
