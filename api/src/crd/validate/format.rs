//! The forms that `format` names. One that Kubernetes does not check is not checked.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::validation::names;

/// Whether a text has a form.
pub(super) fn holds(text: &str, format: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(text, format),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => names::cidr(text).is_none(),
        "mac" => is_mac(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "uri" => {
            text.starts_with('/')
                || text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some())
        }
        "email" => {
            text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && is_hostname(host))
        }
        "hostname" => is_hostname(text),
        "hexcolor" => is_hex_color(text),
        _ => true,
    }
}

/// A number with a unit, or several: `1h30m`, `-1.5s`; or Go's longer words: `3 days`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let digits =
            rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let has_digits = digits.len() < rest.len();
        let unit = digits.trim_start().trim_start_matches(|letter: char| letter.is_alphabetic());
        let word = digits.trim_start();
        let word = &word[..word.len() - unit.len()];
        let known = ["ns", "us", "µs", "ms", "s", "m", "h", "d", "w"];
        let long = ["nano", "micro", "milli", "sec", "min", "hr", "hour", "day", "week"];
        let is_known = known.contains(&word) || long.iter().any(|start| word.starts_with(start));
        if !has_digits || !is_known {
            return false;
        }
        rest = unit.trim_start();
        parts += 1;
    }
    parts > 0
}

fn is_uuid(text: &str, format: &str) -> bool {
    let version = format.strip_prefix("uuid").and_then(|digits| digits.parse::<usize>().ok());
    let Ok(found) = uuid::Uuid::try_parse(text) else { return false };
    version.is_none_or(|version| found.get_version_num() == version)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let is_byte =
        |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(is_byte)
}

fn is_hostname(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_letter)
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(is_label)
}

fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}
