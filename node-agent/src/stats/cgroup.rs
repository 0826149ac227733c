//! Counters of cgroups, read from the kernel's files: one hierarchy with version 2, one per
//! controller with version 1.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Memory, Throttling, Usage};

/// Where the kernel shows its cgroups.
pub const FS: &str = "/sys/fs/cgroup";
/// Bounds from here on are none: version 1 writes the largest number of pages there is.
const NO_LIMIT: u64 = 1 << 62;
/// Version 2 counts processor time in microseconds.
const NS_PER_US: u64 = 1000;

/// The counters of a cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processor time so far, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Memory.
    pub memory: Memory,
}

impl Counters {
    /// As read at that time.
    pub fn at(self, at: Timestamp) -> Usage {
        Usage { at, cpu_ns: self.cpu_ns, nano_cores: None, memory: self.memory }
    }
}

/// The counters of a cgroup; none where it is not there.
pub fn read(fs: &Path, cgroup: &str) -> Option<Counters> {
    let folder = |controller: &str| folder(fs, controller, cgroup);
    if !folder("cpuacct").is_dir() {
        return None;
    }
    let counters = if is_unified(fs) {
        Counters {
            cpu_ns: stat(&folder("cpu"), "cpu.stat", "usage_usec").map(|us| us * NS_PER_US),
            memory: unified_memory(&folder("memory")),
        }
    } else {
        Counters {
            cpu_ns: number(&folder("cpuacct"), "cpuacct.usage"),
            memory: older_memory(&folder("memory")),
        }
    };
    Some(counters)
}

/// The counters of the whole machine.
pub fn read_root(fs: &Path) -> Option<Counters> {
    let mut counters = read(fs, "/")?;
    // The root of version 2 does not count its memory: what is not free is used.
    if counters.memory.usage_bytes.is_none() {
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let of = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
        };
        let used = of("MemTotal:").zip(of("MemFree:")).map(|(all, free)| all - free);
        let idle = stat(fs, "memory.stat", "inactive_file").unwrap_or(0);
        counters.memory.usage_bytes = used;
        counters.memory.working_set_bytes = used.map(|used| used.saturating_sub(idle));
    }
    counters.memory.limit_bytes = None;
    Some(counters)
}

/// How often a cgroup was held back; none where it is not there.
pub fn throttling(fs: &Path, cgroup: &str) -> Option<Throttling> {
    let folder = folder(fs, "cpu", cgroup);
    let of = |name: &str| stat(&folder, "cpu.stat", name);
    let throttled_ns =
        of("throttled_time").or_else(|| of("throttled_usec").map(|us| us * NS_PER_US));
    Some(Throttling {
        periods: of("nr_periods")?,
        throttled: of("nr_throttled")?,
        throttled_ns: throttled_ns?,
    })
}

fn is_unified(fs: &Path) -> bool {
    fs.join("cgroup.controllers").is_file()
}

fn folder(fs: &Path, controller: &str, cgroup: &str) -> PathBuf {
    let below = cgroup.trim_start_matches('/');
    if is_unified(fs) { fs.join(below) } else { fs.join(controller).join(below) }
}

fn unified_memory(folder: &Path) -> Memory {
    let of = |name: &str| stat(folder, "memory.stat", name);
    memory(number(folder, "memory.current"), of("inactive_file"), |memory| {
        memory.rss_bytes = of("anon");
        memory.page_faults = of("pgfault");
        memory.major_page_faults = of("pgmajfault");
        memory.limit_bytes = number(folder, "memory.max");
    })
}

fn older_memory(folder: &Path) -> Memory {
    let of = |name: &str| stat(folder, "memory.stat", name);
    memory(number(folder, "memory.usage_in_bytes"), of("total_inactive_file"), |memory| {
        memory.rss_bytes = of("total_rss");
        memory.page_faults = of("total_pgfault");
        memory.major_page_faults = of("total_pgmajfault");
        let limit = number(folder, "memory.limit_in_bytes");
        memory.limit_bytes = limit.filter(|limit| *limit < NO_LIMIT);
    })
}

/// What is used, less the files that can be dropped at once, is the working set.
fn memory(usage: Option<u64>, idle: Option<u64>, rest: impl FnOnce(&mut Memory)) -> Memory {
    let working_set = usage.map(|usage| usage.saturating_sub(idle.unwrap_or(0)));
    let mut memory =
        Memory { usage_bytes: usage, working_set_bytes: working_set, ..Memory::default() };
    rest(&mut memory);
    memory
}

/// A file that is one number; `max` is none.
fn number(folder: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

/// A line of a file of names and numbers.
fn stat(folder: &Path, file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(folder.join(file)).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(' ')?;
        (found == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn a_cgroup_of_version_1_is_read_from_its_controllers() {
        let fs = tempfile::tempdir().unwrap();
        let stat = "cache 9\ntotal_inactive_file 100\ntotal_rss 300\ntotal_pgfault 7\ntotal_pgmajfault 1\n";
        write(&fs.path().join("cpuacct/k/p"), &[("cpuacct.usage", "5000000000\n")]);
        write(
            &fs.path().join("memory/k/p"),
            &[
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.stat", stat),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
            ],
        );
        let throttled = "nr_periods 10\nnr_throttled 4\nthrottled_time 77\n";
        write(&fs.path().join("cpu/k/p"), &[("cpu.stat", throttled)]);
        let found = read(fs.path(), "/k/p").unwrap();
        assert_eq!(found.cpu_ns, Some(5_000_000_000));
        let memory = found.memory;
        assert_eq!((memory.usage_bytes, memory.working_set_bytes), (Some(1000), Some(900)));
        assert_eq!((memory.rss_bytes, memory.limit_bytes), (Some(300), None));
        let expected = Throttling { periods: 10, throttled: 4, throttled_ns: 77 };
        assert_eq!(throttling(fs.path(), "/k/p"), Some(expected));
        assert_eq!(read(fs.path(), "/k/gone"), None);
    }

    #[test]
    fn a_cgroup_of_version_2_is_read_from_its_one_folder() {
        let fs = tempfile::tempdir().unwrap();
        write(fs.path(), &[("cgroup.controllers", "cpu memory\n")]);
        let cpu = "usage_usec 42\nnr_periods 1\nnr_throttled 0\nthrottled_usec 3\n";
        write(
            &fs.path().join("k/p"),
            &[
                ("cpu.stat", cpu),
                ("memory.current", "4096\n"),
                ("memory.stat", "anon 11\ninactive_file 96\npgfault 5\npgmajfault 0\n"),
                ("memory.max", "8192\n"),
            ],
        );
        let found = read(fs.path(), "/k/p").unwrap();
        assert_eq!(found.cpu_ns, Some(42_000));
        assert_eq!(found.memory.working_set_bytes, Some(4000));
        assert_eq!((found.memory.rss_bytes, found.memory.limit_bytes), (Some(11), Some(8192)));
        assert_eq!(throttling(fs.path(), "/k/p").unwrap().throttled_ns, 3000);
    }

    #[test]
    fn this_machine_counts_its_processors_and_memory() {
        let found = read_root(Path::new(FS)).expect("the machine has cgroups");
        assert!(found.cpu_ns.is_some_and(|ns| ns > 0), "{found:?}");
        assert!(found.memory.working_set_bytes.is_some_and(|bytes| bytes > 0), "{found:?}");
    }
}
