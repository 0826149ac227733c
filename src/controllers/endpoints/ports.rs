//! The ports of a Service as its pods have them.

use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A port of a Service at one pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResolvedPort {
    /// The Service's name for it; may be empty.
    pub name: String,
    /// The number at the pod.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// What is spoken there, where the Service says so.
    pub app_protocol: Option<String>,
}

/// The Service's ports at the pod, in order. A port whose name the pod does not know is left out.
pub fn resolve(service: &Service, pod: &Pod) -> Vec<ResolvedPort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut ports: Vec<ResolvedPort> = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(ResolvedPort {
                name: port.name.clone().unwrap_or_default(),
                port: number(port, pod)?,
                protocol: protocol(port.protocol.as_ref()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(protocol: Option<&String>) -> String {
    protocol.cloned().unwrap_or_else(|| "TCP".to_owned())
}

fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => named(name, &protocol(port.protocol.as_ref()), pod),
    }
}

fn named(name: &str, wanted: &str, pod: &Pod) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| {
            port.name.as_deref() == Some(name) && protocol(port.protocol.as_ref()) == wanted
        })
        .map(|port| port.container_port)
}
