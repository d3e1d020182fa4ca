//! What is seen of the gateway: metrics, the access log, and messages to the operator.
//!
//! Promise: nothing here makes an exchange wait. What is counted is counted in the worker's own cells and
//! merged when somebody looks; what is logged is formatted into the worker's own buffer and written by
//! another thread. Time is an argument everywhere.

pub mod access_log;
pub mod diagnostic;
pub mod metrics;
pub mod timestamp;
