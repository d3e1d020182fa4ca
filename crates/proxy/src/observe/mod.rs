//! What is seen of the gateway: metrics and the access log. (Under construction.)
pub mod access_log;
