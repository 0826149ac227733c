//! How the cluster under test is looked at: who answers, who leads, whether all are equal.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::check::{Promise, Violation};
use super::objects::Objects;
use super::workload::Shared;
use crate::client;
use crate::cluster_file::{ClusterFile, ServerEntry};
use crate::cluster_status::ServerStatus;

/// How long a cluster may take to be whole again before the next fault.
const HEAL_DEADLINE: Duration = Duration::from_secs(90);
/// How long watchers may take to be told of the last write.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(30);
/// How long one server may take to tell its status.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// Looks at the cluster of one data directory.
pub struct Observer {
    /// The data directory of `up`.
    pub data_dir: PathBuf,
    /// A client that is an administrator.
    pub http: reqwest::Client,
    /// How many servers there are.
    pub servers: usize,
}

impl Observer {
    /// The servers as they run now, in the order of their names.
    pub fn entries(&self) -> anyhow::Result<Vec<ServerEntry>> {
        Ok(ClusterFile::read(&self.data_dir)?.servers)
    }

    /// Waits until all servers answer and follow one leader. Returns its name.
    pub async fn whole_cluster(&self) -> anyhow::Result<String> {
        let until = Instant::now() + HEAL_DEADLINE;
        loop {
            let statuses = self.statuses().await?;
            if let Some(leader) = common_leader(&statuses, self.servers) {
                return Ok(leader);
            }
            if Instant::now() >= until {
                bail!(
                    "the cluster is not whole {HEAL_DEADLINE:?} after a fault: {} of {} servers \
                     answer; are they started again?",
                    statuses.len(),
                    self.servers
                );
            }
            sleep(POLL).await;
        }
    }

    /// What the servers that answer say.
    pub async fn statuses(&self) -> anyhow::Result<Vec<ServerStatus>> {
        let servers = self.entries()?;
        let urls = servers.iter().map(|server| format!("{}/kontiki/v1/status", server.api));
        let asked = urls.map(|url| async move {
            let json = client::get_json(&self.http, &url, STATUS_DEADLINE).await.ok()?;
            serde_json::from_value(json).ok()
        });
        Ok(futures_util::future::join_all(asked).await.into_iter().flatten().collect())
    }

    /// The last writes must reach every watcher.
    pub async fn wait_for_watchers(
        &self,
        objects: &Objects,
        shared: &Shared,
        watchers: u32,
    ) -> Result<(), Violation> {
        let until = Instant::now() + CATCH_UP_DEADLINE;
        let mut objects = objects.clone();
        let last = loop {
            match objects.list().await {
                Ok((_, items)) => break items.iter().map(|item| item.revision).max().unwrap_or(0),
                Err(_) if Instant::now() < until => objects.turn(),
                Err(error) => return Err(incomplete(format!("the last list failed: {error:#}"))),
            }
            sleep(POLL).await;
        };
        while !shared.all_watched(watchers, last) {
            if Instant::now() >= until {
                return Err(incomplete(format!(
                    "a watcher was not told of revision {last} within {CATCH_UP_DEADLINE:?}"
                )));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// At the same revision, all replicas have the same hash (invariant R6).
    pub async fn compare_replicas(&self) -> Result<(), Violation> {
        let until = Instant::now() + CATCH_UP_DEADLINE;
        loop {
            let statuses = self.statuses().await.unwrap_or_default();
            let (Some(first), true) = (statuses.first(), statuses.len() == self.servers) else {
                if Instant::now() >= until {
                    return Err(incomplete("not all servers answer after the run".into()));
                }
                sleep(POLL).await;
                continue;
            };
            if statuses.iter().all(|status| status.revision == first.revision) {
                return equal_hashes(&statuses);
            }
            if Instant::now() >= until {
                return Err(incomplete(
                    "the servers do not reach one revision after the run".into(),
                ));
            }
            sleep(POLL).await;
        }
    }
}

fn equal_hashes(statuses: &[ServerStatus]) -> Result<(), Violation> {
    let Some(first) = statuses.first() else { return Ok(()) };
    match statuses.iter().find(|status| status.hash != first.hash) {
        None => Ok(()),
        Some(other) => Err(Violation {
            promise: Promise::ReplicasEqual,
            detail: format!(
                "at revision {} {} has the hash {}, {} has {}",
                first.revision, first.name, first.hash, other.name, other.hash
            ),
        }),
    }
}

fn incomplete(detail: String) -> Violation {
    Violation { promise: Promise::WatchComplete, detail }
}

fn common_leader(statuses: &[ServerStatus], servers: usize) -> Option<String> {
    let first = statuses.first()?.leader.clone()?;
    let agreed = statuses.len() == servers
        && statuses.iter().all(|status| status.leader.as_ref() == Some(&first))
        && statuses.iter().all(|status| status.voters() == servers);
    agreed.then_some(first)
}
