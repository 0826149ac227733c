//! What an object uses of the resources that quotas name. Pure; the controller that counts anew
//! counts by the same rules.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::Object;
use crate::quantity::Quantity;
use crate::registry::strategy::Kind;
use crate::resources::pod;

/// Amounts by the names under which quotas limit them.
pub type Usage = BTreeMap<String, Quantity>;

/// Kinds that quotas count under their plain name too.
const COUNTED: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// What of a pod's resources counts under its plain name too.
const PLAIN: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The amounts of a list.
pub fn amounts(list: Option<&Value>) -> Usage {
    let amount = |(name, amount): (&String, &Value)| {
        let amount = amount.as_str()?.parse().ok()?;
        Some((name.clone(), amount))
    };
    let list = list.and_then(Value::as_object).into_iter().flatten();
    list.filter_map(amount).collect()
}

/// The name under which the objects of any kind are counted.
fn count_of(kind: &Kind) -> String {
    if kind.group.is_empty() {
        format!("count/{}", kind.plural)
    } else {
        format!("count/{}.{}", kind.plural, kind.group)
    }
}

/// Whether objects of a kind can use any of what is limited.
pub fn counts(limited: &Usage, kind: &Kind) -> bool {
    let is_core = kind.group.is_empty();
    limited.contains_key(&count_of(kind))
        || (is_core && COUNTED.contains(&kind.plural))
        || (is_core && kind.plural == "pods")
}

/// What an object uses.
pub fn usage(kind: &Kind, object: &Object) -> Usage {
    let mut used = Usage::new();
    used.insert(count_of(kind), Quantity::whole(1));
    if !kind.group.is_empty() {
        return used;
    }
    if COUNTED.contains(&kind.plural) {
        used.insert(kind.plural.to_owned(), Quantity::whole(1));
    }
    match kind.plural {
        "pods" => of_pod(&mut used, object),
        "services" => of_service(&mut used, object),
        "persistentvolumeclaims" => of_claim(&mut used, object),
        _ => {}
    }
    used
}

/// A pod that has ended is only counted as an object.
fn of_pod(used: &mut Usage, object: &Object) {
    if matches!(object.str_at("/status/phase"), "Failed" | "Succeeded") {
        return;
    }
    used.insert("pods".to_owned(), Quantity::whole(1));
    for (name, amount) in sum(object, "requests") {
        if PLAIN.contains(&name.as_str()) {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in sum(object, "limits") {
        used.insert(format!("limits.{name}"), amount);
    }
}

/// What the containers of a pod ask for together, with what the pod costs beside them.
fn sum(object: &Object, list: &str) -> Usage {
    let (mut together, mut before) = (Usage::new(), Usage::new());
    for field in ["containers", "initContainers"] {
        let containers = object.at(&format!("/spec/{field}")).and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let stays = field == "containers" || container["restartPolicy"] == "Always";
            for (name, amount) in of_container(object, container, list) {
                let into = if stays { &mut together } else { &mut before };
                let old = into.get(&name).copied().unwrap_or_default();
                into.insert(name, if stays { old + amount } else { old.max(amount) });
            }
        }
    }
    for (name, amount) in before {
        let old = together.get(&name).copied().unwrap_or_default();
        together.insert(name, old.max(amount));
    }
    for (name, amount) in amounts(object.at("/spec/overhead")) {
        if list == "requests" || together.contains_key(&name) {
            let old = together.get(&name).copied().unwrap_or_default();
            together.insert(name, old + amount);
        }
    }
    together
}

/// What a container asks for, or what its node has given it where that is more: a pod that is
/// resized down has what it had until its node has taken it back. What a node can never give is not
/// counted.
fn of_container(pod: &Object, container: &Value, list: &str) -> Usage {
    let mut all = Usage::new();
    let mut at_least = |given: Usage| {
        for (name, amount) in given {
            let old = all.get(&name).copied().unwrap_or_default();
            all.insert(name, old.max(amount));
        }
    };
    let given = status_of(pod, &container["name"]);
    let is_infeasible = resize_pending(pod) == Some("Infeasible");
    if given.is_none() || !is_infeasible {
        at_least(amounts(container.pointer(&format!("/resources/{list}"))));
    }
    at_least(amounts(given.and_then(|given| given.pointer(&format!("/resources/{list}")))));
    if list == "requests" {
        at_least(amounts(given.and_then(|given| given.get("allocatedResources"))));
    }
    all
}

fn status_of<'a>(pod: &'a Object, name: &Value) -> Option<&'a Value> {
    let lists = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let all = lists.iter().filter_map(|list| pod.at(list)?.as_array()).flatten();
    all.filter(|status| status.get("resources").is_some()).find(|status| status["name"] == *name)
}

/// Why a resize of the pod waits, if one does.
fn resize_pending(pod: &Object) -> Option<&str> {
    let conditions = pod.at("/status/conditions")?.as_array()?;
    let pending = conditions.iter().find(|condition| condition["type"] == "PodResizePending")?;
    pending["reason"].as_str()
}

fn of_service(used: &mut Usage, object: &Object) {
    let kind = object.str_at("/spec/type");
    let ports = object.at("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    let ports = i64::try_from(ports).unwrap_or(i64::MAX);
    if kind == "LoadBalancer" {
        used.insert("services.loadbalancers".to_owned(), Quantity::whole(1));
    }
    let has_ports = kind == "NodePort"
        || (kind == "LoadBalancer"
            && object.at("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)));
    if has_ports {
        used.insert("services.nodeports".to_owned(), Quantity::whole(ports));
    }
}

fn of_claim(used: &mut Usage, object: &Object) {
    let class = object.str_at("/spec/storageClassName");
    let class = object.annotation(BETA_CLASS).unwrap_or(class);
    let requests = amounts(object.at("/spec/resources/requests"));
    let mut count = |name: String, amount: Quantity| {
        if !class.is_empty() {
            let of_class = format!("{class}.storageclass.storage.k8s.io/{name}");
            used.insert(of_class, amount);
        }
        used.insert(name, amount);
    };
    count("persistentvolumeclaims".to_owned(), Quantity::whole(1));
    if let Some(storage) = requests.get("storage") {
        count("requests.storage".to_owned(), *storage);
    }
}

/// Whether a quota is about an object: all of its scopes must hold.
pub fn matches(quota: &Object, kind: &Kind, object: &Object) -> bool {
    let scopes = quota.at("/spec/scopes").and_then(Value::as_array);
    let mut scopes = scopes.into_iter().flatten().filter_map(Value::as_str);
    let selected = quota.at("/spec/scopeSelector/matchExpressions").and_then(Value::as_array);
    let mut selected = selected.into_iter().flatten();
    scopes.all(|scope| holds(scope, "Exists", &[], kind, object))
        && selected.all(|one| {
            let values = one["values"].as_array().into_iter().flatten();
            let values: Vec<&str> = values.filter_map(Value::as_str).collect();
            let text = |field: &str| one[field].as_str().unwrap_or_default();
            holds(text("scopeName"), text("operator"), &values, kind, object)
        })
}

fn holds(scope: &str, operator: &str, values: &[&str], kind: &Kind, object: &Object) -> bool {
    if !kind.group.is_empty() || kind.plural != "pods" {
        return scope == "VolumeAttributesClass"
            && kind.plural == "persistentvolumeclaims"
            && compare(object.str_at("/spec/volumeAttributesClassName"), operator, values);
    }
    let is_terminating =
        object.i64_at("/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    let is_best_effort = || pod::qos::class(object.value()).as_str() == "BestEffort";
    match scope {
        "Terminating" => is_terminating,
        "NotTerminating" => !is_terminating,
        "BestEffort" => is_best_effort(),
        "NotBestEffort" => !is_best_effort(),
        "PriorityClass" => compare(object.str_at("/spec/priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    }
}

fn compare(value: &str, operator: &str, values: &[&str]) -> bool {
    match operator {
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        "In" => !value.is_empty() && values.contains(&value),
        "NotIn" => !values.contains(&value),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Object) -> bool {
    fn names_others(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.iter().any(|(key, value)| {
                let is_named =
                    key == "namespaces" && value.as_array().is_some_and(|l| !l.is_empty());
                is_named || key == "namespaceSelector" || names_others(value)
            }),
            Value::Array(list) => list.iter().any(names_others),
            _ => false,
        }
    }
    let parts = ["podAffinity", "podAntiAffinity"];
    parts.iter().any(|part| pod.at(&format!("/spec/affinity/{part}")).is_some_and(names_others))
}

/// What the containers of a pod must say, since a quota counts it, and do not: `cpu for: c1,c2;
/// limits.memory for: c1`. Empty where nothing is missing.
pub fn missing(kind: &Kind, object: &Object, limited: &Usage) -> String {
    if !kind.group.is_empty() || kind.plural != "pods" {
        return String::new();
    }
    let list = |field: &str| object.at(&format!("/spec/{field}")).and_then(Value::as_array);
    let containers = ["containers", "initContainers"].map(list);
    let containers: Vec<&Value> = containers.into_iter().flatten().flatten().collect();
    let lacking = |name: &str| {
        let (list, resource) = match name.split_once('.') {
            Some((list @ ("requests" | "limits"), resource)) => (list, resource),
            _ => ("requests", name),
        };
        let has = |container: &&&Value| {
            container["resources"][list].get(resource).is_none_or(Value::is_null)
        };
        let names = containers.iter().filter(has).filter_map(|one| one["name"].as_str());
        names.collect::<Vec<_>>().join(",")
    };
    let compute = |name: &&String| {
        let resource = name.trim_start_matches("requests.").trim_start_matches("limits.");
        PLAIN.contains(&resource)
    };
    let each = limited.keys().filter(compute).map(|name| (name, lacking(name)));
    let told =
        each.filter(|(_, who)| !who.is_empty()).map(|(name, who)| format!("{name} for: {who}"));
    told.collect::<Vec<_>>().join("; ")
}
