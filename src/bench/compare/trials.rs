//! What is measured beside the loads: watchers, leases, failover, and what is left on disk.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use super::systems::{Members, System};
use super::{CompareConfig, folder};
use crate::bench::failover::{self, Fault};
use crate::bench::{disk, etcd_watch, leases};

/// What to try, and how much of it; 0 leaves it out.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Watchers of one prefix.
    pub watchers: u64,
    /// Puts a second that they watch.
    pub watched_puts: u64,
    /// Leases that are kept alive.
    pub leases: u64,
    /// How often the leader is killed, ended and stopped.
    pub failovers: u32,
    /// Puts over 10,000 keys before the disk is looked at.
    pub disk_puts: u64,
    /// Keys that are there when all members are started again.
    pub reopen_keys: u64,
}

/// One figure of one system.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    name: String,
    value: f64,
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// What was measured, and in which unit.
    pub figure: String,
    /// etcd's.
    pub etcd: f64,
    /// Kontiki's.
    pub kontiki: f64,
}

/// Tries both systems, each trial on a fresh cluster, etcd first.
pub async fn run(config: &CompareConfig) -> anyhow::Result<Vec<Compared>> {
    let etcd = run_one(System::Etcd, config).await?;
    let kontiki = run_one(System::Kontiki, config).await?;
    Ok(pair(etcd, kontiki))
}

fn pair(etcd: Vec<Figure>, kontiki: Vec<Figure>) -> Vec<Compared> {
    let both = etcd.into_iter().zip(kontiki);
    both.map(|(etcd, kontiki)| Compared {
        figure: etcd.name,
        etcd: etcd.value,
        kontiki: kontiki.value,
    })
    .collect()
}

async fn run_one(system: System, config: &CompareConfig) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let sizes = config.sizes;
    if sizes.watchers > 0 {
        figures.extend(on_fresh(system, config, Trial::Watchers).await?);
    }
    if sizes.leases > 0 {
        figures.extend(on_fresh(system, config, Trial::Leases).await?);
    }
    if sizes.failovers > 0 {
        figures.extend(on_fresh(system, config, Trial::Failover).await?);
    }
    if sizes.disk_puts > 0 {
        figures.extend(on_fresh(system, config, Trial::Disk).await?);
    }
    if sizes.reopen_keys > 0 {
        figures.extend(reopen(system, config).await?);
    }
    Ok(figures)
}

#[derive(Debug, Clone, Copy)]
enum Trial {
    Watchers,
    Leases,
    Failover,
    Disk,
}

async fn on_fresh(
    system: System,
    config: &CompareConfig,
    trial: Trial,
) -> anyhow::Result<Vec<Figure>> {
    eprintln!("{trial:?}: {}", system.name());
    let folder = folder(config, system.name())?;
    let (mut members, _) = Members::boot(system, config, folder.path()).await?;
    let figures = match trial {
        Trial::Watchers => watchers(&members, config).await,
        Trial::Leases => keep_alive(&members, config).await,
        Trial::Failover => fail_over(&mut members, config).await,
        Trial::Disk => leave_on_disk(&members, config, folder.path()).await,
    };
    members.stop().await?;
    figures.with_context(|| format!("{trial:?} of {}", system.name()))
}

fn figure(name: impl Into<String>, value: f64) -> Figure {
    Figure { name: name.into(), value }
}

async fn watchers(members: &Members, config: &CompareConfig) -> anyhow::Result<Vec<Figure>> {
    let Sizes { watchers, watched_puts, .. } = config.sizes;
    let client = members.client(config.value_bytes)?;
    let seen = etcd_watch::run(&client, watchers, watched_puts, config.duration).await?;
    let name = |what: &str| format!("{watchers} watchers, {watched_puts} puts/s: {what}");
    Ok(vec![
        figure(name("events not delivered"), seen.lost),
        figure(name("delivery p50, ms"), seen.latency_ms.p50),
        figure(name("delivery p99, ms"), seen.latency_ms.p99),
    ])
}

async fn keep_alive(members: &Members, config: &CompareConfig) -> anyhow::Result<Vec<Figure>> {
    let count = config.sizes.leases;
    let client = members.client(config.value_bytes)?;
    let measured = leases::run(&client, count, config.duration).await?;
    let name = |what: &str| format!("{count} leases kept alive: {what}");
    Ok(vec![
        figure(name("a second"), measured.per_second),
        figure(name("p99, ms"), measured.latency_ms.p99),
    ])
}

async fn fail_over(members: &mut Members, config: &CompareConfig) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for fault in [Fault::Kill, Fault::Terminate, Fault::Stop] {
        let outages = failover::run(members, config, fault, config.sizes.failovers).await?;
        let name = |what: &str| format!("leader {}, to the next write: {what}", fault.name());
        figures.push(figure(name("median, ms"), super::median(outages.iter().copied())));
        figures.push(figure(name("worst, ms"), outages.iter().copied().fold(0.0, f64::max)));
    }
    Ok(figures)
}

async fn leave_on_disk(
    members: &Members,
    config: &CompareConfig,
    folder: &Path,
) -> anyhow::Result<Vec<Figure>> {
    let puts = config.sizes.disk_puts;
    let client = members.client(config.value_bytes)?;
    let times = disk::run(&client, puts, config.value_bytes, folder).await?;
    let name = format!("disk of a member after {puts} puts, compacted: times the live data");
    Ok(vec![figure(name, times / f64::from(super::systems::MEMBERS))])
}

/// Fills a cluster, ends all its members, and starts them again.
async fn reopen(system: System, config: &CompareConfig) -> anyhow::Result<Vec<Figure>> {
    let keys = config.sizes.reopen_keys;
    eprintln!("Reopen: {}", system.name());
    let folder = folder(config, system.name())?;
    let (members, _) = Members::boot(system, config, folder.path()).await?;
    let filled = disk::fill(&members.client(1)?, keys).await;
    members.stop().await?;
    filled.with_context(|| format!("fill {}", system.name()))?;
    let (members, seconds) = Members::boot(system, config, folder.path()).await?;
    members.stop().await?;
    Ok(vec![figure(format!("all started again with {keys} keys, to the first write: s"), seconds)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_paired_in_their_order() {
        let paired = pair(
            vec![figure("a", 1.0), figure("b", 2.0)],
            vec![figure("a", 3.0), figure("b", 4.0)],
        );
        let last = Compared { figure: "b".into(), etcd: 2.0, kontiki: 4.0 };
        assert_eq!(paired[1], last);
    }
}
