//! `kontiki down`: stops what `cluster.json` lists, whether `up` still lives or not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::children::STOP_PATIENCE;
use super::network::NodeNetwork;
use super::report;
use crate::cluster_file::ClusterFile;
use crate::process::ProcessId;

/// How long a living `up` may take to stop everything in order.
const UP_PATIENCE: Duration = Duration::from_secs(90);

/// Stops the cluster of a data directory. Says whether there was anything to stop.
pub async fn down(data_dir: &Path) -> anyhow::Result<bool> {
    if !data_dir.is_dir() {
        bail!(
            "{} is not a directory: name that of `kontiki up` with --data-dir",
            data_dir.display()
        );
    }
    let Some(file) = ClusterFile::find(data_dir)? else {
        // Nothing runs, but an agent's traces may have outlived a crash.
        clean_machine(data_dir).await?;
        return Ok(false);
    };
    if file.up.is_alive() {
        file.up.signal(rustix::process::Signal::TERM).context("signal `kontiki up`")?;
        if file.up.wait_gone(UP_PATIENCE).await && ClusterFile::find(data_dir)?.is_none() {
            return Ok(true);
        }
        report::event("`kontiki up` did not stop everything: doing it here");
    }
    // What `up` restarted meanwhile stands in the file as it is now.
    let file = ClusterFile::find(data_dir)?.unwrap_or(file);
    stop_listed(data_dir, &file).await?;
    Ok(true)
}

async fn stop_listed(data_dir: &Path, file: &ClusterFile) -> anyhow::Result<()> {
    if file.up.is_alive() {
        stop_process("up", file.up).await?;
    }
    for agent in &file.agents {
        stop_process(&agent.name, agent.process).await?;
    }
    let cleaned = clean_machine(data_dir).await;
    let servers = file.servers.iter().map(|server| stop_process(&server.name, server.process));
    futures_util::future::try_join_all(servers).await?;
    ClusterFile::remove(data_dir)?;
    cleaned
}

async fn stop_process(name: &str, process: ProcessId) -> anyhow::Result<()> {
    if !process.is_alive() {
        return Ok(());
    }
    let forced = process
        .stop(STOP_PATIENCE)
        .await
        .with_context(|| format!("stop {name} (process {})", process.pid))?;
    report::event(&format!("{name} {}", if forced { "had to be killed" } else { "stopped" }));
    Ok(())
}

/// Removes what the agents of a data directory made on this machine, and the network made for them.
async fn clean_machine(data_dir: &Path) -> anyhow::Result<()> {
    let cleaned = clean_agents(&agent_folders(data_dir)?).await;
    let data_dir = std::path::absolute(data_dir)
        .with_context(|| format!("make {} absolute", data_dir.display()))?;
    cleaned.and(NodeNetwork::of(&data_dir).remove().await)
}

/// Removes what agents made on this machine; all are tried, the first error is told.
pub async fn clean_agents(folders: &[PathBuf]) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let cleaned = kontiki_node_agent::cleanup(folder)
            .await
            .with_context(|| format!("clean up the agent of {}", folder.display()));
        outcome = outcome.and(cleaned);
    }
    outcome
}

fn agent_folders(data_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(data_dir).with_context(|| format!("read {}", data_dir.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", data_dir.display()))?;
        if entry.file_name().to_string_lossy().starts_with("agent-") {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_file::tests::example;

    fn sleeper() -> (std::process::Child, ProcessId) {
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        (child, id)
    }

    #[tokio::test]
    async fn servers_are_stopped_although_up_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, server) = sleeper();
        let mut file = example(server);
        file.up = ProcessId { started_ticks: 1, ..server };
        file.write(dir.path()).unwrap();
        assert!(down(dir.path()).await.unwrap());
        assert!(!server.is_alive());
        assert_eq!(ClusterFile::find(dir.path()).unwrap(), None);
        child.wait().unwrap();
        assert!(!down(dir.path()).await.unwrap(), "a second down has nothing to do");
    }

    #[tokio::test]
    async fn a_stranger_who_got_the_same_process_id_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, stranger) = sleeper();
        let listed = ProcessId { started_ticks: stranger.started_ticks + 1, ..stranger };
        example(listed).write(dir.path()).unwrap();
        assert!(down(dir.path()).await.unwrap());
        assert!(stranger.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
