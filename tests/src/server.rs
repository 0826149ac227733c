//! One `kontiki server`, started by hand.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{ports, up, wait};

/// How long a server may take to serve, or to refuse to.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A server that serves; stopped when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// What it keeps.
    pub data_dir: PathBuf,
    /// Its ports: API, Raft, etcd.
    pub ports: [u16; 3],
}

/// The command of a server on `data_dir` and three ports of loopback.
pub fn command(data_dir: &Path, ports: [u16; 3], arguments: &[&str]) -> Command {
    let mut command = Command::new(up::binary());
    command
        .args(["server", "--advertise", "127.0.0.1", "--data-dir"])
        .arg(data_dir)
        .args(["--api-listen", &format!("127.0.0.1:{}", ports[0])])
        .args(["--raft-listen", &format!("127.0.0.1:{}", ports[1])])
        .args(["--etcd-listen", &format!("127.0.0.1:{}", ports[2])])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

impl Server {
    /// Starts a cluster of one in `data_dir`, or starts it again.
    ///
    /// # Panics
    /// When it does not serve in time.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &["--init"])
    }

    /// [`Server::start`] with other arguments.
    ///
    /// # Panics
    /// When it does not serve in time.
    pub fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        let base = ports::free();
        let ports = [base, base + 1, base + 2];
        let mut child = command(data_dir, ports, arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("kontiki server must start");
        wait::until("the server to take a write", ANSWER_WITHIN, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("kontiki server ended with {status}");
            }
            put(ports[2], "probe", "of the harness")
        });
        Self { child, data_dir: data_dir.to_path_buf(), ports }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Puts a key through its etcd API.
    pub fn put(&self, key: &str, value: &str) -> Result<(), String> {
        put(self.ports[2], key, value)
    }

    /// Reads a key through its etcd API.
    pub fn get(&self, key: &str) -> Result<String, String> {
        etcdctl(self.ports[2], &["get", "--print-value-only", key])
    }

    /// Runs etcdctl against its etcd API: what it prints, or its complaint.
    pub fn etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        etcdctl(self.ports[2], arguments)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Asks it to end and waits.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn stop(mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let child = &mut self.child;
        wait::until("the server to end", ANSWER_WITHIN, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server that must refuse to run, and gives its exit status and what it said.
///
/// # Panics
/// When it is still running after a while.
pub fn refused(mut command: Command) -> (Option<i32>, String) {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kontiki must start");
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until("the server to refuse", ANSWER_WITHIN, || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }));
    let _ = child.kill();
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it was started");
    let said = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(ended.is_ok(), "it runs although it should refuse; it said: {said}");
    (status.code(), said)
}

fn put(port: u16, key: &str, value: &str) -> Result<(), String> {
    etcdctl(port, &["put", key, value]).map(drop)
}

fn etcdctl(port: u16, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--command-timeout=3s", "--endpoints", &format!("127.0.0.1:{port}")])
        .args(arguments)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
