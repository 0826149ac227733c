//! [`Quota`]: nothing is created beyond what the quotas of its namespace allow.
//!
//! What an object uses is charged to the status of each quota that counts it, in the transaction
//! that stores the object and on the condition that the quota is as it was looked at. So two servers
//! that create at the same moment cannot both take the last of it, and what is refused otherwise
//! costs nothing. What is freed, the leader's controller finds out and writes.

pub mod usage;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Admit, Operation, Plugin};
use crate::informer::Informer;
use crate::object::Object;
use crate::registry::Registry;
use crate::registry::strategy::Attached;
use crate::resources::resource_quota;
use crate::status::Status;
use usage::{Usage, matches, missing, usage};

/// Charges quotas.
pub struct Quota {
    quotas: Arc<Informer<Object>>,
}

impl Quota {
    /// Finds by this informer which namespaces have quotas.
    pub fn new(quotas: Arc<Informer<Object>>) -> Self {
        Self { quotas }
    }
}

#[async_trait]
impl Plugin for Quota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    async fn charge(&self, admit: &Admit<'_>, object: &Object) -> Result<Attached, Status> {
        let mut attached = Attached::default();
        let is_counted = matches!(admit.subresource, "" | "resize");
        if !is_counted || admit.operation == Operation::Delete || admit.namespace.is_empty() {
            return Ok(attached);
        }
        let known = self.quotas.list_in(admit.namespace);
        if known.is_empty() {
            return Ok(attached);
        }
        let new = usage(admit.kind, object);
        let old = admit.old.map(|old| usage(admit.kind, old)).unwrap_or_default();
        for quota in known.iter().filter(|quota| matches(quota, admit.kind, object)) {
            // As it is now: what is in memory may be of a moment ago, and would be refused.
            let latest = admit.registry.latest(&resource_quota::KIND, quota).await?;
            let Some((quota, revision)) = latest else { continue };
            let Some(charged) = charge(admit, &quota, object, &new, &old)? else { continue };
            attached.extend(Registry::replacement(&resource_quota::KIND, &charged, revision)?);
        }
        Ok(attached)
    }
}

/// The quota with what the object adds; `None` where it adds nothing.
fn charge(
    admit: &Admit<'_>,
    quota: &Object,
    object: &Object,
    new: &Usage,
    old: &Usage,
) -> Result<Option<Object>, Status> {
    let refuse = |why: String| {
        let kind = admit.kind;
        Err(Status::forbidden(kind.group, kind.plural, object.name(), why))
    };
    let limited = usage::amounts(quota.at("/spec/hard"));
    let wanted: Usage = new
        .iter()
        .filter(|(name, _)| limited.contains_key(*name))
        .map(|(name, amount)| {
            let before = old.get(name).copied().unwrap_or_default();
            (name.clone(), *amount - before)
        })
        .filter(|(_, more)| !more.is_zero() && !more.is_negative())
        .collect();
    if admit.operation == Operation::Create {
        let lacks = missing(admit.kind, object, &limited);
        if !lacks.is_empty() {
            return refuse(format!("failed quota: {}: must specify {lacks}", quota.name()));
        }
    }
    if wanted.is_empty() {
        return Ok(None);
    }
    let hard = usage::amounts(quota.at("/status/hard"));
    let used = usage::amounts(quota.at("/status/used"));
    let unknown: Vec<&str> = wanted
        .keys()
        .filter(|name| !hard.contains_key(*name) || !used.contains_key(*name))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        return refuse(format!("status unknown for quota: {}, resources: {names}", quota.name()));
    }
    let over: Vec<&String> = wanted
        .iter()
        .filter(|(name, more)| used[*name] + **more > hard[*name])
        .map(|(name, _)| name)
        .collect();
    if !over.is_empty() {
        let shown = |of: &Usage| {
            let each = over.iter().map(|name| format!("{name}={}", of[*name]));
            each.collect::<Vec<_>>().join(",")
        };
        return refuse(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            quota.name(),
            shown(&wanted),
            shown(&used),
            shown(&hard)
        ));
    }
    let mut charged = quota.clone();
    let mut sum: Map<String, Value> =
        used.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect();
    for (name, more) in &wanted {
        sum.insert(name.clone(), (used[name] + *more).to_string().into());
    }
    charged.set(&["status", "used"], Value::Object(sum));
    Ok(Some(charged))
}
