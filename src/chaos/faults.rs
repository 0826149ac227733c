//! Faults of real processes on a real machine. Each is undone by dropping what it returned, so that
//! an interrupted run leaves nothing behind.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::Instant;

use super::scenario::FaultKind;
use crate::cluster_file::ServerEntry;
use crate::dir_lock::DirLock;

pub mod disk;
pub mod files;
pub mod firewall;

use disk::{Ballast, SlowSyncs};
use firewall::{Cut, Direction};

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at a directory in use.
const POLL: Duration = Duration::from_millis(20);
/// The lock of a server's directory.
const LOCK: &str = "server";

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

/// Brings a fault upon `servers[victim]`.
pub async fn inject(
    fault: FaultKind,
    servers: &[ServerEntry],
    victim: usize,
    seed: u64,
) -> anyhow::Result<Option<Lasting>> {
    let server = &servers[victim];
    Ok(match fault {
        FaultKind::Kill => signal(server, Signal::KILL).map(|()| None)?,
        FaultKind::Restart => signal(server, Signal::TERM).map(|()| None)?,
        FaultKind::Replace => replace(server).await.map(|()| None)?,
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
            end(server).await?;
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

async fn end(server: &ServerEntry) -> anyhow::Result<()> {
    signal(server, Signal::KILL)?;
    if !server.process.wait_gone(GONE_WITHIN).await {
        bail!("{} does not end within {GONE_WITHIN:?} of SIGKILL", server.name);
    }
    Ok(())
}

/// Ends a server and empties its directory: who starts it again makes a new member of it. Under the
/// server's own lock, so that one that is started meanwhile meets no half of a directory.
pub async fn replace(server: &ServerEntry) -> anyhow::Result<()> {
    let until = Instant::now() + GONE_WITHIN;
    let lock = loop {
        end(server).await?;
        match DirLock::acquire(&server.data_dir, LOCK) {
            Ok(lock) => break lock,
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    empty(&server.data_dir).with_context(|| format!("empty {}", server.data_dir.display()))?;
    drop(lock);
    Ok(())
}

/// Removes what is in a folder but the lock. The folder may be a mount of its own: it stays.
fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != format!("{LOCK}.lock").as_str() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
