//! Distinguished names as text (RFC 4514): "CN=Ada,O=Example,C=DE", the most specific part first.
//!
//! Promise: a name cannot pretend to have parts it does not have, and holds no control characters.

use std::fmt::Write as _;

use x509_parser::asn1_rs::ToDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The short names of attributes: RFC 4514 section 3, and the one everybody uses besides.
const SHORT: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

pub(super) fn text(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter().collect();
    for (index, part) in parts.iter().rev().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for (index, attribute) in part.iter().enumerate() {
            if index > 0 {
                text.push('+');
            }
            push_attribute(attribute, &mut text);
        }
    }
    text
}

fn push_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(known, _)| *known == oid);
    text.push_str(short.map_or(&oid, |(_, short)| short));
    text.push('=');
    if let Ok(value) = attribute.as_str()
        && short.is_some()
    {
        return push_escaped(value, text);
    }
    text.push('#');
    for byte in attribute.attr_value().to_der_vec().unwrap_or_default() {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
}

fn push_escaped(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, letter) in value.chars().enumerate() {
        let edge = (letter == ' ' && (index == 0 || index == last)) || (letter == '#' && index == 0);
        if edge || matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            text.push('\\');
            text.push(letter);
        } else if letter.is_control() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                let _ = write!(text, "\\{byte:02x}");
            }
        } else {
            text.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_would_begin_another_part_are_escaped() {
        for (value, expected) in [
            ("Ada", "Ada"),
            ("a,O=root", "a\\,O\\=root"),
            (" #a ", "\\ #a\\ "),
            ("#a", "\\#a"),
            ("a\r\nb\u{85}", "a\\0d\\0ab\\c2\\85"),
            ("Zoë", "Zoë"),
        ] {
            let mut text = String::new();
            push_escaped(value, &mut text);
            assert_eq!(text, expected);
        }
    }
}
