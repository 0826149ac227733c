//! How well a pod is treated when its node runs short.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::resources::defaults::quantity_of;

/// The class of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It has what it asked for, and never more.
    Guaranteed,
    /// It has what it asked for, and more while there is more.
    Burstable,
    /// It asked for nothing.
    BestEffort,
}

impl Class {
    /// As the status says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

const COUNTED: [&str; 2] = ["cpu", "memory"];

type Amounts = BTreeMap<&'static str, Quantity>;

/// The class of a pod, by the requests and limits of its containers, or by its own.
pub fn class(pod: &Value) -> Class {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut is_limited = true;
    let mut take = |resources: Option<&Value>| {
        let amounts = |field: &str| amounts_of(resources.and_then(|r| r.get(field)));
        let own_limits = amounts("limits");
        is_limited &= own_limits.len() == COUNTED.len();
        add(&mut requests, amounts("requests"));
        add(&mut limits, own_limits);
    };
    let own = pod.pointer("/spec/resources").filter(|own| {
        !amounts_of(own.get("requests")).is_empty() || !amounts_of(own.get("limits")).is_empty()
    });
    if own.is_some() {
        take(own);
    } else {
        for list in ["/spec/containers", "/spec/initContainers"] {
            for container in pod.pointer(list).and_then(Value::as_array).into_iter().flatten() {
                take(container.get("resources"));
            }
        }
    }
    match (requests.is_empty() && limits.is_empty(), is_limited && requests == limits) {
        (true, _) => Class::BestEffort,
        (false, true) => Class::Guaranteed,
        (false, false) => Class::Burstable,
    }
}

fn amounts_of(list: Option<&Value>) -> Amounts {
    COUNTED
        .into_iter()
        .filter_map(|name| Some((name, quantity_of(list?.get(name)?)?)))
        .filter(|(_, amount)| !amount.is_zero())
        .collect()
}

fn add(sum: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        let total = sum.entry(name).or_default();
        *total = *total + amount;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(resources: &[Value]) -> Class {
        let containers: Vec<Value> =
            resources.iter().map(|resources| json!({ "resources": resources })).collect();
        class(&json!({ "spec": { "containers": containers } }))
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let exact = json!({"requests": both, "limits": both});
        let same_in_other_words =
            json!({"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": both});
        let only_cpu = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
        assert_eq!(of(&[json!({})]), Class::BestEffort);
        assert_eq!(of(&[json!({"limits": {"cpu": "0"}})]), Class::BestEffort);
        assert_eq!(of(std::slice::from_ref(&exact)), Class::Guaranteed);
        assert_eq!(of(&[same_in_other_words]), Class::Guaranteed);
        assert_eq!(of(&[exact, json!({})]), Class::Burstable);
        assert_eq!(of(&[only_cpu]), Class::Burstable);
        assert_eq!(of(&[json!({"requests": both})]), Class::Burstable);
    }
}
