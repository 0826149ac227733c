//! [`Hook`]: one webhook of a configuration, ready to be asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;

use crate::admission::matching::{Conditions, Rule, Selectors};
use crate::cel::VARIABLES;
use crate::object::Object;
use crate::outbound::Target;

/// How many calls of one webhook are under way at once; more fail, so that one that hangs does not
/// hold all the others up.
const CALLS_MAX: usize = 256;
const TIMEOUT_SECONDS: u64 = 10;

/// What becomes of a write when its webhook cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is refused.
    Fail,
    /// It goes on.
    Ignore,
}

/// One webhook.
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) rules: Vec<Rule>,
    pub(super) is_equivalent: bool,
    pub(super) selectors: Selectors,
    pub(super) conditions: Conditions,
    pub(super) target: Target,
    pub(super) timeout: Duration,
    pub(super) failure: Failure,
    pub(super) has_side_effects: bool,
    pub(super) wants_again: bool,
    /// Of the reviews that it understands.
    pub(super) api_version: &'static str,
    pub(super) calls: Semaphore,
}

impl Hook {
    fn of(value: &Value) -> Self {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let versions = value.get("admissionReviewVersions").and_then(Value::as_array);
        let mut versions = versions.into_iter().flatten().filter_map(Value::as_str);
        let first = versions.find(|version| matches!(*version, "v1" | "v1beta1"));
        // A namespace's object is for policies only.
        let variables: Vec<&str> =
            VARIABLES.into_iter().filter(|name| *name != "namespaceObject").collect();
        Self {
            name: text("name").to_owned(),
            rules: Rule::list(value.get("rules")),
            is_equivalent: text("matchPolicy") != "Exact",
            selectors: Selectors::of(value),
            conditions: Conditions::of(value.get("matchConditions"), &variables),
            target: Target::of(value.get("clientConfig").unwrap_or(&Value::Null)),
            timeout: Duration::from_secs(
                value.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(TIMEOUT_SECONDS),
            ),
            failure: if text("failurePolicy") == "Ignore" {
                Failure::Ignore
            } else {
                Failure::Fail
            },
            has_side_effects: !matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            wants_again: text("reinvocationPolicy") == "IfNeeded",
            api_version: match first {
                Some("v1beta1") => "admission.k8s.io/v1beta1",
                _ => "admission.k8s.io/v1",
            },
            calls: Semaphore::new(CALLS_MAX),
        }
    }
}

/// The webhooks of each configuration at the version at which it was last seen.
#[derive(Default)]
pub(super) struct Known(HashMap<String, (String, Vec<Arc<Hook>>)>);

impl Known {
    /// All webhooks, by the names of their configurations.
    pub(super) fn hooks(&mut self, configurations: &[Arc<Object>]) -> Vec<Arc<Hook>> {
        let mut sorted: Vec<&Arc<Object>> = configurations.iter().collect();
        sorted.sort_by(|a, b| a.name().cmp(b.name()));
        let (mut all, mut known) = (Vec::new(), HashMap::new());
        for configuration in sorted {
            let version = configuration.resource_version();
            let hooks = match self.0.remove(configuration.name()) {
                Some((seen, hooks)) if seen == version => hooks,
                _ => hooks_of(configuration),
            };
            all.extend(hooks.iter().cloned());
            known.insert(configuration.name().to_owned(), (version.to_owned(), hooks));
        }
        self.0 = known;
        all
    }
}

fn hooks_of(configuration: &Object) -> Vec<Arc<Hook>> {
    let hooks = configuration.at("/webhooks").and_then(Value::as_array).into_iter().flatten();
    hooks.map(|hook| Arc::new(Hook::of(hook))).collect()
}
