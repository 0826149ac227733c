//! A cluster of the runner's own, and who kills its leader again and again.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::image;

/// The image that its nodes have.
pub const IMAGE: &str = "docker.io/library/busybox:1";

fn program() -> Result<PathBuf> {
    match std::env::var_os("KONTIKI_BIN") {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(std::env::current_exe()?.with_file_name("kontiki")),
    }
}

fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// A cluster under `kontiki up`; stopped when dropped.
#[derive(Debug)]
pub struct Up {
    child: Child,
    folder: TempDir,
}

impl Up {
    /// Boots it with images that need no registry.
    pub fn start(base_port: u16) -> Result<Self> {
        let program = program()?;
        let folder = TempDir::new()?;
        let images = folder.path().join("images");
        image::write_busybox(&images, IMAGE);
        let mut child = Command::new(&program)
            .args(["up", "--servers", "3", "--agents", "3", "--base-port"])
            .arg(base_port.to_string())
            .arg("--images")
            .arg(&images)
            .arg("--data-dir")
            .arg(data_dir(&folder))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}: build it first", program.display()))?;
        let stdout = child.stdout.take().context("it is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        for line in lines.by_ref() {
            let line = line?;
            eprintln!("{line}");
            if line.starts_with("ready:") {
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, folder });
            }
        }
        bail!("the cluster does not start: {}", child.wait()?)
    }

    /// What leads clients to it.
    pub fn kubeconfig(&self) -> PathBuf {
        data_dir(&self.folder).join("kubeconfig")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(kontiki) = program() {
            let down = ["down", "--data-dir"];
            let _ = Command::new(kontiki).args(down).arg(data_dir(&self.folder)).status();
        }
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Kills the leader of a cluster every so often; `up` starts it again.
#[derive(Debug)]
pub struct Killer {
    stop: mpsc::SyncSender<()>,
    thread: JoinHandle<u32>,
}

impl Killer {
    /// Begins, with a first kill after `every`.
    pub fn start(up: &Up, every: Duration) -> Self {
        let (stop, stopped) = mpsc::sync_channel(1);
        let data_dir = data_dir(&up.folder);
        let thread = std::thread::spawn(move || {
            let mut kills = 0;
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                match kill_leader(&data_dir) {
                    Ok(name) => {
                        kills += 1;
                        eprintln!("killed {name}, the leader");
                    }
                    Err(error) => eprintln!("nobody was killed: {error:#}"),
                }
            }
            kills
        });
        Self { stop, thread }
    }

    /// Ends, and says how often somebody was killed.
    pub fn stop(self) -> u32 {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn kill_leader(data_dir: &Path) -> Result<String> {
    let status = Command::new(program()?)
        .args(["status", "-o", "json", "--data-dir"])
        .arg(data_dir)
        .stdin(Stdio::null())
        .output()?;
    let status: Value = serde_json::from_slice(&status.stdout).context("the cluster's status")?;
    let servers = status["servers"].as_array().context("servers")?;
    let name = servers.iter().find(|server| server["role"] == "leader");
    let name = name.and_then(|server| server["name"].as_str()).context("nobody leads")?;
    let file = std::fs::read_to_string(data_dir.join("cluster.json"))?;
    let file: Value = serde_json::from_str(&file)?;
    let members = file["servers"].as_array().context("servers")?;
    let pid = members.iter().find(|member| member["name"] == name).map(|one| &one["pid"]);
    let pid = pid.and_then(Value::as_u64).context("the leader's process")?;
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    if !killed.success() {
        bail!("kill {name}, process {pid}: {killed}");
    }
    Ok(name.to_owned())
}
