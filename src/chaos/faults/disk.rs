//! Disks that are slow or full.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::cluster_file::ServerEntry;

/// How much longer each sync of a slow disk takes.
pub const SYNC_DELAY: Duration = Duration::from_millis(100);
/// How large the disk of a server is that shall be filled.
pub const SMALL_DISK_BYTES: u64 = 384 << 20;
/// How long the tracer may take to hold all threads.
const ATTACHED_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// A server whose syncs take long: `strace` holds each of them up. Dropping it lets go.
pub struct SlowSyncs {
    tracer: Child,
    name: String,
}

impl SlowSyncs {
    /// Begins, and returns once the tracer holds the process.
    pub async fn start(server: &ServerEntry) -> anyhow::Result<Self> {
        let pid = server.process.pid.to_string();
        let inject = format!("inject=fsync,fdatasync:delay_enter={}", SYNC_DELAY.as_micros());
        let tracer = Command::new("strace")
            .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", &inject])
            .args(["-o", "/dev/null", "-p", &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start strace, which makes syncs slow: install strace")?;
        let mut slow = Self { tracer, name: server.name.clone() };
        slow.attached(&pid).await?;
        Ok(slow)
    }

    async fn attached(&mut self, pid: &str) -> anyhow::Result<()> {
        let until = Instant::now() + ATTACHED_WITHIN;
        loop {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_some_and(|tracer| tracer.trim() != "0") {
                return Ok(());
            }
            if let Some(ended) = self.tracer.try_wait()? {
                bail!("strace cannot hold {} ({ended}): root is needed", self.name);
            }
            if Instant::now() >= until {
                bail!("strace does not hold {} within {ATTACHED_WITHIN:?}", self.name);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for SlowSyncs {
    fn drop(&mut self) {
        // Told to end it lets go of the process; killed it would leave that to the kernel as well,
        // but not in the middle of a call.
        let pid = self.tracer.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            eprintln!("error: end the tracer of {}: {error}", self.name);
        }
    }
}

/// A file that takes all room of a disk. Dropping it removes the file.
pub struct Ballast(PathBuf);

impl Ballast {
    /// Fills the disk of `folder`, which must be one of its own: [`SmallDisk`].
    pub fn fill(folder: &Path) -> anyhow::Result<Self> {
        let ballast = Self(folder.join("ballast"));
        let mut file =
            File::create(&ballast.0).with_context(|| format!("create {}", ballast.0.display()))?;
        let mut block = vec![0u8; 1 << 20];
        // Ever smaller blocks, so that nothing is left, and a bound in case it is no small disk.
        let mut written = 0u64;
        while !block.is_empty() && written <= SMALL_DISK_BYTES {
            match file.write(&block) {
                Ok(0) | Err(_) => block.truncate(block.len() / 2),
                Ok(bytes) => written += bytes as u64,
            }
        }
        if !block.is_empty() {
            bail!("{} is on a disk larger than {SMALL_DISK_BYTES} bytes", folder.display());
        }
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("error: remove {}: {error}", self.0.display());
        }
    }
}

/// A file system in memory, for one server; dropping it unmounts it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `folder`.
    pub fn mount(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let size = std::ffi::CString::new(format!("size={SMALL_DISK_BYTES},mode=700"))?;
        rustix::mount::mount(
            "kontiki-chaos",
            folder,
            "tmpfs",
            rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV,
            Some(size.as_c_str()),
        )
        .with_context(|| format!("mount a small disk at {} (root is needed)", folder.display()))?;
        Ok(Self(folder.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("error: unmount {}: {error}", self.0.display());
        }
    }
}
