//! Pods and nodes for the scheduler's tests, in few words.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, Node, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus,
    ResourceRequirements, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cache::{NodeInfo, PodInfo};

/// A pod being made.
pub(super) struct MakePod(pub(super) Pod);

/// A pod with one container, in the namespace `default`; its uid is its name.
pub(super) fn pod(name: &str) -> MakePod {
    MakePod(Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: vec![Container::default()], ..PodSpec::default() }),
        status: None,
    })
}

impl MakePod {
    pub(super) fn with(mut self, change: impl FnOnce(&mut PodSpec)) -> Self {
        change(self.0.spec.as_mut().unwrap());
        self
    }

    pub(super) fn request(self, resource: &str, amount: &str) -> Self {
        self.with(|spec| {
            spec.containers[0]
                .resources
                .get_or_insert_with(ResourceRequirements::default)
                .requests
                .get_or_insert_default()
                .insert(resource.to_owned(), Quantity(amount.to_owned()));
        })
    }

    pub(super) fn cpu(self, amount: &str) -> Self {
        self.request("cpu", amount)
    }

    pub(super) fn on(self, node: &str) -> Self {
        self.with(|spec| spec.node_name = Some(node.to_owned()))
    }

    pub(super) fn phase(mut self, phase: &str) -> Self {
        self.0.status = Some(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() });
        self
    }

    pub(super) fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub(super) fn priority(self, priority: i32) -> Self {
        self.with(|spec| spec.priority = Some(priority))
    }

    pub(super) fn node_selector(self, key: &str, value: &str) -> Self {
        self.with(|spec| {
            spec.node_selector.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        })
    }

    pub(super) fn affinity(self, change: impl FnOnce(&mut Affinity)) -> Self {
        self.with(|spec| change(spec.affinity.get_or_insert_default()))
    }

    pub(super) fn tolerate(self, toleration: Toleration) -> Self {
        self.with(|spec| spec.tolerations.get_or_insert_default().push(toleration))
    }

    pub(super) fn host_port(self, ip: &str, protocol: &str, port: i32) -> Self {
        self.with(|spec| {
            spec.containers[0].ports.get_or_insert_default().push(ContainerPort {
                host_ip: Some(ip.to_owned()),
                protocol: Some(protocol.to_owned()),
                host_port: Some(port),
                container_port: port,
                ..ContainerPort::default()
            });
        })
    }

    pub(super) fn arc(self) -> Arc<Pod> {
        Arc::new(self.0)
    }

    pub(super) fn info(self) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(self.arc(), &Arc::default()))
    }
}

/// A node being made.
pub(super) struct MakeNode(pub(super) Node);

/// A ready node that takes 110 pods, with 4 CPUs and 8 GiB.
pub(super) fn node(name: &str) -> MakeNode {
    let node = MakeNode(Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus { allocatable: Some(BTreeMap::new()), ..NodeStatus::default() }),
    });
    node.label("kubernetes.io/hostname", name).has("pods", "110").cpu("4").has("memory", "8Gi")
}

impl MakeNode {
    pub(super) fn has(mut self, resource: &str, amount: &str) -> Self {
        let status = self.0.status.as_mut().unwrap();
        status
            .allocatable
            .as_mut()
            .unwrap()
            .insert(resource.to_owned(), Quantity(amount.to_owned()));
        self
    }

    pub(super) fn cpu(self, amount: &str) -> Self {
        self.has("cpu", amount)
    }

    pub(super) fn label(mut self, key: &str, value: &str) -> Self {
        self.0.metadata.labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    pub(super) fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        self.0.spec.as_mut().unwrap().taints.get_or_insert_default().push(Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()).filter(|value| !value.is_empty()),
            effect: effect.to_owned(),
            time_added: None,
        });
        self
    }

    pub(super) fn unschedulable(mut self) -> Self {
        self.0.spec.as_mut().unwrap().unschedulable = Some(true);
        self
    }

    pub(super) fn arc(self) -> Arc<Node> {
        Arc::new(self.0)
    }

    /// With pods on it.
    pub(super) fn info(self, pods: Vec<Arc<PodInfo>>) -> Arc<NodeInfo> {
        let mut info = NodeInfo::new(self.arc());
        for pod in pods {
            info.add(pod);
        }
        Arc::new(info)
    }
}
