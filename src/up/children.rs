//! The processes of `up`: started in sessions of their own, watched, started again when they die.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::report;
use crate::process::ProcessId;

/// How long after its death a process is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// The longest such wait, for one that dies again and again.
const RESTART_AFTER_MAX: Duration = Duration::from_secs(30);
/// A process that lived this long begins with the first wait again.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long a process may take to end before it is killed.
pub const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How many lines of a log are shown when its process dies at start.
const LOG_TAIL_LINES: usize = 5;

/// What starts a process, asked anew each time: the command line may depend on what is on disk.
pub type CommandLine = Arc<dyn Fn() -> Vec<OsString> + Send + Sync>;
/// Whether a process that has ended is left alone for now.
pub type Resting = Arc<dyn Fn() -> bool + Send + Sync>;
/// Told of each process that takes the place of another.
pub type OnStart = Arc<dyn Fn(&Started) + Send + Sync>;

/// One start.
#[derive(Debug, Clone)]
pub struct Started {
    /// Whose.
    pub name: String,
    /// Which process.
    pub process: ProcessId,
    /// The whole command line.
    pub command: Vec<String>,
}

/// What to run.
#[derive(Clone)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: CommandLine,
    /// Where its output goes.
    pub log: PathBuf,
    /// Whether it is started again when it dies.
    pub restart: bool,
    /// Until when it is not, all the same.
    pub resting: Resting,
}

/// A child under supervision.
pub struct Supervised {
    /// Its name.
    pub name: String,
    log: PathBuf,
    /// The exit status once it has ended and is not started again, or died at its first start.
    died: watch::Receiver<Option<ExitStatus>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts `spec` and watches it. Fails when the process cannot be started at all.
    pub fn start(spec: Spec, on_start: OnStart) -> anyhow::Result<Self> {
        let child = spawn(&spec, &on_start)?;
        let (died_sender, died) = watch::channel(None);
        let stop = CancellationToken::new();
        let (name, log) = (spec.name.clone(), spec.log.clone());
        let task = tokio::spawn(supervise(spec, child, on_start, died_sender, stop.clone()));
        Ok(Self { name, log, died, stop, task })
    }

    /// Waits for its death; cancel-safe. Pending for ever while it runs.
    pub async fn died(&self) -> anyhow::Error {
        let mut died = self.died.clone();
        let status = match died.wait_for(Option::is_some).await {
            Ok(status) => *status,
            Err(_) => None,
        };
        let how = status.map_or_else(|| "ended".to_owned(), describe);
        anyhow::anyhow!(
            "{} {how}; the end of {}:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log)
        )
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) {
        self.stop.cancel();
        // Its own patience twice over: SIGTERM, then SIGKILL.
        crate::shutdown::join(&self.name, self.task, STOP_PATIENCE * 2 + RESTART_AFTER).await;
    }
}

fn spawn(spec: &Spec, on_start: &OnStart) -> anyhow::Result<Child> {
    let open = || -> std::io::Result<(File, File)> {
        if let Some(folder) = spec.log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
        Ok((log.try_clone()?, log))
    };
    let (stdout, stderr) = open().with_context(|| format!("open {}", spec.log.display()))?;
    let args = (spec.args)();
    let child = Command::new(&spec.program)
        .args(&args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // Ctrl-C at the terminal is for `up` alone: it stops the others in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {} for {}", spec.program.display(), spec.name))?;
    let pid = child.id().context("a child that was not waited for must have an id")?;
    if let Some(process) = ProcessId::of(pid) {
        let words = std::iter::once(spec.program.as_os_str()).chain(args.iter().map(AsRef::as_ref));
        let command = words.map(|word| word.to_string_lossy().into_owned()).collect();
        on_start(&Started { name: spec.name.clone(), process, command });
    }
    Ok(child)
}

async fn supervise(
    spec: Spec,
    mut child: Child,
    on_start: OnStart,
    died: watch::Sender<Option<ExitStatus>>,
    stop: CancellationToken,
) {
    let mut wait = RESTART_AFTER;
    loop {
        let started = Instant::now();
        // `Child::wait` is cancel-safe: the process stays ours.
        let status = tokio::select! {
            () = stop.cancelled() => return end(&spec.name, child).await,
            status = child.wait() => status,
        };
        let Ok(status) = status else { return };
        if started.elapsed() >= STABLE_AFTER || was_killed(status) {
            wait = RESTART_AFTER;
        }
        if !spec.restart {
            report::event(&format!("{} {}", spec.name, describe(status)));
            died.send_replace(Some(status));
            return;
        }
        if (spec.resting)() {
            report::event(&format!("{} {}, and is left alone", spec.name, describe(status)));
            if stop.run_until_cancelled(rested(&spec.resting)).await.is_none() {
                return;
            }
            wait = RESTART_AFTER;
        }
        report::event(&format!("{} {}: starting it again", spec.name, describe(status)));
        if started.elapsed() < STABLE_AFTER && !status.success() && status.signal().is_none() {
            // It gave up on its own, soon after its start: whoever waits for it shall know.
            died.send_replace(Some(status));
        }
        child = loop {
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            wait = (wait * 2).min(RESTART_AFTER_MAX);
            match spawn(&spec, &on_start) {
                Ok(child) => break child,
                Err(error) => report::event(&format!("{error:#}")),
            }
        };
    }
}

async fn rested(resting: &Resting) {
    while resting() {
        tokio::time::sleep(RESTART_AFTER).await;
    }
}

/// Whether somebody ended a process that would have lived on: that says nothing against it. Killed
/// again and again, a server would otherwise be missing for longer each time, up to half a minute.
fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

async fn end(name: &str, mut child: Child) {
    let process = child.id().and_then(ProcessId::of);
    let Some(process) = process else { return };
    // Reaped here, or it would stay a zombie of ours and look alive to nobody but `ps`.
    let (stopped, _) = tokio::join!(process.stop(STOP_PATIENCE), child.wait());
    match stopped {
        Ok(false) => {}
        Ok(true) => report::event(&format!("{name} had to be killed")),
        Err(error) => report::event(&format!("stop {name}: {error}")),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn spec(dir: &Path, script: &'static str, restart: bool) -> Spec {
        Spec {
            name: "child".into(),
            program: "/bin/sh".into(),
            args: Arc::new(move || vec!["-c".into(), script.into()]),
            log: dir.join("logs/child.log"),
            restart,
            resting: Arc::new(|| false),
        }
    }

    fn recorder() -> (OnStart, watch::Receiver<Vec<ProcessId>>) {
        let (sender, receiver) = watch::channel(Vec::new());
        let sender = Mutex::new(sender);
        let on_start: OnStart = Arc::new(move |started: &Started| {
            sender.lock().send_modify(|seen| seen.push(started.process));
        });
        (on_start, receiver)
    }

    #[tokio::test]
    async fn a_killed_child_is_started_again_and_a_stopped_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (on_start, mut starts) = recorder();
        let child = Supervised::start(spec(dir.path(), "exec sleep 60", true), on_start).unwrap();
        let first = starts.borrow()[0];
        first.signal(Signal::KILL).unwrap();
        let again = starts.wait_for(|starts| starts.len() == 2);
        let second =
            tokio::time::timeout(Duration::from_secs(10), again).await.unwrap().unwrap()[1];
        assert_ne!(first, second);
        child.stop().await;
        assert!(!second.is_alive());
        assert_eq!(starts.borrow().len(), 2);
    }

    /// A server that was removed from its cluster refuses to run for good.
    #[tokio::test]
    async fn a_child_that_rests_is_started_again_only_when_it_does_not_rest_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (on_start, mut starts) = recorder();
        let marker = dir.path().join("removed");
        std::fs::write(&marker, "").unwrap();
        let resting = {
            let marker = marker.clone();
            Arc::new(move || marker.exists())
        };
        let spec = Spec { resting, ..spec(dir.path(), "exec sleep 60", true) };
        let child = Supervised::start(spec, on_start).unwrap();
        let first = starts.borrow()[0];
        first.signal(Signal::KILL).unwrap();
        tokio::time::sleep(RESTART_AFTER * 2).await;
        assert_eq!(starts.borrow().len(), 1);
        std::fs::remove_file(&marker).unwrap();
        let again = starts.wait_for(|starts| starts.len() == 2);
        tokio::time::timeout(Duration::from_secs(10), again).await.unwrap().unwrap();
        child.stop().await;
    }

    #[test]
    fn only_who_dies_by_itself_is_waited_for_longer_each_time() {
        assert!(was_killed(ExitStatus::from_raw(Signal::KILL.as_raw())));
        assert!(!was_killed(ExitStatus::from_raw(Signal::ABORT.as_raw())));
        assert!(!was_killed(ExitStatus::from_raw(3 << 8)));
    }

    #[tokio::test]
    async fn a_child_that_gives_up_is_reported_with_the_end_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let (on_start, _starts) = recorder();
        let script = "echo the port is taken >&2; exit 3";
        let child = Supervised::start(spec(dir.path(), script, false), on_start).unwrap();
        let error = tokio::time::timeout(Duration::from_secs(10), child.died()).await.unwrap();
        let error = error.to_string();
        assert!(error.contains("ended with code 3"), "{error}");
        assert!(error.contains("the port is taken"), "{error}");
        child.stop().await;
    }
}
