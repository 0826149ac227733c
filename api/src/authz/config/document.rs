//! The document of an `AuthorizationConfiguration` as it is written, before it is checked.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    pub(super) api_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) authorizers: Vec<Authorizer>,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[derive(Default)]
pub(super) struct Authorizer {
    pub(super) r#type: String,
    pub(super) name: String,
    pub(super) webhook: Option<Webhook>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) timeout: Option<GoDuration>,
    #[serde(rename = "authorizedTTL")]
    pub(super) authorized_ttl: Option<GoDuration>,
    #[serde(rename = "unauthorizedTTL")]
    pub(super) unauthorized_ttl: Option<GoDuration>,
    pub(super) cache_authorized_requests: Option<bool>,
    pub(super) cache_unauthorized_requests: Option<bool>,
    pub(super) subject_access_review_version: String,
    pub(super) match_condition_subject_access_review_version: String,
    pub(super) failure_policy: String,
    pub(super) connection_info: ConnectionInfo,
    pub(super) match_conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ConnectionInfo {
    pub(super) r#type: String,
    pub(super) kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Condition {
    pub(super) expression: String,
}

/// A time as Go writes it: `3s`, `1m30s`, `1.5h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GoDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let expected = || de::Error::custom(format!("{text:?}: expected a time such as 3s or 5m"));
        parse(&text).map(Self).ok_or_else(expected)
    }
}

/// The time that a text says; nothing where it is none, or less than none, or too long for anything.
fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
        let mut units = units.into_iter().chain([("h", 3600.0)]);
        let (unit, factor) = units.find(|(unit, _)| after.starts_with(unit))?;
        seconds += number.parse::<f64>().ok()? * factor;
        rest = &after[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, ms) in
            [("3s", 3000), ("1m30s", 90_000), ("1.5h", 5_400_000), ("250ms", 250), ("0", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "3", "s", "-1s", "3d", "1s2", "1e3s", "99999999999999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
