//! Takes away everything an agent made: pods first, by way of the runtime, then whatever is left
//! of processes, mounts, interfaces and cgroups.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::agent::AgentError;
use crate::config::RuntimeChoice;
use crate::containerd::Containerd;
use crate::paths::Paths;
use crate::proxy::nft;
use crate::runtime::cri::Cri;
use crate::runtime::{ContainerState, Runtime, RuntimeError};
use crate::{cgroups, network, volumes};

/// How long containers may take to end when everything goes.
const GRACE: Duration = Duration::from_secs(2);
/// Longest wait for the shims of removed pods to end by themselves.
const SHIMS_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at them.
const SHIMS_POLL: Duration = Duration::from_millis(50);

/// How an agent was last started: what cleaning up after it must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the node.
    pub node_name: String,
    /// The runtime it drove.
    pub runtime: RuntimeChoice,
    /// cgroup below which its pods stood.
    pub cgroup_root: String,
}

impl Record {
    /// Notes it in the data directory.
    pub fn save(&self, paths: &Paths) -> Result<(), AgentError> {
        let path = paths.record();
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| AgentError::io("encode", &path, error.into()))?;
        std::fs::write(&path, text).map_err(|source| AgentError::io("write", &path, source))
    }

    /// The record of a data directory; none if no agent ever ran there.
    pub fn load(paths: &Paths) -> Result<Option<Self>, AgentError> {
        let path = paths.record();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AgentError::io("read", &path, source)),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| AgentError::io("decode", &path, error.into()))
    }
}

/// Removes every pod, container, mount, interface, network namespace and cgroup that the agent of
/// `data_dir` made, and stops its containerd. The agent itself must have stopped. Does nothing
/// where no agent ever ran. Images stay for the next start.
pub async fn cleanup(data_dir: &Path) -> Result<(), AgentError> {
    let data_dir = match data_dir.canonicalize() {
        Ok(data_dir) => data_dir,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(AgentError::io("resolve", data_dir, source)),
    };
    let paths = Paths::new(&data_dir);
    let Some(record) = Record::load(&paths)? else { return Ok(()) };
    nft::remove_table(&paths.table()).await;
    nft::remove_table(&paths.policy_table()).await;
    network::remove_link(&paths.answers_link()).await;
    match &record.runtime {
        RuntimeChoice::Supervised => {
            if let Some(containerd) = Containerd::existing(&paths) {
                containerd.ensure_serving().await?;
                let removed = remove_pods(&Cri::new(&containerd.socket()), None).await;
                containerd.stop().await;
                removed.map_err(|error| AgentError::Runtime(format!("remove pods: {error}")))?;
                end_shims(&containerd.socket()).await;
            }
            network::remove_link(&paths.bridge()).await;
            network::routes::remove().await;
            let _ = std::fs::remove_file(paths.containerd_socket());
        }
        RuntimeChoice::Socket(socket) => {
            let ours = pod_uids(&paths);
            remove_pods(&Cri::new(socket), Some(&ours))
                .await
                .map_err(|error| AgentError::Runtime(format!("remove pods: {error}")))?;
        }
    }
    for uid in pod_uids(&paths) {
        cgroups::remove_pod(&record.cgroup_root, &uid);
        volumes::tear_down(&paths, &uid)
            .map_err(|source| AgentError::io("remove", &paths.pod(&uid), source))?;
    }
    cgroups::remove_tree(&record.cgroup_root);
    // Mounts of containers whose runtime could not undo them.
    volumes::unmount_below(&data_dir);
    for dir in
        [paths.logs(), paths.checkpoint(), paths.allocations(), paths.cni_conf(), paths.ipam()]
    {
        let _ = std::fs::remove_dir_all(dir);
    }
    Ok(())
}

/// UIDs of pods whose folders are there.
fn pod_uids(paths: &Paths) -> Vec<String> {
    let entries = std::fs::read_dir(paths.pods()).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Removes all pods of a runtime, or those with these UIDs.
async fn remove_pods(runtime: &dyn Runtime, uids: Option<&[String]>) -> Result<(), RuntimeError> {
    let ours = |uid: &String| uids.is_none_or(|uids| uids.contains(uid));
    let containers = runtime.containers(None).await?;
    let running = containers
        .iter()
        .filter(|container| ours(&container.pod_uid) && container.state == ContainerState::Running);
    // Side by side: each may take its grace.
    futures_util::future::try_join_all(
        running.map(|container| runtime.stop_container(&container.id, GRACE)),
    )
    .await?;
    let sandboxes = runtime.sandboxes(None).await?;
    let sandboxes = sandboxes.iter().filter(|sandbox| ours(&sandbox.pod_uid));
    futures_util::future::try_join_all(sandboxes.map(|sandbox| async {
        runtime.stop_sandbox(&sandbox.id).await?;
        runtime.remove_sandbox(&sandbox.id).await
    }))
    .await?;
    Ok(())
}

/// Shims end with their pod; one that does not is known by our socket in its command line.
async fn end_shims(socket: &Path) {
    let deadline = tokio::time::Instant::now() + SHIMS_DEADLINE;
    while !shims(socket).is_empty() {
        if tokio::time::Instant::now() > deadline {
            for shim in shims(socket) {
                tracing::warn!(pid = %shim, "a shim did not end by itself");
                let _ = rustix::process::kill_process(shim, Signal::KILL);
            }
            return;
        }
        tokio::time::sleep(SHIMS_POLL).await;
    }
}

fn shims(socket: &Path) -> Vec<Pid> {
    let socket = socket.as_os_str().as_encoded_bytes();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            let is_shim = words
                .next()
                .is_some_and(|program| program.windows(15).any(|w| w == b"containerd-shim"));
            is_shim && words.any(|word| word == socket)
        })
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_where_no_agent_ran_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "").unwrap();
        cleanup(dir.path()).await.unwrap();
        cleanup(&dir.path().join("none")).await.unwrap();
        assert!(dir.path().join("mine").exists());
    }

    #[test]
    fn a_record_comes_back_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let record = Record {
            node_name: "n1".into(),
            runtime: RuntimeChoice::Socket("/run/x.sock".into()),
            cgroup_root: "/k".into(),
        };
        record.save(&paths).unwrap();
        assert_eq!(Record::load(&paths).unwrap(), Some(record));
        std::fs::write(paths.record(), "{").unwrap();
        let error = Record::load(&paths).unwrap_err();
        assert!(error.to_string().contains("agent.json"), "{error}");
    }
}
