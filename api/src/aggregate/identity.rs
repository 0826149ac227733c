//! Who asks, as aggregated API servers are told: in `X-Remote-*` headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authn::User;

/// The name.
pub(super) const USER: &str = "X-Remote-User";
/// The uid.
pub(super) const UID: &str = "X-Remote-Uid";
/// A group; once for each.
pub(super) const GROUP: &str = "X-Remote-Group";
/// What else is known, with its key behind.
pub(super) const EXTRA_PREFIX: &str = "X-Remote-Extra-";

/// Says who asks, and lets nobody else say it.
pub(super) fn tell(headers: &mut HeaderMap, user: &User) {
    let is_ours = |name: &HeaderName| {
        let all = [USER, UID, GROUP];
        let name = name.as_str();
        let starts = name.get(..EXTRA_PREFIX.len());
        all.iter().any(|own| name.eq_ignore_ascii_case(own))
            || starts.is_some_and(|start| start.eq_ignore_ascii_case(EXTRA_PREFIX))
    };
    let stale: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in stale {
        headers.remove(name);
    }
    add(headers, USER, &user.name);
    if !user.uid.is_empty() {
        add(headers, UID, &user.uid);
    }
    for group in &user.groups {
        add(headers, GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA_PREFIX}{}", escaped(key));
        for value in values {
            add(headers, &name, value);
        }
    }
}

/// What cannot stand in a header is left out: the others then know less, never something wrong.
fn add(headers: &mut HeaderMap, name: &str, value: &str) {
    let name = HeaderName::try_from(name);
    let value = HeaderValue::from_bytes(value.as_bytes());
    if let (Ok(name), Ok(value)) = (name, value) {
        headers.append(name, value);
    }
}

/// A key with what cannot stand in a header's name, and the percent sign, as percent and two digits.
fn escaped(key: &str) -> String {
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_say_who_it_is_whatever_the_client_says() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(USER, "root"), (UID, "0"), (GROUP, "system:masters"), ("x-remote-extra-a", "b")]
        {
            headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        let mut user = User::authenticated("jane", &["dev"]);
        user.extra.insert("example.com/a b".into(), vec!["1".into(), "2".into()]);
        tell(&mut headers, &user);
        let all = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            values.map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(all(USER), ["jane"]);
        assert_eq!(all(GROUP), ["dev", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-example.com%2fa%20b"), ["1", "2"]);
        assert!(all(UID).is_empty() && all("x-remote-extra-a").is_empty());
    }
}
