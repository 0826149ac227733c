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

/// The kernel's cgroups. Each of their files is read once for all that is in it.
#[derive(Clone, Debug)]
pub struct Tree {
    fs: PathBuf,
    /// One hierarchy for all controllers: version 2.
    is_unified: bool,
}

/// Reads a file; none where it is not there.
type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

impl Tree {
    /// The cgroups that are shown in this folder.
    pub fn new(fs: &Path) -> Self {
        Self { fs: fs.to_path_buf(), is_unified: fs.join("cgroup.controllers").is_file() }
    }

    /// The counters of a cgroup; none where it is not there.
    pub fn read(&self, cgroup: &str) -> Option<Counters> {
        self.read_by(cgroup, &text)
    }

    fn read_by(&self, cgroup: &str, text: Read<'_>) -> Option<Counters> {
        if !self.folder("cpuacct", cgroup).is_dir() {
            return None;
        }
        let memory = self.folder("memory", cgroup);
        let stat = Lines(text(&memory.join("memory.stat")).unwrap_or_default());
        let number = |folder: &Path, file: &str| number(text, folder, file);
        let counters = if self.is_unified {
            let cpu = Lines(text(&self.folder("cpu", cgroup).join("cpu.stat")).unwrap_or_default());
            Counters {
                cpu_ns: cpu.of("usage_usec").map(|us| us * NS_PER_US),
                memory: Memory {
                    rss_bytes: stat.of("anon"),
                    page_faults: stat.of("pgfault"),
                    major_page_faults: stat.of("pgmajfault"),
                    limit_bytes: number(&memory, "memory.max"),
                    ..used(number(&memory, "memory.current"), stat.of("inactive_file"))
                },
            }
        } else {
            let limit = number(&memory, "memory.limit_in_bytes");
            let usage = number(&memory, "memory.usage_in_bytes");
            Counters {
                cpu_ns: number(&self.folder("cpuacct", cgroup), "cpuacct.usage"),
                memory: Memory {
                    rss_bytes: stat.of("total_rss"),
                    page_faults: stat.of("total_pgfault"),
                    major_page_faults: stat.of("total_pgmajfault"),
                    limit_bytes: limit.filter(|limit| *limit < NO_LIMIT),
                    ..used(usage, stat.of("total_inactive_file"))
                },
            }
        };
        Some(counters)
    }

    /// The counters of the whole machine.
    pub fn read_root(&self) -> Option<Counters> {
        let mut counters = self.read("/")?;
        // The root of version 2 does not count its memory: what is not free is used.
        if counters.memory.usage_bytes.is_none() {
            let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            let of = |key: &str| {
                let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
            };
            let usage = of("MemTotal:").zip(of("MemFree:")).map(|(all, free)| all - free);
            let stat = Lines(text(&self.fs.join("memory.stat")).unwrap_or_default());
            let Memory { usage_bytes, working_set_bytes, .. } =
                used(usage, stat.of("inactive_file"));
            counters.memory.usage_bytes = usage_bytes;
            counters.memory.working_set_bytes = working_set_bytes;
        }
        counters.memory.limit_bytes = None;
        Some(counters)
    }

    /// How often a cgroup was held back; none where it is not there.
    pub fn throttling(&self, cgroup: &str) -> Option<Throttling> {
        let cpu = Lines(text(&self.folder("cpu", cgroup).join("cpu.stat"))?);
        let throttled_ns =
            cpu.of("throttled_time").or_else(|| cpu.of("throttled_usec").map(|us| us * NS_PER_US));
        Some(Throttling {
            periods: cpu.of("nr_periods")?,
            throttled: cpu.of("nr_throttled")?,
            throttled_ns: throttled_ns?,
        })
    }

    /// Processes and threads of a cgroup; none where that is not counted.
    pub fn processes(&self, cgroup: &str) -> Option<u64> {
        number(&text, &self.folder("pids", cgroup), "pids.current")
    }

    fn folder(&self, controller: &str, cgroup: &str) -> PathBuf {
        let below = cgroup.trim_start_matches('/');
        if self.is_unified { self.fs.join(below) } else { self.fs.join(controller).join(below) }
    }
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// What is used, less the files that can be dropped at once, is the working set.
fn used(usage: Option<u64>, idle: Option<u64>) -> Memory {
    let working_set_bytes = usage.map(|usage| usage.saturating_sub(idle.unwrap_or(0)));
    Memory { usage_bytes: usage, working_set_bytes, ..Memory::default() }
}

/// A file that is one number; `max` is none.
fn number(text: Read<'_>, folder: &Path, file: &str) -> Option<u64> {
    text(&folder.join(file))?.trim().parse().ok()
}

/// A file of names and numbers.
struct Lines(String);

impl Lines {
    fn of(&self, name: &str) -> Option<u64> {
        self.0.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            (found == name).then(|| value.trim().parse().ok())?
        })
    }
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
        let found = Tree::new(fs.path()).read("/k/p").unwrap();
        assert_eq!(found.cpu_ns, Some(5_000_000_000));
        let memory = found.memory;
        assert_eq!((memory.usage_bytes, memory.working_set_bytes), (Some(1000), Some(900)));
        assert_eq!((memory.rss_bytes, memory.limit_bytes), (Some(300), None));
        let expected = Throttling { periods: 10, throttled: 4, throttled_ns: 77 };
        assert_eq!(Tree::new(fs.path()).throttling("/k/p"), Some(expected));
        assert_eq!(Tree::new(fs.path()).read("/k/gone"), None);
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
        let found = Tree::new(fs.path()).read("/k/p").unwrap();
        assert_eq!(found.cpu_ns, Some(42_000));
        assert_eq!(found.memory.working_set_bytes, Some(4000));
        assert_eq!((found.memory.rss_bytes, found.memory.limit_bytes), (Some(11), Some(8192)));
        assert_eq!(Tree::new(fs.path()).throttling("/k/p").unwrap().throttled_ns, 3000);
    }

    #[test]
    fn this_machine_counts_its_processors_and_memory() {
        let found = Tree::new(Path::new(FS)).read_root().expect("the machine has cgroups");
        assert!(found.cpu_ns.is_some_and(|ns| ns > 0), "{found:?}");
        assert!(found.memory.working_set_bytes.is_some_and(|bytes| bytes > 0), "{found:?}");
    }

    #[test]
    fn each_file_of_a_cgroup_is_read_once() {
        use std::cell::RefCell;

        for unified in [true, false] {
            let fs = tempfile::tempdir().unwrap();
            if unified {
                write(fs.path(), &[("cgroup.controllers", "")]);
            }
            let tree = Tree::new(fs.path());
            for controller in ["cpu", "cpuacct", "memory"] {
                std::fs::create_dir_all(tree.folder(controller, "/k/p")).unwrap();
            }
            let read = RefCell::new(Vec::new());
            tree.read_by("/k/p", &|path: &Path| {
                read.borrow_mut().push(path.to_path_buf());
                Some("1".to_owned())
            });
            let read = read.into_inner();
            let different: std::collections::BTreeSet<_> = read.iter().collect();
            assert_eq!((read.len(), different.len()), (4, 4), "{read:?}");
        }
    }
}
