//! What pods use, measured when one of them has to go.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::limits::OnDisk;
use super::rank::{Candidate, ContainerFigures, Figures};
use super::signal::{Resource, Signal};
use crate::api::{name, namespace, uid};
use crate::paths::Paths;
use crate::stats::{PodUsage, Sample};

/// Which parts of what a pod has on disks count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// All: there is one disk.
    All,
    /// What its containers wrote to their own layers, on the disk of images.
    Layers,
    /// Its logs and volumes, on the disk of pods.
    Files,
}

impl Parts {
    /// Those on the disk that a signal is about.
    pub(super) fn of(signal: Signal, is_split: bool) -> Self {
        match signal {
            _ if !is_split => Self::All,
            Signal::ImageFsAvailable | Signal::ImageFsInodesFree => Self::Layers,
            _ => Self::Files,
        }
    }
}

/// The pods with what they use. Disks are looked through only where they are what is short.
pub(super) fn candidates(
    pods: &[Arc<Pod>],
    sample: &Sample,
    paths: &Paths,
    resource: Resource,
    parts: Parts,
) -> Vec<Candidate> {
    let known: HashMap<&str, &PodUsage> =
        sample.pods.iter().map(|usage| (usage.uid.as_str(), usage)).collect();
    let is_disk = matches!(resource, Resource::EphemeralStorage | Resource::Inodes);
    let one = |pod: &Arc<Pod>| {
        let usage = known.get(uid(pod)).copied();
        let figures = usage.map(|usage| {
            let disk = if is_disk { Some((paths, parts)) } else { None };
            figures(pod, usage, disk)
        });
        Candidate { pod: pod.clone(), figures }
    };
    pods.iter().map(one).collect()
}

/// What pods have on the disk.
pub(super) fn on_disk(
    pods: Vec<Arc<Pod>>,
    sample: &Sample,
    paths: &Paths,
) -> Vec<(Arc<Pod>, OnDisk)> {
    let none = PodUsage::default();
    let one = |pod: Arc<Pod>| {
        let usage = sample.pods.iter().find(|usage| usage.uid == uid(&pod));
        // A pod whose containers are all between two starts has its volumes all the same.
        let figures = figures(&pod, usage.unwrap_or(&none), Some((paths, Parts::All)));
        let folder = paths.pod(uid(&pod)).join("volumes");
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        // Only what is bounded is worth being looked through once more.
        let bounded = volumes.filter(|volume| {
            volume.empty_dir.as_ref().is_some_and(|empty| empty.size_limit.is_some())
        });
        let volumes = bounded.map(|volume| {
            (volume.name.clone(), whole(Some(used(&folder.join(&volume.name)).bytes)))
        });
        let volumes = volumes.collect();
        (pod, OnDisk { figures, volumes })
    };
    pods.into_iter().map(one).collect()
}

fn figures(pod: &Pod, usage: &PodUsage, disk: Option<(&Paths, Parts)>) -> Figures {
    let mut figures = Figures {
        memory: whole(usage.usage.memory.working_set_bytes),
        processes: whole(usage.processes),
        ..Figures::default()
    };
    for container in &usage.containers {
        let memory = container.usage.memory.working_set_bytes;
        let mut shown = ContainerFigures {
            name: container.name.clone(),
            memory: memory.map(|bytes| whole(Some(bytes))),
            disk: None,
        };
        if let Some((paths, parts)) = disk {
            let logs = paths.pod_logs(namespace(pod), name(pod), uid(pod)).join(&container.name);
            let logs = used(&logs);
            let layer = Used {
                bytes: container.disk_bytes.unwrap_or(0),
                inodes: container.inodes.unwrap_or(0),
            };
            shown.disk = container.disk_bytes.map(|_| whole(Some(layer.bytes + logs.bytes)));
            if parts != Parts::Files {
                figures.add(layer);
            }
            if parts != Parts::Layers {
                figures.add(logs);
            }
        }
        figures.containers.push(shown);
    }
    if let Some((paths, Parts::All | Parts::Files)) = disk {
        figures.add(used(&paths.pod(uid(pod)).join("volumes")));
    }
    figures
}

impl Figures {
    fn add(&mut self, used: Used) {
        self.disk = self.disk.saturating_add(whole(Some(used.bytes)));
        self.inodes = self.inodes.saturating_add(whole(Some(used.inodes)));
    }
}

fn whole(number: Option<u64>) -> i64 {
    number.map_or(0, |number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// What a folder takes of its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    bytes: u64,
    inodes: u64,
}

/// Looks through a folder: other file systems mounted in it are left out, and so is what links lead
/// to.
fn used(folder: &Path) -> Used {
    /// `stat` counts in these, whatever the file system's own blocks are.
    const BLOCK: u64 = 512;
    let mut all = Used::default();
    let Ok(top) = folder.symlink_metadata() else { return all };
    let mut waiting = vec![(folder.to_path_buf(), top.clone())];
    while let Some((path, meta)) = waiting.pop() {
        if meta.dev() != top.dev() {
            continue;
        }
        all.bytes = all.bytes.saturating_add(meta.blocks().saturating_mul(BLOCK));
        all.inodes += 1;
        if !meta.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            // What has gone meanwhile takes nothing.
            waiting.extend(entry.path().symlink_metadata().ok().map(|meta| (entry.path(), meta)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stats::ContainerUsage;

    #[test]
    fn what_a_pod_takes_of_the_disk_is_its_layers_logs_and_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
        }))
        .unwrap();
        let (logs, volume) =
            (paths.pod_logs("ns", "p", "u").join("c"), paths.pod("u").join("volumes/v"));
        for folder in [&logs, &volume] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("file"), vec![1; 100_000]).unwrap();
        }
        std::os::unix::fs::symlink("/", volume.join("link")).unwrap();
        let container = ContainerUsage {
            name: "c".into(),
            disk_bytes: Some(1000),
            inodes: Some(7),
            ..ContainerUsage::default()
        };
        let usage =
            PodUsage { uid: "u".into(), containers: vec![container], ..PodUsage::default() };
        let of = |parts| figures(&pod, &usage, Some((&paths, parts)));
        let (all, layers, files) = (of(Parts::All), of(Parts::Layers), of(Parts::Files));
        assert_eq!((layers.disk, layers.inodes), (1000, 7));
        assert_eq!(all.disk, layers.disk + files.disk);
        assert!((200_000..1_000_000).contains(&files.disk), "{files:?}");
        // Two folders of the log and its file; two folders of the volume, its file and the link.
        assert_eq!(files.inodes, 2 + 4);
        assert!(all.containers[0].disk.unwrap() >= 101_000);
        assert_eq!(figures(&pod, &usage, None).disk, 0);
    }
}
