//! Keeps `cluster.json` true while processes come and go.

use std::path::{Path, PathBuf};

use anyhow::Context;
use parking_lot::Mutex;

use super::children::Started;
use super::plan::{AgentPlan, Plan, ServerPlan};
use super::report;
use crate::cluster_file::{AgentEntry, ClusterFile, ServerEntry};
use crate::process::ProcessId;

/// `cluster.json` in memory and on disk.
pub struct Roster {
    data_dir: PathBuf,
    file: Mutex<ClusterFile>,
}

impl Roster {
    /// An empty one, on disk too.
    pub fn new(data_dir: &Path, plan: &Plan, kubeconfig: &Path) -> anyhow::Result<Self> {
        let file = ClusterFile {
            up: ProcessId::current().context("read /proc/self/stat")?,
            api: format!("https://{}", plan.balancer),
            kubeconfig: kubeconfig.into(),
            servers: Vec::new(),
            agents: Vec::new(),
        };
        file.write(data_dir)?;
        Ok(Self { data_dir: data_dir.into(), file: Mutex::new(file) })
    }

    /// As it is now.
    pub fn file(&self) -> ClusterFile {
        self.file.lock().clone()
    }

    /// Notes that a server runs as a new process.
    pub fn server_started(&self, plan: &ServerPlan, started: &Started) {
        let entry = ServerEntry {
            name: plan.name.clone(),
            process: started.process,
            api: format!("https://{}", plan.api),
            raft: plan.raft,
            etcd: plan.etcd,
            data_dir: plan.data_dir.clone(),
            log: plan.log.clone(),
            command: started.command.clone(),
        };
        self.change(|file| replace(&mut file.servers, entry, |entry| &entry.name));
    }

    /// Notes that an agent runs as a new process.
    pub fn agent_started(&self, plan: &AgentPlan, started: &Started) {
        let entry = AgentEntry {
            name: plan.name.clone(),
            process: started.process,
            address: plan.api.ip(),
            api: format!("https://{}", plan.api),
            data_dir: plan.data_dir.clone(),
            log: plan.log.clone(),
            command: started.command.clone(),
        };
        self.change(|file| replace(&mut file.agents, entry, |entry| &entry.name));
    }

    fn change(&self, change: impl FnOnce(&mut ClusterFile)) {
        let mut file = self.file.lock();
        change(&mut file);
        // Under the lock, so that the last change is the last written. It is a small file.
        if let Err(error) = file.write(&self.data_dir) {
            report::event(&format!("{error:#}"));
        }
    }
}

/// Puts `entry` where the one of its name is, or in the order of names.
fn replace<T>(entries: &mut Vec<T>, entry: T, name: impl Fn(&T) -> &String) {
    match entries.binary_search_by(|known| name(known).cmp(name(&entry))) {
        Ok(at) => entries[at] = entry,
        Err(at) => entries.insert(at, entry),
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::config;
    use super::*;

    #[test]
    fn a_restarted_server_takes_the_place_of_its_former_process() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(&config(dir.path()));
        let roster = Roster::new(dir.path(), &plan, &dir.path().join("kubeconfig")).unwrap();
        let start = |index: usize, pid: u32| {
            let process = ProcessId { pid, started_ticks: 1 };
            let name = plan.servers[index].name.clone();
            roster
                .server_started(&plan.servers[index], &Started { name, process, command: vec![] });
        };
        start(2, 30);
        start(0, 10);
        start(1, 20);
        start(0, 11);
        let file = ClusterFile::read(dir.path()).unwrap();
        let pids: Vec<u32> = file.servers.iter().map(|server| server.process.pid).collect();
        assert_eq!(pids, [11, 20, 30]);
    }
}
