//! Keeps logs from filling the disk: one that has grown is moved aside, the runtime goes on in a
//! new file, and only so many of the old ones stay. Logs of instances that nobody asks for any more
//! go with them.
//!
//! ```text
//! logs/NAMESPACE_POD_UID/CONTAINER/3.log                   the current one
//!                                  3.log.20261124-080000   moved aside, the newest first
//!                                  2.log                   of the instance before, for --previous
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::paths::Paths;
use crate::pods::PodIndex;
use crate::runtime::{Container, ContainerState, Runtime};

/// Between two looks at the logs.
const PERIOD: Duration = Duration::from_secs(10);
/// A log longer than this is moved aside.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// Files of one instance's log, the current one included.
const FILES_MAX: usize = 5;
/// Instances whose logs are kept: the current one, and the one before.
const INSTANCES_KEPT: usize = 2;

/// Rotates until `shutdown`.
pub async fn run(
    paths: Paths,
    index: PodIndex,
    runtime: Arc<dyn Runtime>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        for pod in index.all() {
            let (namespace, name) = (crate::api::namespace(&pod), crate::api::name(&pod));
            let uid = crate::api::uid(&pod);
            let dir = paths.pod_logs(namespace, name, uid);
            let look = rotate_pod(&dir, uid, runtime.as_ref(), LOG_BYTES_MAX);
            let looked = tokio::select! {
                looked = look => looked,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = looked {
                tracing::warn!(%error, dir = %dir.display(), "logs are not rotated");
            }
        }
    }
}

/// Looks at the logs of one pod.
async fn rotate_pod(
    dir: &Path,
    uid: &str,
    runtime: &dyn Runtime,
    bytes_max: u64,
) -> std::io::Result<()> {
    for container in files(dir)? {
        for stale in stale_instances(&files(&container)?) {
            std::fs::remove_file(stale)?;
        }
        for (log, due) in due(&files(&container)?, bytes_max) {
            // Asked for only when there is something to do: most looks find nothing.
            let Ok(running) = runtime.containers(Some(uid)).await else { continue };
            let Some(writer) = writer(&running, &log) else { continue };
            match due {
                Due::Rotation => rotate(&log, &writer.id, runtime).await?,
                Due::Reopening => {
                    if let Err(error) = runtime.reopen_log(&writer.id).await {
                        tracing::warn!(%error, log = %log.display(), "the runtime opens no new log");
                    }
                }
            }
        }
    }
    Ok(())
}

/// What is to be done for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It has grown.
    Rotation,
    /// It was moved aside, and the agent was killed before the runtime was told: that still writes
    /// to the file that was moved.
    Reopening,
}

/// Logs of a container for which something is to be done.
fn due(files: &[PathBuf], bytes_max: u64) -> Vec<(PathBuf, Due)> {
    let is_current = |path: &&PathBuf| instance(path).is_some_and(|(_, is_current)| is_current);
    let grown = files
        .iter()
        .filter(is_current)
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > bytes_max));
    let mut due: Vec<_> = grown.map(|path| (path.clone(), Due::Rotation)).collect();
    let Some(newest) = files.iter().max_by_key(|path| instance(path).map(|(number, _)| number))
    else {
        return due;
    };
    if let Some((number, _)) = instance(newest) {
        let log = newest.with_file_name(format!("{number}.log"));
        if !files.contains(&log) {
            due.push((log, Due::Reopening));
        }
    }
    due
}

/// The running container that writes a log.
fn writer<'a>(containers: &'a [Container], log: &Path) -> Option<&'a Container> {
    containers.iter().find(|container| {
        container.state == ContainerState::Running
            && log.ends_with(crate::spec::log_path(&container.name, container.attempt))
    })
}

/// Moves a log aside. Where the runtime does not follow, it is moved back.
async fn rotate(log: &Path, id: &str, runtime: &dyn Runtime) -> std::io::Result<()> {
    let folder = log.parent().unwrap_or(log);
    for surplus in surplus(log, &files(folder)?) {
        std::fs::remove_file(surplus)?;
    }
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let mut aside = log.as_os_str().to_owned();
    aside.push(format!(".{stamp}"));
    let aside = PathBuf::from(aside);
    if aside.exists() {
        // A second rotation within one second waits for the next look.
        return Ok(());
    }
    std::fs::rename(log, &aside)?;
    if let Err(error) = runtime.reopen_log(id).await {
        tracing::warn!(%error, log = %log.display(), "the runtime keeps to its log");
        if !log.exists() {
            std::fs::rename(&aside, log)?;
        }
    }
    Ok(())
}

/// What lies in a folder; nothing if there is none.
fn files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// The instance a file belongs to, and whether it is its current log; none for other files.
fn instance(path: &Path) -> Option<(u32, bool)> {
    let name = path.file_name()?.to_str()?;
    let (number, rest) = name.split_once(".log")?;
    Some((number.parse().ok()?, rest.is_empty()))
}

/// Files of instances before those that are kept. Pure.
fn stale_instances(files: &[PathBuf]) -> Vec<PathBuf> {
    let numbers: BTreeSet<u32> = files.iter().filter_map(|f| instance(f)).map(|(n, _)| n).collect();
    let Some(oldest_kept) = numbers.iter().rev().nth(INSTANCES_KEPT - 1) else {
        return Vec::new();
    };
    let is_stale =
        |file: &&PathBuf| instance(file).is_some_and(|(number, _)| number < *oldest_kept);
    files.iter().filter(is_stale).cloned().collect()
}

/// Files moved aside earlier that make place for the next one. Pure.
fn surplus(log: &Path, files: &[PathBuf]) -> Vec<PathBuf> {
    let of = instance(log).map(|(number, _)| number);
    let mut aside: Vec<PathBuf> = files
        .iter()
        .filter(|file| instance(file).is_some_and(|(n, current)| Some(n) == of && !current))
        .cloned()
        .collect();
    // Names end with their time: the newest is the last.
    aside.sort();
    // The current one and the one about to be moved aside count too.
    aside.truncate(aside.len().saturating_sub(FILES_MAX - 2));
    aside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::FakeRuntime;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn logs_of_the_last_two_instances_are_kept() {
        let all = paths(&["0.log", "7.log", "7.log.20261124-080000", "9.log", "10.log", "notes"]);
        assert_eq!(stale_instances(&all), paths(&["0.log", "7.log", "7.log.20261124-080000"]));
        assert!(stale_instances(&paths(&["3.log"])).is_empty());
        assert!(stale_instances(&[]).is_empty());
    }

    #[test]
    fn the_oldest_files_make_place() {
        let log = PathBuf::from("1.log");
        let aside = |times: &[u32]| -> Vec<PathBuf> {
            times.iter().map(|time| PathBuf::from(format!("1.log.2026112{time}-080000"))).collect()
        };
        let mut there = aside(&[4, 1, 3, 2]);
        there.extend(paths(&["1.log", "0.log.20261120-080000"]));
        assert_eq!(surplus(&log, &there), aside(&[1]));
        assert!(surplus(&log, &aside(&[1, 2, 3])).is_empty());
    }

    fn pod_with_log(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("c/0.log");
        std::fs::create_dir_all(log.parent().unwrap()).unwrap();
        std::fs::write(&log, content).unwrap();
        (dir, log)
    }

    async fn running() -> FakeRuntime {
        let runtime = FakeRuntime::with_images(&["i:1"]);
        let spec = crate::runtime::SandboxSpec { uid: "u".into(), ..Default::default() };
        let sandbox = runtime.run_sandbox(&spec).await.unwrap();
        let container = crate::runtime::ContainerSpec {
            name: "c".into(),
            image: "i:1".into(),
            ..Default::default()
        };
        let id = runtime.create_container(&sandbox, &spec, &container).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        runtime
    }

    #[tokio::test]
    async fn a_grown_log_is_moved_aside_and_the_runtime_told() {
        let (runtime, (dir, log)) = (running().await, pod_with_log("much"));
        rotate_pod(dir.path(), "u", &runtime, 4).await.unwrap();
        assert!(log.exists(), "it has not grown yet");
        rotate_pod(dir.path(), "u", &runtime, 3).await.unwrap();
        assert!(!log.exists());
        assert_eq!(files(log.parent().unwrap()).unwrap().len(), 1);
        assert_eq!(runtime.calls().last().map(String::as_str), Some("reopen c"));
    }

    #[tokio::test]
    async fn a_log_comes_back_if_the_runtime_does_not_follow() {
        let (runtime, (dir, log)) = (running().await, pod_with_log("much"));
        let id = runtime.running("c").unwrap().id;
        runtime.fail_every(Some(1));
        rotate(&log, &id, &runtime).await.unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "much");
        drop(dir);
    }

    #[tokio::test]
    async fn a_kill_between_moving_a_log_and_telling_the_runtime_is_made_good() {
        let (runtime, (dir, log)) = (running().await, pod_with_log("much"));
        let aside = log.with_file_name("0.log.20261124-080000");
        std::fs::rename(&log, &aside).unwrap();
        rotate_pod(dir.path(), "u", &runtime, 3).await.unwrap();
        assert_eq!(runtime.calls().last().map(String::as_str), Some("reopen c"));
        assert_eq!(std::fs::read_to_string(&aside).unwrap(), "much");
    }

    #[tokio::test]
    async fn the_log_of_an_ended_container_stays_as_it_is() {
        let (runtime, (dir, log)) = (running().await, pod_with_log("much"));
        runtime.exit("c", 0);
        rotate_pod(dir.path(), "u", &runtime, 3).await.unwrap();
        assert!(log.exists());
    }
}
