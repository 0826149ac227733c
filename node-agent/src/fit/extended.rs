//! Resources that a node has by name alone, such as `example.com/dongle`: whole numbers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::plan::all_containers;
use crate::{quantity, requests};

/// Amounts by name.
pub type Extended = BTreeMap<String, i64>;

/// What a pod asks for.
pub fn of_pod(pod: &Pod) -> Extended {
    let requests = |container: &k8s_openapi::api::core::v1::Container| {
        let requests = container.resources.as_ref().and_then(|own| own.requests.as_ref());
        requests.into_iter().flat_map(BTreeMap::keys).cloned().collect::<Vec<String>>()
    };
    let names = all_containers(pod).flat_map(requests).filter(|name| is_extended(name));
    names
        .map(|name| (requests::of_pod(pod, &name, quantity::whole), name))
        .map(|(n, name)| (name, n))
        .collect()
}

/// What a node has for its pods.
pub fn of_node(node: &Node) -> Extended {
    let all = node.status.iter().flat_map(|status| status.allocatable.iter().flatten());
    let read =
        |(name, amount): (&String, &Quantity)| Some((name.clone(), quantity::whole(amount)?));
    all.filter(|(name, _)| is_extended(name)).filter_map(read).collect()
}

fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_has_a_name_of_somebody_is_extended() {
        let amounts = json!({ "cpu": "2", "example.com/dongle": "3", "hugepages-2Mi": "4Mi" });
        let expected: Extended = [("example.com/dongle".to_owned(), 3)].into();
        let node = json!({ "status": { "allocatable": amounts } });
        assert_eq!(of_node(&serde_json::from_value(node).unwrap()), expected);
        let container = json!({ "name": "c", "resources": { "requests": amounts } });
        let pod = json!({ "spec": { "containers": [container] } });
        assert_eq!(of_pod(&serde_json::from_value(pod).unwrap()), expected);
    }
}
