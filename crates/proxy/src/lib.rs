//! The data plane: a request's whole life.
//!
//! Folders stand in the order in which a request meets them: `worker` (one thread, one runtime) ->
//! `listener` -> `protocol` -> `pipeline` (one page: `handle`) -> `route` -> `filter` -> `action` ->
//! `upstream`. Beside them: `config` (document, model), `snapshot` (what runs), `health`, `observe`,
//! and the facts everything shares: `exchange`, `failure`, `facts`, `value`, `problem`, `world`.

pub mod action;
pub mod closest;
pub mod config;
pub mod exchange;
pub mod expression;
pub mod facts;
pub mod failure;
pub mod filter;
pub mod observe;
pub mod percent;
pub mod pipeline;
pub mod problem;
pub mod request_id;
pub mod route;
pub mod template;
pub mod upstream;
pub mod value;
