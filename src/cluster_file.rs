//! `cluster.json`: what `kontiki up` has started, for `down`, `status`, `chaos` and any script.
//!
//! Written whole or not at all, and again whenever a process is replaced.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::process::ProcessId;

/// The file's name within the data directory of `up`.
pub const FILE_NAME: &str = "cluster.json";

/// Everything that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// `kontiki up` itself.
    pub up: ProcessId,
    /// The address in the kubeconfig: it leads to whichever server is ready.
    pub api: String,
    /// The kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// `kontiki server` processes.
    pub servers: Vec<ServerEntry>,
    /// `kontiki agent` processes.
    pub agents: Vec<AgentEntry>,
}

/// One `kontiki server`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEntry {
    /// `server-1`.
    pub name: String,
    /// Its process; of the last one while it is being started again.
    #[serde(flatten)]
    pub process: ProcessId,
    /// URL of its Kubernetes API.
    pub api: String,
    /// Where its peers reach it.
    pub raft: SocketAddr,
    /// Where it speaks the etcd API.
    pub etcd: SocketAddr,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// What it says.
    pub log: PathBuf,
    /// How it was started.
    pub command: Vec<String>,
}

/// One `kontiki agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentEntry {
    /// The name of its node.
    pub name: String,
    /// Its process; of the last one while it is being started again.
    #[serde(flatten)]
    pub process: ProcessId,
    /// The node's address.
    pub address: IpAddr,
    /// URL at which servers reach it, for logs and the like.
    pub api: String,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// What it says.
    pub log: PathBuf,
    /// How it was started.
    pub command: Vec<String>,
}

impl ClusterFile {
    /// That of a data directory, if there is one.
    pub fn find(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = data_dir.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let file = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `kontiki up` writes", path.display()))?;
        Ok(Some(file))
    }

    /// That of a data directory; none is an error that says where clusters come from.
    pub fn read(data_dir: &Path) -> anyhow::Result<Self> {
        Self::find(data_dir)?.with_context(|| {
            format!(
                "no cluster runs in {}: start one with `kontiki up`, or name another --data-dir",
                data_dir.display()
            )
        })
    }

    /// Writes it.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = data_dir.join(FILE_NAME);
        let partial = data_dir.join(".cluster.json.partial");
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(&partial, text)
            .and_then(|()| std::fs::rename(&partial, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// Removes it: nothing runs any more.
    pub fn remove(data_dir: &Path) -> anyhow::Result<()> {
        let path = data_dir.join(FILE_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Names and numbers of what still runs, without `up` itself.
    pub fn alive(&self) -> Vec<(&str, ProcessId)> {
        let servers = self.servers.iter().map(|entry| (entry.name.as_str(), entry.process));
        let agents = self.agents.iter().map(|entry| (entry.name.as_str(), entry.process));
        agents.chain(servers).filter(|(_, process)| process.is_alive()).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example(process: ProcessId) -> ClusterFile {
        ClusterFile {
            up: process,
            api: "https://127.0.0.1:6443".into(),
            kubeconfig: "/data/kubeconfig".into(),
            servers: vec![ServerEntry {
                name: "server-1".into(),
                process,
                api: "https://127.0.0.1:6444".into(),
                raft: ([127, 0, 0, 1], 6453).into(),
                etcd: ([127, 0, 0, 1], 6463).into(),
                data_dir: "/data/server-1".into(),
                log: "/data/logs/server-1.log".into(),
                command: vec!["kontiki".into(), "server".into()],
            }],
            agents: vec![],
        }
    }

    #[test]
    fn what_is_written_is_read_and_shows_pid_and_addresses_at_the_top_of_each_entry() {
        let dir = tempfile::tempdir().unwrap();
        let file = example(ProcessId { pid: 7, started_ticks: 11 });
        file.write(dir.path()).unwrap();
        assert_eq!(ClusterFile::read(dir.path()).unwrap(), file);
        let text = std::fs::read_to_string(dir.path().join(FILE_NAME)).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["servers"][0]["pid"], 7);
        assert_eq!(json["servers"][0]["etcd"], "127.0.0.1:6463");
    }

    #[test]
    fn a_directory_without_a_cluster_and_a_damaged_file_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = ClusterFile::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("start one with `kontiki up`"), "{error}");
        std::fs::write(dir.path().join(FILE_NAME), "{").unwrap();
        let error = ClusterFile::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is not what `kontiki up` writes"), "{error}");
    }

    #[test]
    fn only_what_really_runs_counts_as_alive() {
        let me = ProcessId::current().unwrap();
        assert_eq!(example(me).alive(), [("server-1", me)]);
        assert!(example(ProcessId { started_ticks: 1, ..me }).alive().is_empty());
    }
}
