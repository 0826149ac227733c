//! Taking all from a server that runs under `kontiki up` on this machine, so that it comes back as a
//! new member.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::cluster_file::{ClusterFile, ServerEntry};
use crate::dir_lock::DirLock;

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at a directory in use.
const POLL: Duration = Duration::from_millis(20);
/// The lock of a server's directory.
const LOCK: &str = "server";

/// Ends a server at once.
pub async fn end(server: &ServerEntry) -> anyhow::Result<()> {
    server.process.signal(Signal::KILL).with_context(|| format!("signal {}", server.name))?;
    if !server.process.wait_gone(GONE_WITHIN).await {
        bail!("{} does not end within {GONE_WITHIN:?} of SIGKILL", server.name);
    }
    Ok(())
}

/// Ends a server and empties its directory: who starts it again makes a new member of it. Under the
/// server's own lock, so that one that is started meanwhile meets no half of a directory.
///
/// `up_dir` is the data directory of `kontiki up`, `name` the server's: `up` may start it again
/// meanwhile, under another process number.
pub async fn empty(up_dir: &Path, name: &str) -> anyhow::Result<()> {
    let until = Instant::now() + GONE_WITHIN;
    let (server, lock) = loop {
        let servers = ClusterFile::read(up_dir)?.servers;
        let server = servers.into_iter().find(|server| server.name == name);
        let server = server.with_context(|| format!("{name} is no server of `kontiki up`"))?;
        end(&server).await?;
        match DirLock::acquire(&server.data_dir, LOCK) {
            Ok(lock) => break (server, lock),
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    };
    empty_folder(&server.data_dir)
        .with_context(|| format!("empty {}", server.data_dir.display()))?;
    drop(lock);
    Ok(())
}

/// Removes what is in a folder but the lock. The folder may be a mount of its own: it stays.
fn empty_folder(folder: &Path) -> std::io::Result<()> {
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
