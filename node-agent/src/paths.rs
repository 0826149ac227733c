//! Where an agent keeps what: every path below its data directory is formed here.
//!
//! ```text
//! DATA/agent.json             how the agent was last started, for cleanup
//! DATA/containerd/            config.toml, pid, log, root (images), state, cni, certs.d
//! DATA/images/                the sandbox image, and which archives were imported
//! DATA/pods/UID/              volumes, etc-hosts, containers/NAME/MESSAGE of one pod
//! DATA/local-volumes/NAME     what claims of the class `local-path` hold; outlives its pods
//! DATA/checkpoint/UID.json    the last known pod
//! DATA/allocations/UID.json   what a pod was promised, and what its containers were given of it
//! DATA/logs/NS_NAME_UID/CONTAINER/ATTEMPT.log
//! ```

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Unix socket addresses end at 107 bytes, and containerd appends `.ttrpc` to this one.
const SOCKET_BYTES_MAX: usize = 96;

/// The paths of one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    data: PathBuf,
}

impl Paths {
    /// The paths below `data_dir`, which must be absolute.
    pub fn new(data_dir: &Path) -> Self {
        Self { data: data_dir.to_path_buf() }
    }

    /// The data directory itself.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// How the agent was last started.
    pub fn record(&self) -> PathBuf {
        self.data.join("agent.json")
    }

    /// Everything of the supervised containerd.
    pub fn containerd(&self) -> PathBuf {
        self.data.join("containerd")
    }

    /// Folder of the CNI configuration.
    pub fn cni_conf(&self) -> PathBuf {
        self.containerd().join("cni")
    }

    /// Where host-local notes the addresses it gave away.
    pub fn ipam(&self) -> PathBuf {
        self.containerd().join("ipam")
    }

    /// Socket of the supervised containerd; in `/run` where the data directory's path is too long
    /// for a socket's address.
    pub fn containerd_socket(&self) -> PathBuf {
        let near = self.containerd().join("containerd.sock");
        if near.as_os_str().len() <= SOCKET_BYTES_MAX {
            return near;
        }
        PathBuf::from(format!("/run/kontiki-{}", self.fingerprint())).join("containerd.sock")
    }

    /// Sandbox image and import notes.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Folder of all pods' files.
    pub fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// Folder of one pod's files.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// Folder of the volumes that the control plane makes on this node's disk.
    pub fn local_volumes(&self) -> PathBuf {
        self.data.join("local-volumes")
    }

    /// Folder of the last known pods.
    pub fn checkpoint(&self) -> PathBuf {
        self.data.join("checkpoint")
    }

    /// Folder of what pods were promised.
    pub fn allocations(&self) -> PathBuf {
        self.data.join("allocations")
    }

    /// Folder of all logs.
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// Folder of one pod's logs.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs().join(format!("{namespace}_{name}_{uid}"))
    }

    /// Folders of logs of the pod with this UID, whatever its name was.
    pub fn logs_of(&self, uid: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.logs()).into_iter().flatten().flatten();
        let suffix = format!("_{uid}");
        entries
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))
            .map(|entry| entry.path())
            .collect()
    }

    /// Name of this agent's bridge: interface names end at 15 bytes.
    pub fn bridge(&self) -> String {
        format!("kt-{}", self.fingerprint())
    }

    /// Name of the link that has the addresses of load balancers.
    pub fn answers_link(&self) -> String {
        format!("kl-{}", self.fingerprint())
    }

    /// Name of this agent's table of network rules.
    pub fn table(&self) -> String {
        format!("kontiki-{}", self.fingerprint())
    }

    /// Name of this agent's table of network policies.
    pub fn policy_table(&self) -> String {
        format!("{}-policy", self.table())
    }

    /// Ten letters that tell this data directory from every other.
    fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.data.as_os_str().as_encoded_bytes());
        hex(&digest[..5])
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_name_fits_an_interface_and_differs_per_agent() {
        let one = Paths::new(Path::new("/data/agent-1")).bridge();
        let two = Paths::new(Path::new("/data/agent-2")).bridge();
        assert!(one.len() <= 15, "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn a_deep_data_directory_gets_its_socket_in_run() {
        let deep = Paths::new(&PathBuf::from(format!("/{}", "d".repeat(120))));
        assert!(deep.containerd_socket().starts_with("/run"));
        assert!(deep.containerd_socket().as_os_str().len() <= SOCKET_BYTES_MAX);
        let short = Paths::new(Path::new("/data"));
        assert!(short.containerd_socket().starts_with("/data/containerd"));
    }
}
