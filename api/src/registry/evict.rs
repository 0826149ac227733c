//! Evicting: deleting a pod if its disruption budget lets it go. The budget's status counts down
//! before the pod is deleted, by compare-and-set, so that two evictions never spend the same.

use serde_json::{Map, Value, json};

use super::options::{DeleteOptions, ListOptions, Part};
use super::strategy::Kind;
use super::update::Target;
use super::{Registry, TRIES, metadata};
use crate::context::RequestContext;
use crate::object::Object;
use crate::status::Status;
use crate::validation::labels::selects;

/// When a client whose budget is still being worked out shall ask again.
const RETRY_SECONDS: u32 = 10;
/// More evictions than this may not wait to be confirmed.
const DISRUPTED_MAX: usize = 2000;
const REFUSAL: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

impl Registry {
    /// Deletes a pod if that is in order.
    pub async fn evict(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        eviction: &Object,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        let mut ctx = ctx.clone();
        ctx.dry_run |= options.dry_run;
        let mut eviction = eviction.clone();
        let ctx = self.admit_part(&ctx, kind, (namespace, name, "eviction"), &mut eviction).await?;
        let mut tries = 0;
        loop {
            let pod = self.get(&ctx, kind, namespace, name).await?;
            if !is_as_asked(&pod, options) {
                return self.delete(&ctx, kind, namespace, name, options).await.map(drop);
            }
            let is_free = is_exempt(&pod) || self.spend(&ctx, &pod).await? == Spent::Nothing;
            let outcome = self.remove(&ctx, kind, &pod, options, is_free).await;
            tries += 1;
            match outcome {
                // What was free to go has changed: perhaps it is not any more.
                Err(refusal)
                    if is_free
                        && refusal.is_conflict()
                        && options.resource_version.is_none()
                        && tries < TRIES => {}
                other => return other,
            }
        }
    }

    /// Marks the pod as disrupted and deletes it. One that was free to go only as it was.
    async fn remove(
        &self,
        ctx: &RequestContext,
        kind: &'static Kind,
        pod: &Object,
        options: &DeleteOptions,
        is_free: bool,
    ) -> Result<(), Status> {
        let (namespace, name) = (pod.namespace(), pod.name());
        let now = metadata::seconds(ctx.now);
        let target = Target::of(kind, Part::Status, namespace, name);
        let mark = |old: &Object| {
            let is_changed = old.resource_version() != pod.resource_version();
            if old.uid() != pod.uid() || (is_free && is_changed) {
                return Err(Status::modified(kind.group, kind.plural, name));
            }
            Ok(marked(old, &now))
        };
        let marked = self.change(ctx, target, &mark).await?;
        let mut options = options.clone();
        options.uid.get_or_insert_with(|| pod.uid().to_owned());
        if options.resource_version.is_some() || (is_free && !ctx.dry_run) {
            options.resource_version = Some(marked.resource_version().to_owned());
        }
        if ctx.dry_run {
            options.resource_version = None;
        }
        self.delete(ctx, kind, namespace, name, &options).await.map(drop)
    }

    /// Takes the pod's eviction from its budget, where it has one that counts.
    async fn spend(&self, ctx: &RequestContext, pod: &Object) -> Result<Spent, Status> {
        let Some(kind) = self.scheme().kind("policy", "v1", "PodDisruptionBudget") else {
            return Ok(Spent::Nothing);
        };
        let all = self.list(ctx, kind, pod.namespace(), &ListOptions::default()).await?;
        let mut budgets = all.items.iter().filter(|budget| covers(budget, pod));
        let (Some(budget), more) = (budgets.next(), budgets.next()) else {
            return Ok(Spent::Nothing);
        };
        if more.is_some() {
            return Err(Status::unclassified(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource \
                 does not support.",
            ));
        }
        if !is_ready(pod) && lets_unhealthy_go(budget) {
            return Ok(Spent::Nothing);
        }
        let target = Target::of(kind, Part::Status, pod.namespace(), budget.name());
        let now = metadata::seconds(ctx.now);
        let spend = |budget: &Object| spent(budget, pod.name(), &now);
        self.change(ctx, target, &spend).await.map(|_| Spent::One)
    }
}

/// What an eviction took from a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spent {
    Nothing,
    One,
}

fn is_as_asked(pod: &Object, options: &DeleteOptions) -> bool {
    options.uid.as_ref().is_none_or(|uid| uid == pod.uid())
        && options.resource_version.as_ref().is_none_or(|at| at == pod.resource_version())
}

/// Whether the pod serves nobody, so that nobody misses it.
fn is_exempt(pod: &Object) -> bool {
    pod.is_terminating()
        || matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.at("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let none = Map::new();
    let labels = pod.at("/metadata/labels").and_then(Value::as_object).unwrap_or(&none);
    let selector = budget.at("/spec/selector").filter(|selector| selector.is_object());
    selector.is_some_and(|selector| selects(selector, labels))
}

/// A pod that is not ready may go where the budget says so, or where enough others serve.
fn lets_unhealthy_go(budget: &Object) -> bool {
    let count = |pointer: &str| budget.i64_at(pointer).unwrap_or(0);
    let (current, desired) = (count("/status/currentHealthy"), count("/status/desiredHealthy"));
    budget.str_at("/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || (desired > 0 && current >= desired)
}

/// The budget after one more eviction.
fn spent(budget: &Object, pod: &str, now: &str) -> Result<Object, Status> {
    let name = budget.name();
    let count = |pointer: &str| budget.i64_at(pointer).unwrap_or(0);
    let refuse = |why: String, seconds| {
        Err(Status::too_many_requests(REFUSAL, seconds).with_cause("DisruptionBudget", why, ""))
    };
    if count("/status/observedGeneration") < budget.generation() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return refuse(why, RETRY_SECONDS);
    }
    let allowed = count("/status/disruptionsAllowed");
    let forbidden = |why| Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = budget.at("/status/disruptedPods").and_then(Value::as_object);
    if disrupted.is_some_and(|disrupted| disrupted.len() > DISRUPTED_MAX) {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if allowed == 0 {
        let (desired, current) = (count("/status/desiredHealthy"), count("/status/currentHealthy"));
        let why = format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        );
        return refuse(why, 0);
    }
    let mut budget = budget.clone();
    budget.remove(&["metadata", "resourceVersion"]);
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    budget.set(&["status", "disruptedPods", pod], now);
    if allowed == 1 {
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "lastTransitionTime": now, "observedGeneration": budget.generation(),
        });
        set_condition(&mut budget, condition);
    }
    Ok(budget)
}

fn marked(pod: &Object, now: &str) -> Object {
    let mut pod = pod.clone();
    pod.remove(&["metadata", "resourceVersion"]);
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now,
    });
    set_condition(&mut pod, condition);
    pod
}

fn set_condition(object: &mut Object, condition: Value) {
    let conditions = object.entry(&["status", "conditions"]);
    match conditions {
        Value::Array(list) => {
            list.retain(|other| other.get("type") != condition.get("type"));
            list.push(condition);
        }
        other => *other = json!([condition]),
    }
}
