//! [`Noted`]: what policies note in the audit log about one write.

use serde_json::{Value, json};

use super::Finding;
use super::policy::{Action, Binding, Policy};
use crate::cel::{Outcome, Variables};
use crate::context::RequestContext;

/// Under which name what breaks a policy is noted.
const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";
/// The longest note; the rest is cut off, as upstream does.
const LENGTH_MAX: usize = 10 << 10;

/// What is to be noted.
#[derive(Default)]
pub(super) struct Noted {
    failures: Vec<Value>,
    /// Key and values, in the order in which they came up.
    annotations: Vec<(String, Vec<String>)>,
}

impl Noted {
    /// A write breaks a policy.
    pub(super) fn failure(&mut self, policy: &Policy, binding: &Binding, finding: &Finding) {
        let actions: Vec<&str> = binding.actions.iter().copied().map(Action::as_str).collect();
        self.failures.push(json!({
            "message": finding.message,
            "policy": policy.name,
            "binding": binding.name,
            "expressionIndex": finding.place,
            "validationActions": actions,
        }));
    }

    /// Takes over what was noted elsewhere.
    pub(super) fn extend(&mut self, other: Self) {
        self.failures.extend(other.failures);
        for (key, texts) in other.annotations {
            for text in texts {
                self.add(key.clone(), &text);
            }
        }
    }

    /// The policy's own notes; what cannot be told is returned.
    pub(super) fn annotations(&mut self, policy: &Policy, variables: &Variables) -> Vec<String> {
        let mut failed = Vec::new();
        for (key, expression) in &policy.annotations {
            match expression.as_ref().map_err(Clone::clone).and_then(|one| one.run(variables)) {
                Ok(Outcome::Null) => {}
                Ok(Outcome::String(text)) if text.trim().is_empty() => {}
                Ok(Outcome::String(text)) => self.add(format!("{}/{key}", policy.name), &text),
                Ok(_) => failed.push(format!(
                    "valueExpression of auditAnnotation '{key}' must be a text or null"
                )),
                Err(why) => failed.push(format!(
                    "valueExpression of auditAnnotation '{key}' resulted in error: {why}"
                )),
            }
        }
        failed
    }

    fn add(&mut self, key: String, text: &str) {
        let mut text = text.trim().to_owned();
        if text.len() > LENGTH_MAX {
            let end = (0..=LENGTH_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
        }
        match self.annotations.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) if values.contains(&text) => {}
            Some((_, values)) => values.push(text),
            None => self.annotations.push((key, vec![text])),
        }
    }

    /// Notes it all.
    pub(super) fn tell(self, ctx: &RequestContext) {
        for (key, values) in self.annotations {
            ctx.annotate(key, values.join(", "));
        }
        if !self.failures.is_empty() {
            ctx.annotate(FAILURE, Value::from(self.failures).to_string());
        }
    }
}
