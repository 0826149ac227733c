//! Faults of real processes on a real machine. Each is undone by dropping what it returned, so that
//! an interrupted run leaves nothing behind.

use std::path::Path;

use anyhow::Context;
use rustix::process::Signal;

use super::scenario::FaultKind;
use crate::cluster_file::ServerEntry;
use crate::members::rebuild;

pub mod disk;
pub mod files;
pub mod firewall;

use disk::{Ballast, SlowSyncs};
use firewall::{Cut, Direction};

/// A fault that lasts; it ends when this is dropped.
pub enum Lasting {
    /// A process stands still.
    Paused(Paused),
    /// Packets are dropped.
    Cut(Cut),
    /// Syncs take long.
    Slow(SlowSyncs),
    /// The disk is full.
    Full(Ballast),
    /// Files are damaged, as told: nothing to undo, somebody must replace the member.
    Damaged(String),
}

/// A process that stands still.
pub struct Paused(ServerEntry);

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = self.0.process.signal(Signal::CONT) {
            eprintln!("error: let {} go on: {error}", self.0.name);
        }
    }
}

/// Brings a fault upon `servers[victim]` of the `kontiki up` in `up_dir`.
pub async fn inject(
    fault: FaultKind,
    up_dir: &Path,
    servers: &[ServerEntry],
    victim: usize,
    seed: u64,
) -> anyhow::Result<Option<Lasting>> {
    let server = &servers[victim];
    Ok(match fault {
        FaultKind::Kill => signal(server, Signal::KILL).map(|()| None)?,
        FaultKind::Restart => signal(server, Signal::TERM).map(|()| None)?,
        FaultKind::Replace => rebuild::empty(up_dir, &server.name).await.map(|()| None)?,
        FaultKind::Pause => {
            signal(server, Signal::STOP)?;
            Some(Lasting::Paused(Paused(server.clone())))
        }
        FaultKind::Cut => cut(servers, victim, &[Direction::Incoming, Direction::Outgoing]).await?,
        FaultKind::CutOutgoing => cut(servers, victim, &[Direction::Outgoing]).await?,
        FaultKind::CutIncoming => cut(servers, victim, &[Direction::Incoming]).await?,
        FaultKind::SlowDisk => Some(Lasting::Slow(SlowSyncs::start(server).await?)),
        FaultKind::FullDisk => Some(Lasting::Full(Ballast::fill(&server.data_dir)?)),
        FaultKind::Corrupt => {
            rebuild::end(server).await?;
            let damage = files::flip_bits(&server.data_dir.join("store"), seed)?;
            Some(Lasting::Damaged(damage))
        }
    })
}

fn signal(server: &ServerEntry, signal: Signal) -> anyhow::Result<()> {
    server.process.signal(signal).with_context(|| format!("signal {}", server.name))
}

async fn cut(
    servers: &[ServerEntry],
    victim: usize,
    directions: &[Direction],
) -> anyhow::Result<Option<Lasting>> {
    Ok(Some(Lasting::Cut(Cut::between(servers, victim, directions).await?)))
}
