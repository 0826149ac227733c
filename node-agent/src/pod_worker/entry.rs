//! A worker's first question: whether the node runs the pod at all. The scheduler has asked the same
//! before; pods come past it too, and nodes change.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::admit::Refusal;
use crate::api::uid;
use crate::events::Kind;
use crate::fit;
use crate::fit::extended::{self, Extended};
use crate::static_pods::is_static;

impl Worker {
    /// Whether the node runs the pod. That is decided when it sees it first.
    pub(super) async fn takes_in(&mut self, pod: &Pod) -> bool {
        let is_new = !self.context.allocations.knows(uid(pod))
            && self.observed.containers.is_empty()
            && self.memory.refusal.is_none();
        if is_new && let Err(refusal) = self.enter(pod).await {
            let recorder = &self.context.recorder;
            recorder.pod(pod, None, Kind::Warning, &refusal.reason, refusal.why().to_owned());
            self.memory.refusal = Some(refusal);
        }
        self.memory.refusal.is_none()
    }

    async fn enter(&self, pod: &Pod) -> Result<(), Refusal> {
        if let Some(refusal) = self.context.pressure.refusal(pod) {
            return Err(refusal);
        }
        let by_node = self.refused_by_node(pod).await;
        let named = self.named_room(pod).await;
        self.context.allocations.take_in(pod, &named, by_node).await
    }

    /// What the node has of resources that have a name alone, where the pod asks for any. Somebody
    /// else writes that into the Node: it is read anew.
    async fn named_room(&self, pod: &Pod) -> Extended {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(node) = node.filter(|_| !extended::of_pod(pod).is_empty()) else {
            return Extended::new();
        };
        let found = self.context.api.node(node).await.ok();
        found.map(|node| extended::of_node(&node)).unwrap_or_default()
    }

    /// Why the Node's labels and taints keep the pod away. What is known of them may be old: before
    /// anything is refused they are asked for, and without an answer nothing is.
    async fn refused_by_node(&self, pod: &Pod) -> Option<Refusal> {
        let known = self.context.known_node.get();
        // A static pod must not wait for a server where it fits any node.
        let known = known.or_else(|| is_static(pod).then(Arc::default));
        if known.is_some_and(|node| fit::refusal(pod, &node).is_none()) {
            return None;
        }
        let name = pod.spec.as_ref()?.node_name.as_deref()?;
        match self.context.api.node(name).await {
            Ok(node) => {
                let refusal = fit::refusal(pod, &node);
                self.context.known_node.set(node);
                refusal
            }
            Err(error) => {
                tracing::debug!(node = name, %error, "run a pod without knowing the node");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};

    use super::Extended;
    use crate::allocations::Verdict;
    use crate::pod_worker::testing::Lab;

    fn node(labels: &Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "n1", "labels": labels } })).unwrap()
    }

    fn lab(more: &Value) -> Lab {
        let mut spec = json!({
            "nodeName": "n1",
            "containers": [{ "name": "c", "image": "i:1", "ports": [
                { "containerPort": 80, "hostPort": 8080, "protocol": "TCP" },
            ]}],
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        Lab::with(&["i:1"], &spec)
    }

    #[tokio::test]
    async fn a_pod_whose_host_port_another_has_fails_and_runs_nothing() {
        let lab = lab(&json!({}));
        let mut other = lab.pod.clone();
        other.metadata.uid = Some("other".to_owned());
        assert_eq!(lab.context.allocations.take_in(&other, &Extended::new(), None).await, Ok(()));
        let _worker = lab.start();
        lab.until("it is refused", || lab.phase() == "Failed").await;
        let status = lab.status();
        assert_eq!(status.reason.as_deref(), Some("NodePorts"));
        let message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports \
                       for the requested pod ports";
        assert_eq!(status.message.as_deref(), Some(message));
        assert!(lab.runtime.all().0.is_empty() && lab.runtime.all().1.is_empty());
        assert!(!lab.context.allocations.knows("u"));
    }

    #[tokio::test]
    async fn labels_that_have_just_changed_are_asked_for_before_a_pod_is_refused() {
        let selecting = json!({ "nodeSelector": { "disk": "ssd" } });
        let fits = lab(&selecting);
        fits.context.known_node.set(node(&json!({ "disk": "hdd" })));
        *fits.api.node.lock() = Some(node(&json!({ "disk": "ssd" })));
        let _worker = fits.start();
        fits.until("it runs", || fits.phase() == "Running").await;

        let does_not = lab(&selecting);
        *does_not.api.node.lock() = Some(node(&json!({ "disk": "hdd" })));
        let _worker = does_not.start();
        does_not.until("it is refused", || does_not.phase() == "Failed").await;
        assert_eq!(does_not.status().reason.as_deref(), Some("NodeAffinity"));
    }

    #[tokio::test]
    async fn a_pod_that_runs_is_never_refused_for_want_of_room() {
        let mut lab = lab(&json!({}));
        lab.leave_behind().await;
        lab.context.allocations.forget("u").await;
        let requests = json!({ "requests": { "cpu": "64" } });
        lab.pod.spec.as_mut().unwrap().containers[0].resources =
            Some(serde_json::from_value(requests).unwrap());
        assert_eq!(lab.context.allocations.admit(&lab.pod).await, Verdict::Same);
        lab.context.allocations.forget("u").await;
        let _worker = lab.start();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(lab.phase(), "Running");
    }
}
