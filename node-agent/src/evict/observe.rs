//! Reads from the kernel how much of everything is left.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::signal::{Observation, Observations, Signal};
use crate::stats::cgroup::Tree;
use crate::stats::host;
use crate::system;

/// What is left: of the disk of `data`, of that of `images`, of memory by the cgroups at `fs`, and of
/// process ids.
pub(super) fn observe(data: &Path, images: &Path, fs: &Path) -> Observations {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let of = |available, capacity| Observation {
        available: whole(available),
        capacity: whole(capacity),
    };
    let mut seen = Observations::new();
    let memory = Tree::new(fs).read_root().and_then(|root| root.memory.working_set_bytes);
    if let Some(used) = memory {
        let capacity = u64::try_from(system::capacity(data).memory_bytes).unwrap_or(0);
        let available = capacity.saturating_sub(used);
        // As upstream, where what is used and what is left are all there is.
        seen.insert(Signal::MemoryAvailable, of(available, available.saturating_add(used)));
    }
    for (path, bytes, inodes) in [
        (data, Signal::NodeFsAvailable, Signal::NodeFsInodesFree),
        (images, Signal::ImageFsAvailable, Signal::ImageFsInodesFree),
    ] {
        let Some(disk) = host::disk(path) else { continue };
        seen.insert(bytes, of(disk.available_bytes, disk.capacity_bytes));
        // Some file systems make inodes as they need them, and count none.
        if disk.inodes > 0 {
            seen.insert(inodes, of(disk.inodes_free, disk.inodes));
        }
    }
    let (running, most) = system::free(data).pids;
    if most > 0 {
        seen.insert(Signal::PidAvailable, of(most.saturating_sub(running), most));
    }
    seen
}

/// The device that a path is on.
pub(super) fn device(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|meta| meta.dev())
}

#[cfg(test)]
mod tests {
    use super::super::signal::SIGNALS;
    use super::*;
    use crate::stats::cgroup::FS;

    #[test]
    fn this_machine_has_some_of_everything() {
        let root = Path::new("/");
        let seen = observe(root, root, Path::new(FS));
        for signal in SIGNALS {
            let Some(found) = seen.get(&signal) else {
                assert!(signal.name().ends_with("inodesFree"), "{signal:?}");
                continue;
            };
            assert!(found.available > 0 && found.available <= found.capacity, "{signal:?}");
        }
    }
}
