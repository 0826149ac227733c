//! The agent's own containerd: started in a session of its own so that it outlives the agent,
//! adopted when found running, started again when it dies. Containers live on in their shims
//! through all of that (N1).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio_util::sync::CancellationToken;

use crate::agent::AgentError;
use crate::paths::Paths;
use crate::preflight::find_program;
use crate::runtime::Runtime;
use crate::runtime::cri::Cri;

pub mod settings;

use settings::Settings;

/// Longest wait for a started containerd to serve CRI; with many containers it loads them first.
const SERVING_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at whether it serves yet.
const SERVING_POLL: Duration = Duration::from_millis(25);
/// How many looks in a row must miss the process before it counts as dead.
const ABSENT_POLLS: u32 = 5;
/// Between two looks at whether it still lives.
const ALIVE_POLL: Duration = Duration::from_millis(250);
/// Longest wait for it to end after SIGTERM, before SIGKILL.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// First and longest wait before a containerd that keeps dying is started again.
const RESTART_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The log starts over when it is larger than this at a start of containerd.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A supervised containerd.
#[derive(Debug)]
pub struct Containerd {
    paths: Paths,
    program: PathBuf,
}

impl Containerd {
    /// Writes the configuration and sees to it that a containerd serves with it: one that runs
    /// already is kept, or restarted if its configuration changed.
    pub async fn start(paths: &Paths, settings: &Settings) -> Result<Self, AgentError> {
        let program =
            find_program("containerd").ok_or_else(|| AgentError::Missing("containerd".into()))?;
        let this = Self { paths: paths.clone(), program };
        let changed = this.write_files(settings)?;
        match this.running_pid() {
            Some(pid) if changed => {
                tracing::info!(%pid, "configuration of containerd changed, restarting it");
                this.stop().await;
                this.spawn()?;
            }
            Some(pid) => tracing::info!(%pid, "adopted the running containerd"),
            None => this.spawn()?,
        }
        this.serving().await?;
        Ok(this)
    }

    /// A handle to whatever containerd of `paths` runs or ran, for cleaning up.
    pub fn existing(paths: &Paths) -> Option<Self> {
        let program = find_program("containerd")?;
        paths
            .containerd()
            .join("config.toml")
            .is_file()
            .then(|| Self { paths: paths.clone(), program })
    }

    /// The socket on which it serves CRI.
    pub fn socket(&self) -> PathBuf {
        self.paths.containerd_socket()
    }

    /// Keeps it running until `shutdown`; leaves it running then (N1).
    pub async fn supervise(&self, shutdown: CancellationToken) {
        let mut wait = RESTART_WAITS.0;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(ALIVE_POLL) => {}
            }
            if self.running_pid().is_some() {
                wait = RESTART_WAITS.0;
                continue;
            }
            tracing::warn!("containerd died, starting it again; its containers live on");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RESTART_WAITS.1);
            let restarted = match self.spawn() {
                Ok(()) => self.serving().await,
                Err(error) => Err(error),
            };
            if let Err(error) = restarted {
                tracing::error!(error = &error as &dyn std::error::Error, "containerd is down");
            }
        }
    }

    /// Makes sure that it serves, starting it if need be.
    pub async fn ensure_serving(&self) -> Result<(), AgentError> {
        if self.running_pid().is_none() {
            self.spawn()?;
        }
        self.serving().await
    }

    /// Ends it: SIGTERM, then SIGKILL.
    pub async fn stop(&self) {
        for signal in [Signal::TERM, Signal::KILL] {
            let Some(pid) = self.running_pid() else { break };
            // It may end by itself between the look and the signal.
            let _ = rustix::process::kill_process(pid, signal);
            let deadline = tokio::time::Instant::now() + STOP_DEADLINE;
            while self.running_pid().is_some() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(SERVING_POLL).await;
            }
        }
        let _ = std::fs::remove_file(self.pid_file());
    }

    fn config_file(&self) -> PathBuf {
        self.paths.containerd().join("config.toml")
    }

    fn pid_file(&self) -> PathBuf {
        self.paths.containerd().join("pid")
    }

    /// Writes configuration and mirror; answers whether the configuration differs from before.
    fn write_files(&self, settings: &Settings) -> Result<bool, AgentError> {
        let base = self.paths.containerd();
        let socket = self.socket();
        let socket_dir = socket.parent().unwrap_or(&base).to_path_buf();
        for dir in [base.clone(), self.paths.cni_conf(), base.join("certs.d/_default"), socket_dir]
        {
            std::fs::create_dir_all(&dir)
                .map_err(|source| AgentError::io("create the folder", &dir, source))?;
        }
        let hosts = base.join("certs.d/_default/hosts.toml");
        match settings.hosts_toml() {
            Some(text) => write_if_changed(&hosts, &text)?,
            None => std::fs::remove_file(&hosts).is_ok(),
        };
        write_if_changed(&self.config_file(), &settings.config_toml(&base, &socket))
    }

    /// Starts containerd in a session of its own: signals to the agent's terminal or process
    /// group do not reach it. `setsid` replaces itself, so the child's pid is containerd's.
    fn spawn(&self) -> Result<(), AgentError> {
        let log_path = self.paths.containerd().join("containerd.log");
        let io = |act, source| AgentError::io(act, &log_path, source);
        if std::fs::metadata(&log_path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            std::fs::remove_file(&log_path).map_err(|source| io("remove the log", source))?;
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|source| io("open the log", source))?;
        let log_again = log.try_clone().map_err(|source| io("open the log", source))?;
        // A socket file left by a killed containerd only confuses whoever connects meanwhile.
        let _ = std::fs::remove_file(self.socket());
        let mut command = if let Some(setsid) = find_program("setsid") {
            let mut command = tokio::process::Command::new(setsid);
            command.arg(&self.program);
            command
        } else {
            let mut command = tokio::process::Command::new(&self.program);
            command.process_group(0);
            command
        };
        let mut child = command
            .arg("--config")
            .arg(self.config_file())
            .env("PATH", crate::preflight::search_path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_again)
            .kill_on_drop(false)
            .spawn()
            .map_err(|source| AgentError::io("start", &self.program, source))?;
        if let Some(pid) = child.id() {
            // Whole or not at all: by it the next agent finds a containerd that runs.
            let (file, partial) = (self.pid_file(), self.pid_file().with_extension("partial"));
            std::fs::write(&partial, pid.to_string())
                .and_then(|()| std::fs::rename(&partial, &file))
                .map_err(|source| AgentError::io("write", &file, source))?;
        }
        // Waits for the child so that it leaves no zombie; ends with it, or with the process.
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                tracing::info!(%status, "containerd ended");
            }
        });
        Ok(())
    }

    /// The pid in the pid file, if that process lives and is this containerd.
    fn running_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.pid_file()).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let config = self.config_file();
        let config = config.as_os_str().as_encoded_bytes();
        // A zombie's command line is empty: it counts as dead.
        command
            .split(|byte| *byte == 0)
            .any(|argument| argument == config)
            .then(|| Pid::from_raw(pid))
            .flatten()
    }

    /// Waits until it serves CRI.
    async fn serving(&self) -> Result<(), AgentError> {
        let cri = Cri::new(&self.socket());
        let deadline = tokio::time::Instant::now() + SERVING_DEADLINE;
        let mut absent = 0;
        loop {
            let error = match cri.status().await {
                Ok(status) if status.runtime_ready => return Ok(()),
                Ok(status) => status.message,
                Err(error) => error.message,
            };
            // While a process replaces itself (setsid becomes containerd) its command line reads
            // empty for a moment: it counts as dead only when it stays away.
            absent = if self.running_pid().is_none() { absent + 1 } else { 0 };
            let died = absent >= ABSENT_POLLS;
            if died || tokio::time::Instant::now() > deadline {
                let why = if died { "it ended at once".to_owned() } else { error };
                return Err(AgentError::Runtime(format!(
                    "containerd does not serve on {}: {why}; its log says: {}",
                    self.socket().display(),
                    self.last_log_line()
                )));
            }
            tokio::time::sleep(SERVING_POLL).await;
        }
    }

    fn last_log_line(&self) -> String {
        let log = std::fs::read(self.paths.containerd().join("containerd.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        text.lines().last().unwrap_or("nothing").to_owned()
    }
}

/// Writes a file unless it says so already; answers whether it wrote.
pub(crate) fn write_if_changed(path: &Path, text: &str) -> Result<bool, AgentError> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    // By way of a neighbour: nobody sees half a file.
    let draft = path.with_extension("new");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, path))
        .map_err(|source| AgentError::io("write", path, source))?;
    Ok(true)
}
