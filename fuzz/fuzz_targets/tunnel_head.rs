//! Any bytes as the text of a tunnel's heads: the readers do not panic, and what was read is written and read again
//! as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_http::{Fields, Method, NameId};
use sluice_tunnel::text::{
    Marker, Upgrades, read_request, read_response, read_trailers, write_request, write_response,
    write_trailers,
};

/// The fields that cross every hop, by name: what is for one connection only is not written.
fn crossing(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let stays = |id: &NameId| !matches!(id, NameId::Other | NameId::UserAgent | NameId::ContentType);
    let lines = fields.iter().filter(|(id, ..)| !stays(id));
    let is_named = fields.contains(NameId::Connection);
    lines.filter(|_| !is_named).map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

fuzz_target!(|bytes: &[u8]| {
    for marker in [Marker::Written, Marker::Absent] {
        let Ok((head, content)) = read_request(bytes, marker) else { continue };
        let text = write_request(&head, content, Upgrades::Dropped, marker);
        let (again, _) = read_request(&text, marker).expect("what we write, we read");
        assert_eq!((again.method_text(), again.target()), (head.method_text(), head.target()));
        assert_eq!(crossing(&again.fields), crossing(&head.fields));
    }
    if let Ok((head, _)) = read_response(bytes, Method::Get) {
        let text = write_response(&head);
        let (again, _) = read_response(&text, Method::Get).expect("what we write, we read");
        assert_eq!((again.status, crossing(&again.fields)), (head.status, crossing(&head.fields)));
    }
    if let Ok(fields) = read_trailers(bytes) {
        let again = read_trailers(&write_trailers(&fields)).expect("what we write, we read");
        assert_eq!(crossing(&again), crossing(&fields));
    }
});
