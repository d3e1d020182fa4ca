//! What a route does; one file each. (Under construction.)
pub mod forward;
pub mod redirect;
pub mod respond;
