//! Between the agent's words and the generated CRI messages. Pure.

use std::collections::HashMap;

use jiff::Timestamp;

use super::proto;
use crate::runtime::{
    Container, ContainerSpec, ContainerState, Credentials, ExecOutput, Image, Listed, Mount,
    Namespaces, PortMapping, Propagation, Resources, RuntimeStatus, Sandbox, SandboxSpec, Security,
    labels,
};

/// States of sandboxes are listed beside those of containers: they must not collide.
const SANDBOX_STATE_BASE: i32 = 100;

/// Paths that containers must not see or change, unless told so: the runtime's usual lists.
const MASKED_PATHS: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(super) fn image_spec(name: &str) -> proto::ImageSpec {
    proto::ImageSpec { image: name.to_owned(), ..Default::default() }
}

pub(super) fn uid_selector(uid: &str) -> HashMap<String, String> {
    HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())])
}

pub(super) fn status(answer: proto::StatusResponse) -> RuntimeStatus {
    let mut status = RuntimeStatus::default();
    let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
    for condition in conditions {
        match condition.r#type.as_str() {
            "RuntimeReady" => status.runtime_ready = condition.status,
            "NetworkReady" => status.network_ready = condition.status,
            _ => continue,
        }
        if !condition.status {
            if !status.message.is_empty() {
                status.message.push_str("; ");
            }
            status.message.push_str(&format!(
                "container runtime {} not ready: {} reason:{} message:{}",
                if condition.r#type == "NetworkReady" { "network" } else { "status" },
                condition.r#type,
                condition.reason,
                condition.message
            ));
        }
    }
    status
}

pub(super) fn auth(shown: &Credentials) -> proto::AuthConfig {
    // The server's name is left out: the runtime would take it for that of another registry where
    // pulls go by way of a mirror.
    proto::AuthConfig {
        username: shown.user.clone(),
        password: shown.password.clone(),
        identity_token: shown.identity_token.clone(),
        ..proto::AuthConfig::default()
    }
}

pub(super) fn image(image: proto::Image) -> Image {
    Image {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
        uid: image.uid.map(|uid| uid.value),
        user: image.username,
        pinned: image.pinned,
    }
}

pub(super) fn listed(
    sandboxes: Vec<proto::PodSandbox>,
    containers: Vec<proto::Container>,
) -> Vec<Listed> {
    let sandboxes = sandboxes.into_iter().map(|item| Listed {
        pod_uid: label(&item.labels, labels::POD_UID),
        state: SANDBOX_STATE_BASE + item.state,
        id: item.id,
    });
    let containers = containers.into_iter().map(|item| Listed {
        pod_uid: label(&item.labels, labels::POD_UID),
        state: item.state,
        id: item.id,
    });
    sandboxes.chain(containers).collect()
}

pub(super) fn sandbox(status: proto::PodSandboxStatus) -> Sandbox {
    let metadata = status.metadata.unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter_map(|ip| ip.parse().ok())
        .collect();
    Sandbox {
        id: status.id,
        pod_name: metadata.name,
        pod_namespace: metadata.namespace,
        pod_uid: metadata.uid,
        attempt: metadata.attempt,
        ready: status.state == proto::PodSandboxState::SandboxReady as i32,
        created_at: timestamp(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        ips,
    }
}

pub(super) fn container(sandbox_id: String, status: proto::ContainerStatus) -> Container {
    let metadata = status.metadata.unwrap_or_default();
    let state = match proto::ContainerState::try_from(status.state) {
        Ok(proto::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(proto::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(proto::ContainerState::ContainerExited) => ContainerState::Exited,
        _ => ContainerState::Unknown,
    };
    Container {
        id: status.id,
        sandbox_id,
        name: metadata.name,
        pod_uid: label(&status.labels, labels::POD_UID),
        attempt: metadata.attempt,
        state,
        created_at: timestamp(status.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        reason: status.reason,
        message: status.message,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_id: status.image_ref,
        annotations: status.annotations.into_iter().collect(),
    }
}

/// The runtime's nanoseconds since 1970; zero and less say "not yet".
fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()).flatten()
}

fn label(labels: &HashMap<String, String>, name: &str) -> String {
    labels.get(name).cloned().unwrap_or_default()
}

pub(super) fn exec_output(answer: &proto::ExecSyncResponse) -> ExecOutput {
    let mut output = String::from_utf8_lossy(&answer.stdout).into_owned();
    output.push_str(&String::from_utf8_lossy(&answer.stderr));
    ExecOutput { exit_code: answer.exit_code, output }
}

pub(super) fn sandbox_config(spec: &SandboxSpec) -> proto::PodSandboxConfig {
    proto::PodSandboxConfig {
        metadata: Some(proto::PodSandboxMetadata {
            name: spec.name.clone(),
            uid: spec.uid.clone(),
            namespace: spec.namespace.clone(),
            attempt: spec.attempt,
        }),
        hostname: spec.hostname.clone(),
        log_directory: spec.log_directory.display().to_string(),
        dns_config: Some(proto::DnsConfig {
            servers: spec.dns.servers.clone(),
            searches: spec.dns.searches.clone(),
            options: spec.dns.options.clone(),
        }),
        port_mappings: spec.port_mappings.iter().map(port_mapping).collect(),
        labels: spec.labels.clone().into_iter().collect(),
        annotations: spec.annotations.clone().into_iter().collect(),
        linux: Some(proto::LinuxPodSandboxConfig {
            cgroup_parent: spec.cgroup_parent.clone(),
            security_context: Some(proto::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(spec.namespaces)),
                privileged: spec.privileged,
                seccomp: Some(proto::SecurityProfile {
                    profile_type: proto::security_profile::ProfileType::RuntimeDefault as i32,
                    localhost_ref: String::new(),
                }),
                ..Default::default()
            }),
            sysctls: spec.sysctls.clone().into_iter().collect(),
            ..Default::default()
        }),
        windows: None,
    }
}

fn port_mapping(mapping: &PortMapping) -> proto::PortMapping {
    let protocol = match mapping.protocol.as_str() {
        "UDP" => proto::Protocol::Udp,
        "SCTP" => proto::Protocol::Sctp,
        _ => proto::Protocol::Tcp,
    };
    proto::PortMapping {
        protocol: protocol as i32,
        container_port: mapping.container_port,
        host_port: mapping.host_port,
        host_ip: mapping.host_ip.clone(),
    }
}

fn namespaces(namespaces: Namespaces) -> proto::NamespaceOption {
    use proto::NamespaceMode as Mode;
    let node_or_pod = |shared: bool| if shared { Mode::Node as i32 } else { Mode::Pod as i32 };
    let pid = if namespaces.host_pid {
        Mode::Node
    } else if namespaces.share_pid {
        Mode::Pod
    } else {
        Mode::Container
    };
    proto::NamespaceOption {
        network: node_or_pod(namespaces.host_network),
        pid: pid as i32,
        ipc: node_or_pod(namespaces.host_ipc),
        ..Default::default()
    }
}

pub(super) fn container_config(spec: &ContainerSpec) -> proto::ContainerConfig {
    let envs = spec
        .env
        .iter()
        .map(|(key, value)| proto::KeyValue { key: key.clone(), value: value.clone() });
    proto::ContainerConfig {
        metadata: Some(proto::ContainerMetadata { name: spec.name.clone(), attempt: spec.attempt }),
        image: Some(image_spec(&spec.image)),
        command: spec.command.clone(),
        args: spec.args.clone(),
        working_dir: spec.working_dir.clone(),
        envs: envs.collect(),
        mounts: spec.mounts.iter().map(mount).collect(),
        labels: spec.labels.clone().into_iter().collect(),
        annotations: spec.annotations.clone().into_iter().collect(),
        log_path: spec.log_path.display().to_string(),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(proto::LinuxContainerConfig {
            resources: Some(resources(&spec.resources)),
            security_context: Some(security(&spec.security, container_namespaces(spec))),
        }),
        ..Default::default()
    }
}

pub(super) fn resources(bounds: &Resources) -> proto::LinuxContainerResources {
    proto::LinuxContainerResources {
        cpu_period: bounds.cpu_period_us,
        cpu_quota: bounds.cpu_quota_us,
        cpu_shares: bounds.cpu_shares,
        memory_limit_in_bytes: bounds.memory_limit_bytes,
        oom_score_adj: bounds.oom_score_adj,
        ..Default::default()
    }
}

fn mount(mount: &Mount) -> proto::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => proto::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => proto::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => proto::MountPropagation::PropagationBidirectional,
    };
    proto::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.display().to_string(),
        readonly: mount.read_only,
        propagation: propagation as i32,
        ..Default::default()
    }
}

fn container_namespaces(spec: &ContainerSpec) -> proto::NamespaceOption {
    let mut option = namespaces(spec.namespaces);
    if let Some(target) = &spec.target {
        option.pid = proto::NamespaceMode::Target as i32;
        option.target_id.clone_from(target);
    }
    option
}

fn security(
    security: &Security,
    shared: proto::NamespaceOption,
) -> proto::LinuxContainerSecurityContext {
    use proto::security_profile::ProfileType;
    let seccomp = if security.seccomp_default && !security.privileged {
        ProfileType::RuntimeDefault
    } else {
        ProfileType::Unconfined
    };
    let paths = |paths: &[&str]| -> Vec<String> {
        if security.privileged || security.unmasked_proc {
            return Vec::new();
        }
        paths.iter().map(|path| (*path).to_owned()).collect()
    };
    proto::LinuxContainerSecurityContext {
        capabilities: Some(proto::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            ..Default::default()
        }),
        privileged: security.privileged,
        namespace_options: Some(shared),
        run_as_user: security.run_as_user.map(|value| proto::Int64Value { value }),
        run_as_group: security.run_as_group.map(|value| proto::Int64Value { value }),
        readonly_rootfs: security.read_only_root,
        supplemental_groups: security.supplemental_groups.clone(),
        no_new_privs: security.no_new_privileges,
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(proto::SecurityProfile {
            profile_type: seccomp as i32,
            localhost_ref: String::new(),
        }),
        ..Default::default()
    }
}
