//! How tunnels end, as it is counted.

use sluice_http::reasons::reasons;
use sluice_tunnel::websocket::Ended;

reasons! {
    /// How a tunnel ended.
    pub enum End {
        Closed "closed" "its connector closed it",
        Ours "closed-by-us" "this gateway closed it: its client left, its connector deregistered, or a stop",
        Dropped "dropped" "its connection broke",
        Silent "silent" "its connector said nothing for too long",
        Broken "broken" "its connector broke a rule of the protocol",
    }
}

impl From<&Ended> for End {
    fn from(ended: &Ended) -> End {
        match ended {
            Ended::Closed(_) => End::Closed,
            Ended::Ours => End::Ours,
            Ended::Dropped => End::Dropped,
            Ended::Silent => End::Silent,
            Ended::Broken(_) => End::Broken,
        }
    }
}
