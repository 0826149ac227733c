//! The door to the container runtime: what the agent asks of it, in the agent's own words. The
//! generated CRI messages do not leave [`cri`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::stats::{Interface, Usage};

pub mod cri;
#[cfg(test)]
pub mod fake;

/// Labels by which the runtime's things are known again, the kubelet's.
pub mod labels {
    /// Name of the pod.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Namespace of the pod.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// UID of the pod: what ties a sandbox or container to it.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Name of the container within the pod.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}

/// Annotations the agent keeps on containers.
pub mod annotations {
    /// How often the container had been restarted when this instance was made.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Path on the host of the termination message.
    pub const TERMINATION_MESSAGE_FILE: &str = "dev.kontiki.container.terminationMessageFile";
    /// The termination message itself; put here by the agent while observing, never stored.
    pub const TERMINATION_MESSAGE_TEXT: &str = "dev.kontiki.container.terminationMessage";
}

/// Why the runtime did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    /// What kind of refusal this is.
    pub kind: RuntimeErrorKind,
    /// The runtime's own words, which users see in statuses and events.
    pub message: String,
}

/// Kinds of refusal that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuntimeErrorKind {
    /// The thing asked for does not exist.
    NotFound,
    /// The runtime does not answer: it is down or starting.
    Unavailable,
    /// The call ran past its deadline.
    Deadline,
    /// The runtime tried and failed.
    Failed,
}

impl RuntimeError {
    /// True if the thing asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == RuntimeErrorKind::NotFound
    }
}

/// What the runtime says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// Containers can be run.
    pub runtime_ready: bool,
    /// Sandboxes can get a network.
    pub network_ready: bool,
    /// Why not, if not.
    pub message: String,
}

/// Name and version of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Such as `containerd`.
    pub name: String,
    /// Such as `1.6.20`.
    pub version: String,
}

/// An image the runtime has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:` and the digest of its configuration.
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The user it runs as, where that is a number.
    pub uid: Option<i64>,
    /// The user it runs as, where that is a name.
    pub user: String,
    /// Whoever brought it wants it to stay.
    pub pinned: bool,
}

/// What a registry is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The registry they are for.
    pub server: String,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// A token in place of both.
    pub identity_token: String,
}

/// Secrets go into no log.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "credentials of {:?} at {}", self.user, self.server)
    }
}

/// One port of the node led to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Port inside the pod.
    pub container_port: i32,
    /// Port of the node.
    pub host_port: i32,
    /// Address of the node it is bound to; empty for all.
    pub host_ip: String,
}

/// What `/etc/resolv.conf` of a pod says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

/// Which namespaces of the node a pod shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The node's network.
    pub host_network: bool,
    /// The node's processes.
    pub host_pid: bool,
    /// The node's shared memory.
    pub host_ipc: bool,
    /// One process namespace for all containers of the pod.
    pub share_pid: bool,
}

/// A sandbox to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxSpec {
    /// Name of the pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// UID of the pod.
    pub uid: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Host name inside; empty with the node's network.
    pub hostname: String,
    /// Folder of the containers' logs.
    pub log_directory: PathBuf,
    /// Name resolution.
    pub dns: Dns,
    /// Ports of the node led here.
    pub port_mappings: Vec<PortMapping>,
    /// Labels of the sandbox.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the sandbox.
    pub annotations: BTreeMap<String, String>,
    /// cgroup that holds the pod.
    pub cgroup_parent: String,
    /// Namespaces shared with the node.
    pub namespaces: Namespaces,
    /// A privileged container will be in it.
    pub privileged: bool,
    /// Kernel settings of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// A sandbox the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Identity given by the runtime.
    pub id: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Its processes and network exist.
    pub ready: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Addresses of the pod; empty with the node's network, and in lists.
    pub ips: Vec<IpAddr>,
}

/// A folder or file of the node seen in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Path inside.
    pub container_path: String,
    /// Path on the node.
    pub host_path: PathBuf,
    /// Writing is refused.
    pub read_only: bool,
    /// How mounts made later are passed on.
    pub propagation: Propagation,
}

/// How mounts made after a container's start are passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the node into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Relative weight of CPU time.
    pub cpu_shares: i64,
    /// CPU time per period, in microseconds; 0 for no bound.
    pub cpu_quota_us: i64,
    /// The period, in microseconds.
    pub cpu_period_us: i64,
    /// Bytes of memory; 0 for no bound.
    pub memory_limit_bytes: i64,
    /// How readily the kernel kills it when memory runs out.
    pub oom_score_adj: i64,
}

/// What a container's processes may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// User, if not the image's.
    pub run_as_user: Option<i64>,
    /// Group, if not the image's.
    pub run_as_group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// All that the node's root may.
    pub privileged: bool,
    /// The root file system refuses writing.
    pub read_only_root: bool,
    /// No way to gain rights by setuid programs.
    pub no_new_privileges: bool,
    /// Capabilities added.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped.
    pub drop_capabilities: Vec<String>,
    /// System calls are filtered by the runtime's usual list.
    pub seccomp_default: bool,
    /// Paths of `/proc` and `/sys` are not hidden.
    pub unmasked_proc: bool,
}

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Name within the pod.
    pub name: String,
    /// How many instances there were before.
    pub attempt: u32,
    /// Image, as the runtime knows it.
    pub image: String,
    /// Entry point; the image's if empty.
    pub command: Vec<String>,
    /// Arguments; the image's if empty and no command is given.
    pub args: Vec<String>,
    /// Working folder; the image's if empty.
    pub working_dir: String,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Folders and files of the node.
    pub mounts: Vec<Mount>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the container.
    pub annotations: BTreeMap<String, String>,
    /// Log file, below the sandbox's log folder.
    pub log_path: PathBuf,
    /// Standard input is kept open.
    pub stdin: bool,
    /// Standard input closes after the first client.
    pub stdin_once: bool,
    /// The container has a terminal.
    pub tty: bool,
    /// Bounds.
    pub resources: Resources,
    /// Rights.
    pub security: Security,
    /// Namespaces shared with the node.
    pub namespaces: Namespaces,
    /// The container whose process namespace it shares, by the runtime's identity.
    pub target: Option<String>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended.
    Exited,
    /// The runtime cannot tell.
    Unknown,
}

/// A container the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Identity given by the runtime.
    pub id: String,
    /// The sandbox it is in.
    pub sandbox_id: String,
    /// Name within the pod.
    pub name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// How many instances there were before.
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// What its process ended with; 128 and the signal's number if killed.
    pub exit_code: i32,
    /// A word for the end, such as `OOMKilled`.
    pub reason: String,
    /// A sentence for the end.
    pub message: String,
    /// Image as asked for.
    pub image: String,
    /// Image as found: name and digest.
    pub image_id: String,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A line of the runtime's cheap lists: enough to see that something changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Identity given by the runtime.
    pub id: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// The state, as a number of the runtime.
    pub state: i32,
}

/// What a command in a container ended with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub exit_code: i32,
    /// Standard output and error.
    pub output: String,
}

/// Which streams of a process a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// What it reads.
    pub stdin: bool,
    /// What it writes.
    pub stdout: bool,
    /// What it writes of errors; with a terminal that is one with the rest.
    pub stderr: bool,
    /// It has a terminal.
    pub tty: bool,
}

/// What a running container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFigures {
    /// Identity given by the runtime.
    pub id: String,
    /// Name within the pod.
    pub name: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
    /// Processors and memory.
    pub usage: Usage,
    /// Bytes it wrote to its own layer.
    pub disk_bytes: Option<u64>,
    /// Files in its own layer.
    pub inodes: Option<u64>,
}

/// What the sandbox of a pod uses beside its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxFigures {
    /// UID of the pod.
    pub pod_uid: String,
    /// Its network interfaces, the default one first.
    pub interfaces: Vec<Interface>,
}

/// A container runtime.
///
/// Every implementation must: answer within a deadline of its own, bear a repeated `stop_*` and
/// `remove_*` of what is gone already, never pull on `create_container`, and know sandboxes and
/// containers again after it was restarted.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version.
    async fn version(&self) -> Result<RuntimeVersion, RuntimeError>;
    /// Readiness.
    async fn status(&self) -> Result<RuntimeStatus, RuntimeError>;
    /// The image of this name, if the runtime has it.
    async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError>;
    /// All images.
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;
    /// Removes an image by its identity, whatever its names.
    async fn remove_image(&self, id: &str) -> Result<(), RuntimeError>;
    /// Where images are kept; none if that is not told.
    async fn image_folder(&self) -> Result<Option<PathBuf>, RuntimeError>;
    /// Fetches an image from its registry, which may want to be shown something.
    async fn pull(&self, name: &str, shown: Option<&Credentials>) -> Result<(), RuntimeError>;
    /// All sandboxes and containers, cheaply.
    async fn list(&self) -> Result<Vec<Listed>, RuntimeError>;
    /// Sandboxes of one pod, or of all; with addresses.
    async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<Sandbox>, RuntimeError>;
    /// Containers of one pod, or of all; with everything known.
    async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<Container>, RuntimeError>;
    /// Makes a sandbox and its network; answers its identity.
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<String, RuntimeError>;
    /// Ends all processes of a sandbox and gives its network back.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Removes a sandbox and its containers.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Makes a container in a sandbox; answers its identity.
    async fn create_container(
        &self,
        sandbox_id: &str,
        sandbox: &SandboxSpec,
        spec: &ContainerSpec,
    ) -> Result<String, RuntimeError>;
    /// Starts a container that was made.
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Asks a container to end, and ends it after `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Removes a container that ended.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Runs a command in a container and waits for it.
    async fn exec(
        &self,
        id: &str,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError>;
    /// Where to connect to run a command in a container; good for one connection.
    async fn exec_url(
        &self,
        id: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<String, RuntimeError>;
    /// Where to connect to a container's own process; good for one connection.
    async fn attach_url(&self, id: &str, streams: Streams) -> Result<String, RuntimeError>;
    /// Where to connect to ports of a sandbox; good for one connection.
    async fn ports_url(&self, sandbox_id: &str, ports: &[i32]) -> Result<String, RuntimeError>;
    /// Moves the bounds of a running container.
    async fn update_container(&self, id: &str, bounds: &Resources) -> Result<(), RuntimeError>;
    /// Bytes of memory a container uses that the kernel could not take back; none if that is not
    /// known.
    async fn memory_used(&self, id: &str) -> Result<Option<u64>, RuntimeError>;
    /// Makes the runtime write to a new log file after the old one was moved away.
    async fn reopen_log(&self, id: &str) -> Result<(), RuntimeError>;
    /// What all running containers use.
    async fn container_figures(&self) -> Result<Vec<ContainerFigures>, RuntimeError>;
    /// What the sandboxes use.
    async fn sandbox_figures(&self) -> Result<Vec<SandboxFigures>, RuntimeError>;
}
