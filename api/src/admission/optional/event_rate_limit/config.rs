//! [`Config`]: the limits, as a `Configuration` of `eventratelimit.admission.k8s.io` says them.

use serde::Deserialize;
use serde_json::Value;

const VERSION: &str = "eventratelimit.admission.k8s.io/v1alpha1";
/// How many buckets a limit has where nothing is said, as upstream.
const BUCKETS: usize = 4096;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Config {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub(super) limits: Vec<LimitConfig>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitConfig {
    pub(super) r#type: LimitType,
    /// Events a second.
    #[serde(default)]
    pub(super) qps: i32,
    /// How many at once, after a quiet time.
    #[serde(default)]
    pub(super) burst: i32,
    #[serde(default)]
    cache_size: i32,
}

/// What the events of one bucket have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum LimitType {
    /// Nothing.
    Server,
    /// Their namespace.
    Namespace,
    /// Who writes them.
    User,
    /// Who tells them, and of what.
    SourceAndObject,
}

impl LimitType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Namespace => "Namespace",
            Self::User => "User",
            Self::SourceAndObject => "SourceAndObject",
        }
    }
}

impl LimitConfig {
    /// How many buckets are kept.
    pub(super) fn buckets_max(&self) -> usize {
        match (self.r#type, usize::try_from(self.cache_size)) {
            (LimitType::Server, _) => 1,
            (_, Ok(size)) if size > 0 => size,
            _ => BUCKETS,
        }
    }

    fn check(&self) -> Result<(), String> {
        let positive = [("burst", self.burst), ("qps", self.qps)];
        if let Some((field, value)) = positive.into_iter().find(|(_, value)| *value <= 0) {
            return Err(format!("{field}: Invalid value: {value}: must be positive"));
        }
        let size = self.cache_size;
        if self.r#type != LimitType::Server && size < 0 {
            return Err(format!("cacheSize: Invalid value: {size}: must not be negative"));
        }
        Ok(())
    }
}

impl Config {
    /// Reads one. The error says what is wrong with it.
    pub(super) fn parse(document: &Value) -> Result<Self, String> {
        let config: Self = Self::deserialize(document).map_err(|error| error.to_string())?;
        let (version, kind) = (&config.api_version, &config.kind);
        if version != VERSION || kind != "Configuration" {
            return Err(format!("expected a Configuration of {VERSION}, not {kind} of {version}"));
        }
        if config.limits.is_empty() {
            return Err("limits: Invalid value: []: must not be empty".to_owned());
        }
        for (index, limit) in config.limits.iter().enumerate() {
            limit.check().map_err(|why| format!("limits[{index}].{why}"))?;
        }
        Ok(config)
    }
}
