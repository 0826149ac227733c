//! One fault after the other: wait for a whole cluster, choose, inject, hold, heal.

use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};

use super::ChaosConfig;
use super::faults::{self, Lasting};
use super::history::Record;
use super::observer::Observer;
use super::scenario::Chooser;
use super::workload::Shared;
use crate::cluster_file::ServerEntry;
use crate::members::rebuild;

/// Writes before the first fault and after the last.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long a damaged server may take to serve or to refuse.
const DAMAGE_TOLD_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

/// Brings all faults of a run about.
pub async fn run(config: &ChaosConfig, observer: &Observer, shared: &Shared) -> anyhow::Result<()> {
    let bar = progress(config.count);
    let mut chooser = Chooser::new(config.scenario, config.seed);
    sleep(WARM_UP).await;
    for round in 0..config.count {
        let begun = Instant::now();
        let leader = observer.whole_cluster().await?;
        let servers = observer.entries()?;
        let leader = servers
            .iter()
            .position(|server| server.name == leader)
            .with_context(|| format!("the leader {leader} is not in cluster.json"))?;
        let (fault, victim) = chooser.choose(round, leader, servers.len());
        let server = servers[victim].clone();
        bar.set_message(format!("{} {}", fault.verb(), server.name));
        let log_bytes = std::fs::metadata(&server.log).map_or(0, |about| about.len());
        let at_us = shared.clock.now_us();
        shared.record(Record::Fault { at_us, fault, server: server.name.clone() });
        let seed = config.seed.wrapping_add(u64::from(round));
        let injected = faults::inject(fault, &observer.data_dir, &servers, victim, seed).await?;
        if let Some(lasting) = injected {
            sleep(config.hold).await;
            let detail = heal(lasting, observer, &server, log_bytes).await?;
            let at_us = shared.clock.now_us();
            shared.record(Record::Heal { at_us, server: server.name, detail });
        }
        bar.inc(1);
        sleep(config.interval.saturating_sub(begun.elapsed())).await;
    }
    observer.whole_cluster().await?;
    sleep(WARM_UP).await;
    bar.finish_and_clear();
    Ok(())
}

/// Ends a fault. Says what was seen of it.
async fn heal(
    lasting: Lasting,
    observer: &Observer,
    server: &ServerEntry,
    log_bytes: u64,
) -> anyhow::Result<String> {
    let Lasting::Damaged(damage) = lasting else {
        drop(lasting);
        return Ok("healed".into());
    };
    match told_of_damage(observer, server, log_bytes).await? {
        Some(refusal) => {
            rebuild::empty(&observer.data_dir, &server.name).await?;
            Ok(format!("{damage}: refused ({refusal}), replaced"))
        }
        None => Ok(format!("{damage}: nothing in use was hit, serves")),
    }
}

/// What a damaged server said when it refused to start; nothing when it serves, which it must only
/// where the damage hit nothing in use: replicas are compared at the end of the run.
async fn told_of_damage(
    observer: &Observer,
    server: &ServerEntry,
    log_bytes: u64,
) -> anyhow::Result<Option<String>> {
    let until = Instant::now() + DAMAGE_TOLD_WITHIN;
    while Instant::now() < until {
        let log = std::fs::read(&server.log)?;
        let since = usize::try_from(log_bytes).unwrap_or(0).min(log.len());
        let since = String::from_utf8_lossy(&log[since..]).into_owned();
        if let Some(refusal) = since.lines().find(|line| line.starts_with("error: ")) {
            return Ok(Some(refusal.to_owned()));
        }
        let statuses = observer.statuses().await?;
        if statuses.iter().any(|status| status.name == server.name) {
            return Ok(None);
        }
        sleep(POLL).await;
    }
    Ok(Some(format!("it neither serves nor refuses within {DAMAGE_TOLD_WITHIN:?}")))
}

fn progress(count: u32) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(count));
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {pos}/{len} faults, last: {msg} {elapsed}")
    {
        bar.set_style(style);
    }
    bar
}
