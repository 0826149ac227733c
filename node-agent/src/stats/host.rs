//! What the machine tells beside its cgroups: disk, network, processes, the agent itself.

use std::path::Path;

use jiff::Timestamp;

use super::Interface;

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Bytes it has.
    pub capacity_bytes: u64,
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Files it can hold.
    pub inodes: u64,
    /// Files that can still be made.
    pub inodes_free: u64,
}

/// The agent's own process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Memory that no file stands behind or that is mapped, in bytes.
    pub resident_bytes: u64,
    /// Open files.
    pub open_files: usize,
}

/// The file system of a path.
pub fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Disk {
        capacity_bytes: bytes(stat.f_blocks),
        available_bytes: bytes(stat.f_bavail),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

/// The interfaces of the machine but its loop to itself; first the one that leads out.
pub fn interfaces() -> Vec<Interface> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = parse_interfaces(&read("/proc/net/dev"));
    let routes = read("/proc/net/route");
    let way_out = routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (name, target) = (words.next()?, words.next()?);
        (target == "00000000").then(|| name.to_owned())
    });
    all.sort_by_key(|interface| Some(&interface.name) != way_out.as_ref());
    all
}

fn parse_interfaces(text: &str) -> Vec<Interface> {
    let parse = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> =
            figures.split_whitespace().map_while(|word| word.parse().ok()).collect();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: *figures.first()?,
            rx_errors: *figures.get(2)?,
            tx_bytes: *figures.get(8)?,
            tx_errors: *figures.get(10)?,
        })
    };
    text.lines().filter_map(parse).filter(|interface| interface.name != "lo").collect()
}

/// When the machine started.
pub fn boot_time() -> Option<Timestamp> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(line.trim().parse().ok()?).ok()
}

/// What this process uses.
pub fn process() -> Process {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold anything; what follows it does not.
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0))
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0);
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    #[allow(clippy::cast_precision_loss, reason = "seconds to a hundredth")]
    let cpu_seconds = (at(11) + at(12)) as f64 / ticks as f64;
    Process {
        cpu_seconds,
        resident_bytes: at(21).saturating_mul(page),
        open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_interfaces_is_read() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets errs\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 0 0 0 0 0 20 4 5 0 0 0 0 0\n";
        let expected = Interface {
            name: "eth0".into(),
            rx_bytes: 10,
            rx_errors: 3,
            tx_bytes: 20,
            tx_errors: 5,
        };
        assert_eq!(parse_interfaces(text), [expected]);
    }

    #[test]
    fn this_process_and_its_disk_have_figures() {
        assert!(process().resident_bytes > 0 && process().open_files > 0);
        assert!(disk(Path::new("/")).is_some_and(|disk| disk.used_bytes > 0));
        assert!(boot_time().is_some_and(|time| time < Timestamp::now()));
    }
}
