//! The data plane: a request's whole life.
//!
//! Files and folders in the order in which a request meets them: `gateway` (what all workers share, and the
//! one way to change it) -> `worker` (one thread, one runtime) -> `listener` -> `protocol` -> `pipeline`
//! (one page: [`handle`](pipeline::handle)) -> `route` -> `filter` -> `action` -> `upstream`.
//!
//! Beside them: `config` (text -> document -> model), `snapshot` (what runs), `health`, `observe`, and what
//! they all share: `exchange`, `failure`, `facts`, `value`, `problem`, `world`.

pub mod action;
pub mod address;
pub mod bandwidth;
pub mod circuit;
pub mod client_counts;
pub mod closest;
pub mod config;
pub mod consumer;
pub mod credentials;
pub mod exchange;
pub mod explain;
pub mod expression;
pub mod facts;
pub mod failure;
pub mod fetch;
pub mod field_values;
pub mod filter;
pub mod gate;
pub mod gates;
pub mod gateway;
pub mod h2_message;
pub mod h2_push;
pub mod h2_stream;
pub mod health;
pub mod http_date;
pub mod limit;
pub mod line_file;
pub mod listener;
pub mod load;
pub mod network_list;
pub mod observe;
pub mod percent;
pub mod pipeline;
pub mod problem;
pub mod protocol;
pub mod purpose;
pub mod redis;
pub mod relay;
pub mod request_id;
pub mod resolve;
pub mod route;
pub mod scene;
pub mod snapshot;
pub mod sockets;
pub mod status;
pub mod stream;
pub mod template;
pub mod tls;
pub mod token;
pub mod tunnels;
pub mod upstream;
pub mod value;
pub mod websocket;
pub mod whole_body;
pub mod wire;
pub mod worker;
pub mod world;
