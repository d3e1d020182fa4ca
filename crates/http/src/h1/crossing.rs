//! Which fields of a message may cross to the next hop when that one does not speak HTTP/1.
//!
//! Promise: the same rules as where HTTP/1 is written (see `encode`): nothing that is for one connection only,
//! nothing that Connection names and may name. What TE, Content-Length and Trailer become is the caller's.

use bytes::Bytes;

use super::encode::{is_field_name, is_named, says_trailers};
use super::options::connection_options;
use crate::fields::Fields;
use crate::name::NameId;

/// The field lines that may cross, in order: id, name as spelled, value. What was received is shared, what
/// was added is copied once for all lines.
pub fn crossing(fields: &Fields) -> impl Iterator<Item = (NameId, &[u8], Bytes)> {
    let has_named = connection_options(fields).any(is_field_name);
    let arena = Bytes::copy_from_slice(fields.text.arena());
    let crosses = move |id: NameId| {
        !matches!(
            id,
            NameId::Connection
                | NameId::KeepAlive
                | NameId::ProxyConnection
                | NameId::Http2Settings
                | NameId::TransferEncoding
                | NameId::Upgrade
        )
    };
    fields
        .list
        .iter()
        .filter(move |field| crosses(field.id) && !(has_named && is_named(fields, field)))
        .map(move |field| (field.id, fields.text.get(field.name), fields.text.share(field.value, &arena)))
}

/// Whether TE says that trailers are welcome (RFC 9110 section 10.1.4).
pub fn wants_trailers(fields: &Fields) -> bool {
    fields.get_all(NameId::Te).any(says_trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_connection_stays_behind() {
        let head = Bytes::from_static(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x-hop, host, TE\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\n\
              Upgrade: h2c\r\nX-End: 2\r\n\r\n",
        );
        let (mut head, _) = super::super::request(head, &super::super::Limits::default()).unwrap();
        head.fields.append(NameId::Via, b"1.1 us");
        let found: Vec<_> = crossing(&head.fields).map(|(id, _, value)| (id, value)).collect();
        let expected = [(NameId::Host, "a"), (NameId::Other, "2"), (NameId::Via, "1.1 us")];
        assert_eq!(found, expected.map(|(id, value)| (id, Bytes::from(value))));
        assert!(wants_trailers(&head.fields));
    }
}
