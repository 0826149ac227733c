//! What the labels of a namespace say.

use std::fmt;

use crate::object::Object;
use crate::status::FieldError;

/// What its labels and its notes in the audit log begin with.
pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// The standards, each stricter than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    const ALL: [Self; 3] = [Self::Privileged, Self::Baseline, Self::Restricted];

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Of which release of Kubernetes a standard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Latest,
    /// The minor release of 1.
    Of(u32),
}

impl Version {
    /// The minor release whose checks count.
    pub(super) fn minor(self) -> u32 {
        match self {
            Self::Latest => u32::MAX,
            Self::Of(minor) => minor,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let is_plain = minor == "0" || !minor.starts_with(['0', '+']);
        minor.parse().ok().filter(|_| is_plain).map(Self::Of)
    }
}

/// A standard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Limit {
    /// Whether pods may violate it that did not violate the other.
    pub(super) fn is_tighter_than(&self, other: &Self) -> bool {
        self != other
            && self.level != Level::Privileged
            && (self.version != other.version || self.level > other.level)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Latest => write!(out, "{}:latest", self.level.as_str()),
            Version::Of(minor) => write!(out, "{}:v1.{minor}", self.level.as_str()),
        }
    }
}

/// What counts in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Limit,
    pub(super) audit: Limit,
    pub(super) warn: Limit,
}

impl Policy {
    /// What the labels say, and what is wrong with them. Who says nonsense of what is enforced has
    /// the strictest of all.
    pub(super) fn of(namespace: &Object) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let enforce = limit(namespace, "enforce", Level::Restricted, &mut errors);
        let audit = limit(namespace, "audit", Level::Privileged, &mut errors);
        let warn = limit(namespace, "warn", Level::Privileged, &mut errors);
        (Self { enforce, audit, warn }, errors)
    }
}

fn limit(namespace: &Object, mode: &str, otherwise: Level, errors: &mut Vec<FieldError>) -> Limit {
    let mut refuse = |label: &str, value: &str, why: &str| {
        let path = format!("metadata.labels[{label}]");
        errors.push(FieldError::invalid(path, value, why));
    };
    let label = format!("{PREFIX}{mode}");
    let level = namespace.label(&label).map_or(Level::Privileged, |text| {
        Level::ALL.into_iter().find(|level| level.as_str() == text).unwrap_or_else(|| {
            refuse(&label, text, "must be one of privileged, baseline, restricted");
            otherwise
        })
    });
    let label = format!("{label}-version");
    let version = namespace.label(&label).map_or(Version::Latest, |text| {
        Version::parse(text).unwrap_or_else(|| {
            refuse(&label, text, "must be \"latest\" or \"v1.x\"");
            Version::Latest
        })
    });
    Limit { level, version }
}
