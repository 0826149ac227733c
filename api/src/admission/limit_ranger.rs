//! [`LimitRanger`]: what the limit ranges of a namespace give to pods that do not say it, and what
//! they let neither pods nor claims go beyond.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::{Admit, Operation, Plugin};
use crate::informer::Informer;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::status::Status;

/// Tells what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Enforces limit ranges.
pub struct LimitRanger {
    ranges: Arc<Informer<Object>>,
}

impl LimitRanger {
    /// Goes by the limit ranges of this informer.
    pub fn new(ranges: Arc<Informer<Object>>) -> Self {
        Self { ranges }
    }

    /// The limits of all ranges of a namespace that are of this type.
    fn limits(&self, namespace: &str, kind: &str) -> Vec<Value> {
        let ranges = self.ranges.list_in(namespace);
        let limits = ranges.iter().filter_map(|range| range.at("/spec/limits")?.as_array());
        limits.flatten().filter(|limit| limit["type"] == kind).cloned().collect()
    }
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn mutate(&self, admit: &Admit<'_>, object: &mut Object) -> Result<(), Status> {
        if is_sized(admit) {
            let limits = self.limits(admit.namespace, "Container");
            set_defaults(object, &limits);
        }
        Ok(())
    }

    async fn validate(&self, admit: &Admit<'_>, object: Option<&Object>) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        let mut problems = Vec::new();
        if is_sized(admit) {
            for limit in self.limits(admit.namespace, "Container") {
                for (_, container) in containers(object) {
                    bounds(&mut problems, "Container", &limit, &Amounts::of(container));
                }
            }
            for limit in self.limits(admit.namespace, "Pod") {
                bounds(&mut problems, "Pod", &limit, &Amounts::of_pod(object));
            }
        } else if is_claim(admit) {
            let amounts = Amounts::of(&object.value()["spec"]);
            for limit in self.limits(admit.namespace, "PersistentVolumeClaim") {
                claim_bounds(&mut problems, &limit, &amounts);
            }
        }
        let why = match problems.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(Status::forbidden(admit.kind.group, admit.kind.plural, object.name(), why))
    }
}

/// Whether it is said here how much a pod may use: it is made or resized.
fn is_sized(admit: &Admit<'_>) -> bool {
    admit.kind.group.is_empty()
        && admit.kind.plural == "pods"
        && matches!(
            (admit.operation, admit.subresource),
            (Operation::Create, "") | (Operation::Update, "resize")
        )
}

fn is_claim(admit: &Admit<'_>) -> bool {
    admit.kind.plural == "persistentvolumeclaims"
        && admit.operation != Operation::Delete
        && admit.subresource.is_empty()
}

/// The containers of a pod, each with what messages call its place.
fn containers(pod: &Object) -> impl Iterator<Item = (&'static str, &Value)> {
    let list = |field: &str| pod.at(&format!("/spec/{field}")).and_then(Value::as_array);
    let main = list("containers").into_iter().flatten().map(|one| ("", one));
    main.chain(list("initContainers").into_iter().flatten().map(|one| ("init ", one)))
}

/// Sets the requests and limits that containers leave out.
fn set_defaults(pod: &mut Object, limits: &[Value]) {
    let mut told = Vec::new();
    for (field, place) in [("containers", ""), ("initContainers", "init ")] {
        let list = pod.value_mut().pointer_mut(&format!("/spec/{field}"));
        let list = list.and_then(Value::as_array_mut).into_iter().flatten();
        for container in list.filter(|container| container.is_object()) {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (from, to, what) in
                [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
            {
                let set: Vec<String> =
                    limits.iter().flat_map(|limit| fill(container, &limit[from], to)).collect();
                if !set.is_empty() {
                    told.push(format!("{} {what} for {place}container {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        pod.set(&["metadata", "annotations", ANNOTATION], text);
    }
}

/// Fills in amounts that are not there; which those were.
fn fill(container: &mut Value, amounts: &Value, list: &str) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        let resources = &mut container["resources"];
        if !resources.is_object() {
            *resources = json!({});
        }
        let own = &mut resources[list];
        if !own.is_object() {
            *own = Value::Object(Map::new());
        }
        if own.get(name).is_none() {
            own[name] = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

/// What is requested, and what is the most that may be used.
#[derive(Default)]
struct Amounts {
    requests: BTreeMap<String, Quantity>,
    limits: BTreeMap<String, Quantity>,
}

impl Amounts {
    fn of(container: &Value) -> Self {
        let list = |field: &str| read(&container["resources"][field]);
        Self { requests: list("requests"), limits: list("limits") }
    }

    /// The containers of a pod run together; those that prepare it run before, one by one, or
    /// beside all that follow.
    fn of_pod(pod: &Object) -> Self {
        let mut together = Self::default();
        let mut most = Self::default();
        for (place, container) in containers(pod) {
            let own = Self::of(container);
            if place.is_empty() || container["restartPolicy"] == "Always" {
                combine(&mut together.requests, own.requests, |old, new| old + new);
                combine(&mut together.limits, own.limits, |old, new| old + new);
            } else {
                combine(&mut most.requests, own.requests, Ord::max);
                combine(&mut most.limits, own.limits, Ord::max);
            }
        }
        combine(&mut together.requests, most.requests, Ord::max);
        combine(&mut together.limits, most.limits, Ord::max);
        together
    }
}

fn read(list: &Value) -> BTreeMap<String, Quantity> {
    let amount = |(name, amount): (&String, &Value)| {
        let amount = amount.as_str()?.parse().ok()?;
        Some((name.clone(), amount))
    };
    list.as_object().into_iter().flatten().filter_map(amount).collect()
}

fn combine(
    into: &mut BTreeMap<String, Quantity>,
    more: BTreeMap<String, Quantity>,
    how: fn(Quantity, Quantity) -> Quantity,
) {
    for (name, amount) in more {
        let new = into.get(&name).map_or(amount, |old| how(*old, amount));
        into.insert(name, new);
    }
}

fn bounds(problems: &mut Vec<String>, kind: &str, limit: &Value, amounts: &Amounts) {
    for (name, least) in read(&limit["min"]) {
        let rule = format!("minimum {name} usage per {kind} is {least}");
        minimum(problems, &rule, least, amounts, &name);
    }
    for (name, most) in read(&limit["max"]) {
        let rule = format!("maximum {name} usage per {kind} is {most}");
        match (amounts.requests.get(&name), amounts.limits.get(&name)) {
            (_, None) => problems.push(format!("{rule}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => {
                problems.push(format!("{rule}, but limit is {limit}"));
            }
            (Some(request), _) if *request > most => {
                problems.push(format!("{rule}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, most) in read(&limit["maxLimitRequestRatio"]) {
        let rule = format!("{name} max limit to request ratio per {kind} is {most}");
        problems.extend(ratio(&rule, most, amounts, &name));
    }
}

fn minimum(problems: &mut Vec<String>, rule: &str, least: Quantity, amounts: &Amounts, name: &str) {
    match (amounts.requests.get(name), amounts.limits.get(name)) {
        (None, _) => problems.push(format!("{rule}.  No request is specified")),
        (Some(request), _) if *request < least => {
            problems.push(format!("{rule}, but request is {request}"));
        }
        (_, Some(limit)) if *limit < least => {
            problems.push(format!("{rule}, but limit is {limit}"));
        }
        _ => {}
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio is compared as Kubernetes compares it")]
fn ratio(rule: &str, most: Quantity, amounts: &Amounts, name: &str) -> Option<String> {
    let milli = |list: &BTreeMap<String, Quantity>| {
        let amount = list.get(name).map(|amount| amount.milli_value() as f64);
        amount.filter(|amount| *amount > 0.0)
    };
    let Some(request) = milli(&amounts.requests) else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = milli(&amounts.limits) else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let found = limit / request;
    let is_over = found > most.milli_value() as f64 / 1000.0;
    is_over.then(|| format!("{rule}, but provided ratio is {found:.6}"))
}

fn claim_bounds(problems: &mut Vec<String>, limit: &Value, amounts: &Amounts) {
    const KIND: &str = "PersistentVolumeClaim";
    for (name, least) in read(&limit["min"]) {
        let rule = format!("minimum {name} usage per {KIND} is {least}");
        minimum(problems, &rule, least, amounts, &name);
    }
    for (name, most) in read(&limit["max"]) {
        let rule = format!("maximum {name} usage per {KIND} is {most}");
        match amounts.requests.get(&name) {
            None => problems.push(format!("{rule}.  No request is specified")),
            Some(request) if *request > most => {
                problems.push(format!("{rule}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
}
