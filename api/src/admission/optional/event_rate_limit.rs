//! [`EventRateLimit`]: how many events may be written in a time, by the server, a namespace, a user,
//! or a source about one object. As upstream, it counts those of the core group.

mod config;

use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;

use crate::admission::{Admit, Operation, Plugin};
use crate::lru::Lru;
use crate::object::Object;
use crate::resources::event;
use crate::status::Status;
use config::{Config, LimitConfig, LimitType};

/// The name of the plugin.
pub(super) const NAME: &str = "EventRateLimit";

/// Refuses events that are too many.
pub(super) struct EventRateLimit {
    limits: Vec<Limit>,
}

/// One limit, with a bucket for each whom it tells from others; when they are too many, the one that
/// was longest not drawn from is forgotten, and begins anew full.
struct Limit {
    config: LimitConfig,
    buckets: Mutex<Lru<String, Bucket>>,
}

/// How many events may be written now.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl EventRateLimit {
    /// With the limits of a `Configuration` of `eventratelimit.admission.k8s.io/v1alpha1`. The error
    /// says what is wrong with it.
    pub(super) fn new(configuration: &Value) -> Result<Self, String> {
        let config = Config::parse(configuration)?;
        Ok(Self { limits: config.limits.into_iter().map(Limit::new).collect() })
    }

    /// Takes a token of every limit; the error says which have none.
    fn take(&self, admit: &Admit<'_>, event: &Object, now: Instant) -> Result<(), String> {
        let reached = self.limits.iter().filter_map(|limit| {
            let key = limit.config.r#type.key(admit, event);
            let is_reached = !limit.take(&key, now);
            is_reached.then(|| {
                format!("limit reached on type {} for key {key}", limit.config.r#type.as_str())
            })
        });
        // All are drawn from, also where one is empty already.
        match reached.collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

impl Limit {
    fn new(config: LimitConfig) -> Self {
        let buckets = Mutex::new(Lru::new(config.buckets_max()));
        Self { config, buckets }
    }

    /// Whether there was a token for this key.
    fn take(&self, key: &String, now: Instant) -> bool {
        let LimitConfig { qps, burst, .. } = self.config;
        let (qps, burst) = (f64::from(qps), f64::from(burst));
        let mut buckets = self.buckets.lock();
        buckets
            .get_or_insert_with(key, || Bucket { tokens: burst, filled: now })
            .take(qps, burst, now)
    }
}

impl Bucket {
    /// Takes a token where there is one; `qps` come each second, and `burst` are kept at most.
    fn take(&mut self, qps: f64, burst: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * qps).min(burst);
        self.filled = self.filled.max(now);
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

impl LimitType {
    /// Whom an event counts for.
    fn key(self, admit: &Admit<'_>, event: &Object) -> String {
        match self {
            Self::Server => String::new(),
            Self::Namespace => admit.namespace.to_owned(),
            Self::User => admit.ctx.user().name.clone(),
            Self::SourceAndObject => source_and_object(event),
        }
    }
}

fn source_and_object(event: &Object) -> String {
    const PARTS: [&str; 7] = [
        "/source/component",
        "/source/host",
        "/involvedObject/kind",
        "/involvedObject/namespace",
        "/involvedObject/name",
        "/involvedObject/uid",
        "/involvedObject/apiVersion",
    ];
    PARTS.map(|pointer| event.str_at(pointer)).concat()
}

#[async_trait]
impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let is_of_events = (admit.kind.group, admit.kind.plural) == ("", event::KIND.plural);
        let is_written = matches!(admit.operation, Operation::Create | Operation::Update);
        let Some(event) = object.filter(|_| is_of_events && is_written && !admit.ctx.dry_run)
        else {
            return Ok(());
        };
        // It says no time to come again: as upstream, clients shall drop the event.
        self.take(admit, event, Instant::now())
            .map_err(|why| Status::too_many_requests(format!("Too many requests: {why}"), 0))
    }
}

#[cfg(test)]
mod tests;
