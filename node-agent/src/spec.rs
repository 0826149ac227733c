//! From a pod's words to the runtime's: sandboxes and containers to be made. Pure but for the
//! files of `/etc`, which [`files`] writes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};

use crate::api::{name, namespace, uid};
use crate::cgroups::{self, Qos};
use crate::dns::ClusterDns;
use crate::env::{self, Facts, ReferenceError, References};
use crate::paths::Paths;
use crate::plan::all_containers;
use crate::runtime::{
    ContainerSpec, Dns, Image, Mount, Namespaces, PortMapping, SandboxSpec, Security, annotations,
    labels,
};
use crate::volumes::{self, VolumeError};

pub mod files;
mod resolver;

/// Host names end here; longer pod names are cut, as upstream.
const HOSTNAME_BYTES_MAX: usize = 63;
/// The kernel's own names end here.
const KERNEL_NAME_BYTES_MAX: usize = 64;

/// Why a container cannot be made from its definition.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// It refers to something that does not exist.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// It mounts something that cannot be mounted.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It must not run as root, and would.
    #[error("{0}")]
    Root(String),
    /// A file of it cannot be written.
    #[error("{0}")]
    File(String),
}

/// What all pods of a node have in common.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Address of the node.
    pub ip: IpAddr,
    /// cgroup below which pods stand.
    pub cgroup_root: String,
    /// Bytes of memory of the node.
    pub memory_bytes: i64,
    /// Thousandths of processors of the node.
    pub cpu_milli: i64,
    /// What the node's resolver file says.
    pub host_dns: Dns,
    /// Where pods find the cluster's names, if there is such a place.
    pub cluster_dns: Option<ClusterDns>,
}

impl NodeFacts {
    /// Facts for a pod with these addresses.
    pub fn facts(&self, pod_ips: &[IpAddr]) -> Facts {
        Facts {
            host_ip: self.ip.to_string(),
            pod_ips: pod_ips.iter().map(ToString::to_string).collect(),
            cpu_milli: self.cpu_milli,
            memory_bytes: self.memory_bytes,
        }
    }
}

/// The sandbox of a pod.
pub fn sandbox(pod: &Pod, node: &NodeFacts, paths: &Paths, attempt: u32) -> SandboxSpec {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespaces = namespaces(pod);
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.clone());
    SandboxSpec {
        name: name(pod).to_owned(),
        namespace: namespace(pod).to_owned(),
        uid: uid(pod).to_owned(),
        attempt,
        hostname: if namespaces.host_network { String::new() } else { own_name(pod, node) },
        log_directory: paths.pod_logs(namespace(pod), name(pod), uid(pod)),
        dns: resolver::dns(pod, node),
        port_mappings: if namespaces.host_network { Vec::new() } else { port_mappings(pod) },
        labels: pod_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: cgroups::pod_cgroup(&node.cgroup_root, Qos::of(pod), uid(pod)),
        namespaces,
        privileged: all_containers(pod).any(is_privileged),
        sysctls: sysctls.into_iter().flatten().map(|s| (s.name, s.value)).collect(),
    }
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut all = pod.metadata.labels.clone().unwrap_or_default();
    all.insert(labels::POD_NAME.to_owned(), name(pod).to_owned());
    all.insert(labels::POD_NAMESPACE.to_owned(), namespace(pod).to_owned());
    all.insert(labels::POD_UID.to_owned(), uid(pod).to_owned());
    all
}

fn namespaces(pod: &Pod) -> Namespaces {
    let spec = pod.spec.as_ref();
    let flag = |flag: Option<bool>| flag.unwrap_or(false);
    Namespaces {
        host_network: flag(spec.and_then(|spec| spec.host_network)),
        host_pid: flag(spec.and_then(|spec| spec.host_pid)),
        host_ipc: flag(spec.and_then(|spec| spec.host_ipc)),
        share_pid: flag(spec.and_then(|spec| spec.share_process_namespace)),
    }
}

/// The pod's host name: the one it asks for, else its own name.
pub fn hostname(pod: &Pod) -> String {
    if let Some(name) = override_of(pod) {
        return name.to_owned();
    }
    let asked = pod.spec.as_ref().and_then(|spec| spec.hostname.as_deref());
    let full = asked.filter(|asked| !asked.is_empty()).unwrap_or_else(|| name(pod));
    let end = full.len().min(HOSTNAME_BYTES_MAX);
    full.get(..end).unwrap_or(full).trim_end_matches(['-', '.']).to_owned()
}

/// The name that goes before all others, and has no domain.
fn override_of(pod: &Pod) -> Option<&str> {
    let name = pod.spec.as_ref()?.hostname_override.as_deref()?;
    Some(name).filter(|name| !name.is_empty())
}

/// What the pod's host name is below: its subdomain in the cluster's domain.
pub fn host_domain(pod: &Pod, node: &NodeFacts) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let cluster = node.cluster_dns.as_ref().filter(|_| override_of(pod).is_none())?;
    Some(format!("{subdomain}.{}.svc.{}", namespace(pod), cluster.domain))
}

/// What the pod calls itself: its host name, with its domain where it asks for that.
fn own_name(pod: &Pod, node: &NodeFacts) -> String {
    let wants_domain = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn) == Some(true);
    match host_domain(pod, node).filter(|_| wants_domain) {
        Some(domain) => format!("{}.{domain}", hostname(pod)),
        None => hostname(pod),
    }
}

/// Refuses a name that the kernel does not take.
pub fn check_name(pod: &Pod, node: &NodeFacts) -> Result<(), String> {
    let name = own_name(pod, node);
    if name.len() <= KERNEL_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long \
         ({KERNEL_NAME_BYTES_MAX} characters is the max, {} characters requested)",
        name.len()
    ))
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    all_containers(pod)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(PortMapping {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                container_port: port.container_port,
                host_port: port.host_port.filter(|port| *port > 0)?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// One container of a pod in the sandbox with `pod_ips`.
pub struct ContainerInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The container whose processes it shares, by the runtime's identity.
    pub target: Option<String>,
    /// How many instances there were before.
    pub attempt: u32,
    /// Image as the runtime knows it.
    pub image: &'a Image,
    /// Objects the pod refers to.
    pub references: &'a References,
    /// Addresses of the pod.
    pub pod_ips: &'a [IpAddr],
    /// The node.
    pub node: &'a NodeFacts,
    /// Where the agent keeps things.
    pub paths: &'a Paths,
}

/// The container to be made.
pub fn container(input: &ContainerInput<'_>) -> Result<ContainerSpec, SpecError> {
    let ContainerInput { pod, container, attempt, .. } = *input;
    let mut env = vec![("HOSTNAME".to_owned(), own_name(pod, input.node))];
    env.extend(env::environment(
        pod,
        container,
        input.references,
        &input.node.facts(input.pod_ips),
    )?);
    let values: BTreeMap<String, String> = env.iter().cloned().collect();
    let expand_all = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| env::expand(word, &values)).collect()
    };
    let message_file = files::termination_message(input.paths, pod, container, attempt);
    let mut annotations = BTreeMap::new();
    annotations.insert(annotations::RESTART_COUNT.to_owned(), attempt.to_string());
    annotations.insert(
        annotations::TERMINATION_MESSAGE_FILE.to_owned(),
        message_file.display().to_string(),
    );
    let mut labels = pod_labels(pod);
    labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    Ok(ContainerSpec {
        name: container.name.clone(),
        attempt,
        image: input.image.id.clone(),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: mounts(input, &values, message_file)?,
        env,
        labels,
        annotations,
        log_path: log_path(&container.name, attempt).into(),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: cgroups::resources(container, Qos::of(pod), input.node.memory_bytes),
        security: security(pod, container, input.image)?,
        namespaces: namespaces(pod),
        target: input.target.clone(),
    })
}

/// The log of an instance, below the pod's folder of logs.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn mounts(
    input: &ContainerInput<'_>,
    values: &BTreeMap<String, String>,
    message_file: std::path::PathBuf,
) -> Result<Vec<Mount>, SpecError> {
    let wanted = input.container.volume_mounts.as_deref().unwrap_or_default();
    let mut mounts = volumes::mounts(input.paths, input.pod, wanted, input.references, |text| {
        env::expand_strictly(text, values)
    })?;
    let taken = |path: &str, mounts: &[Mount]| mounts.iter().any(|m| m.container_path == path);
    // The runtime would copy the node's file, whose names are not the pod's.
    if !taken("/etc/hosts", &mounts) {
        mounts.push(Mount {
            container_path: "/etc/hosts".to_owned(),
            host_path: files::etc_hosts(input.paths, input.pod),
            ..Mount::default()
        });
    }
    let message_path = files::termination_path(input.container);
    if !taken(message_path, &mounts) {
        mounts.push(Mount {
            container_path: message_path.to_owned(),
            host_path: message_file,
            ..Mount::default()
        });
    }
    Ok(mounts)
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
}

/// Refuses a container that must not run as root and would, or might.
fn check_not_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image: &Image,
) -> Result<(), SpecError> {
    let whose = format!(
        "(pod: \"{}_{}({})\", container: {})",
        name(pod),
        namespace(pod),
        uid(pod),
        container.name
    );
    let why = match (run_as_user, image.uid) {
        (Some(0), _) => {
            format!("container's runAsUser breaks non-root policy {whose}")
        }
        (Some(_), _) => return Ok(()),
        (None, _) if !image.user.is_empty() => format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user \
             is non-root {whose}",
            image.user
        ),
        (None, Some(user)) if user != 0 => return Ok(()),
        _ => format!("container has runAsNonRoot and image will run as root {whose}"),
    };
    Err(SpecError::Root(why))
}

/// The container's own settings, else the pod's.
fn security(pod: &Pod, container: &Container, image: &Image) -> Result<Security, SpecError> {
    let own: SecurityContext = container.security_context.clone().unwrap_or_default();
    let shared = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let run_as_user = own.run_as_user.or(shared.run_as_user);
    let must_not_be_root = own.run_as_non_root.or(shared.run_as_non_root).unwrap_or(false);
    if must_not_be_root {
        check_not_root(pod, container, run_as_user, image)?;
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let seccomp = own.seccomp_profile.or(shared.seccomp_profile);
    let mut supplemental_groups = shared.supplemental_groups.unwrap_or_default();
    supplemental_groups.extend(shared.fs_group);
    Ok(Security {
        run_as_user,
        run_as_group: own.run_as_group.or(shared.run_as_group),
        supplemental_groups,
        privileged: own.privileged.unwrap_or(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        seccomp_default: seccomp.is_some_and(|profile| profile.type_ == "RuntimeDefault"),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

#[cfg(test)]
mod tests;
