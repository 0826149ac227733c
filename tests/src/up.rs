//! `kontiki up`, started and stopped as a user does it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::kubectl::Kubectl;
use crate::{ports, wait};

/// How long a cluster may take to be ready here: a debug build on a machine with other load.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to stop all it started.
const DOWN_WITHIN: Duration = Duration::from_secs(60);

/// The binary under test: `KONTIKI_BIN`, or the one of this build, brought up to date first.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(path) = std::env::var_os("KONTIKI_BIN") {
                return path.into();
            }
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--bin", "kontiki"])
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
                .status();
            assert!(built.is_ok_and(|status| status.success()), "the binary must build");
            let test = std::env::current_exe().expect("a test must know its own path");
            test.ancestors().nth(2).expect("tests lie in target/<profile>/deps").join("kontiki")
        })
        .clone()
}

/// One process of `cluster.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Member {
    /// `server-1`, `agent-1`.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// Where it keeps its files.
    pub data_dir: PathBuf,
    /// Everything else.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// What `kontiki up` writes for others to read.
#[derive(Debug, Clone, Deserialize)]
pub struct ClusterFile {
    /// The servers.
    pub servers: Vec<Member>,
    /// The agents.
    pub agents: Vec<Member>,
}

/// A cluster under `kontiki up`; stopped when dropped.
#[derive(Debug)]
pub struct Up {
    child: Child,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// The line that began with `ready:`.
    pub ready: String,
    /// From its start to that line.
    pub took: Duration,
    lines: Arc<Mutex<VecDeque<String>>>,
    /// Keeps a folder of its own until the cluster is gone.
    folder: Option<TempDir>,
}

impl Up {
    /// Starts in a fresh folder that goes with it.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder must be had");
        let mut up = Self::start_in(&folder.path().join("data"), arguments);
        up.folder = Some(folder);
        up
    }

    /// Starts in `data_dir`, which may hold a cluster already.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start_in(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(binary()), data_dir, arguments)
    }

    /// Starts in `data_dir` on a machine that lacks `program`: a mount namespace of its own in which
    /// nothing is left of it. Needs root.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start_without(program: &str, data_dir: &Path, arguments: &[&str]) -> Self {
        let hide =
            format!("mount --bind /dev/null \"$(command -v {program})\" && exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &hide]).arg(binary());
        Self::start_by(command, data_dir, arguments)
    }

    /// The same, with a package manager that has just this one `program` to install: what is hidden
    /// comes back. `folder` is for its script; what it was asked for stands in `asked` there.
    ///
    /// # Panics
    /// When it is not ready in time.
    pub fn start_installing(
        program: &str,
        folder: &Path,
        data_dir: &Path,
        arguments: &[&str],
    ) -> Self {
        let script = format!(
            "#!/bin/sh\necho \"$*\" >> {}\ncase \"$1\" in install) umount \"$(readlink -f \"$HIDDEN\")\";; esac\n",
            folder.join("asked").display()
        );
        let apt_get = folder.join("apt-get");
        std::fs::write(&apt_get, script).expect("the script must be written");
        std::fs::set_permissions(&apt_get, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("it must be made executable");
        let hide = format!(
            "HIDDEN=\"$(command -v {program})\"; export HIDDEN; \
             mount --bind /dev/null \"$HIDDEN\" && PATH=\"{}:$PATH\" exec \"$0\" \"$@\"",
            folder.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &hide]).arg(binary());
        Self::start_by(command, data_dir, &[arguments, &["--install-packages"]].concat())
    }

    fn start_by(mut command: Command, data_dir: &Path, arguments: &[&str]) -> Self {
        let port = ports::free().to_string();
        let started = Instant::now();
        let mut child = command
            .args(["up", "--data-dir"])
            .arg(data_dir)
            .args(["--base-port", &port])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("kontiki up must start");
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        collect_lines(&mut child, Arc::clone(&lines));
        let mut up = Self {
            child,
            data_dir: data_dir.to_path_buf(),
            ready: String::new(),
            took: Duration::ZERO,
            lines,
            folder: None,
        };
        up.ready = up.wait_for_line("ready:");
        up.took = started.elapsed();
        up
    }

    /// Waits until it prints a line that begins with `prefix`.
    fn wait_for_line(&mut self, prefix: &str) -> String {
        let lines = Arc::clone(&self.lines);
        let child = &mut self.child;
        wait::until(&format!("a line `{prefix}…`"), READY_WITHIN, || {
            let seen = lines.lock().expect("the reader must not panic");
            if let Some(line) = seen.iter().find(|line| line.starts_with(prefix)) {
                return Ok(line.clone());
            }
            if let Ok(Some(status)) = child.try_wait() {
                panic!("kontiki up ended with {status}: {seen:?}");
            }
            Err(format!("{seen:?}"))
        })
    }

    /// What it has printed so far.
    ///
    /// # Panics
    /// When the thread that reads has panicked.
    pub fn printed(&self) -> String {
        let lines = self.lines.lock().expect("the reader must not panic");
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Kills it, and it alone, as the machine's out-of-memory killer might.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.child.kill().expect("up must still run");
        self.child.wait().expect("up was started here");
    }

    /// kubectl with the kubeconfig that it wrote.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.data_dir.join("kubeconfig"))
    }

    /// `cluster.json`, read now.
    ///
    /// # Panics
    /// When it is not there or not as documented.
    pub fn cluster(&self) -> ClusterFile {
        let path = self.data_dir.join("cluster.json");
        let text = std::fs::read_to_string(path).expect("up must write cluster.json");
        serde_json::from_str(&text).expect("cluster.json must be as documented")
    }

    /// `kontiki VERB … --data-dir`, run to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn kontiki(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .output()
            .expect("kontiki must start")
    }

    /// `kontiki status -o json`.
    pub fn status(&self) -> Result<Value, String> {
        let output = self.kontiki(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// The server that leads, once there is one that a majority agrees on.
    pub fn leader(&self) -> Member {
        let name = wait::until("a leader", Duration::from_secs(20), || {
            let status = self.status()?;
            leader_name(&status).ok_or_else(|| status.to_string())
        });
        let servers = self.cluster().servers;
        servers.into_iter().find(|server| server.name == name).expect("the leader must be listed")
    }

    /// Ends it as Ctrl-C does and waits until all that it started is gone.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn interrupt(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).expect("up must still run");
        let child = &mut self.child;
        wait::until("kontiki up to end", DOWN_WITHIN, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let _ = self.kontiki(&["down"]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of the leader that the reachable servers agree on.
fn leader_name(status: &Value) -> Option<String> {
    let servers = status.get("servers")?.as_array()?;
    let named: Vec<&str> =
        servers.iter().filter_map(|server| server.get("leader")?.as_str()).collect();
    let first = *named.first()?;
    let agree = named.iter().filter(|name| **name == first).count();
    (agree * 2 > servers.len()).then(|| first.to_owned())
}

/// Sends a signal to a process of the cluster.
///
/// # Panics
/// When there is no such process.
pub fn signal(member: &Member, signal: Signal) {
    let pid = Pid::from_raw(member.pid).expect("cluster.json must have process ids");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", member.name));
}

fn collect_lines(child: &mut Child, lines: Arc<Mutex<VecDeque<String>>>) {
    let stdout = child.stdout.take().expect("standard output is piped");
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            eprintln!("up: {line}");
            lines.lock().expect("no reader panics while it holds this").push_back(line);
        }
    });
}
