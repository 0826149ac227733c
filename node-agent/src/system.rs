//! What the machine is: read from `/proc` and `/etc`, never guessed.

use k8s_openapi::api::core::v1::NodeSystemInfo;

use crate::runtime::RuntimeVersion;

/// The version of Kubernetes whose kubelet this agent stands for.
pub const KUBELET_VERSION: &str = "v1.35.0";

/// How large the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Processors.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the file system that holds the data directory.
    pub disk_bytes: u64,
}

/// Memory and disk left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    /// Bytes of memory that can be had without swapping.
    pub memory_bytes: i64,
    /// Bytes of the data directory's file system.
    pub disk_bytes: u64,
    /// Process ids in use and the most there can be.
    pub pids: (u64, u64),
}

/// The machine's size.
pub fn capacity(data_dir: &std::path::Path) -> Capacity {
    let meminfo = read("/proc/meminfo");
    let disk_bytes =
        rustix::fs::statvfs(data_dir).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    Capacity {
        cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: meminfo_bytes(&meminfo, "MemTotal:").unwrap_or(0),
        disk_bytes,
    }
}

/// What is left of it now.
pub fn free(data_dir: &std::path::Path) -> Free {
    let meminfo = read("/proc/meminfo");
    let disk_bytes = rustix::fs::statvfs(data_dir)
        .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    Free {
        memory_bytes: meminfo_bytes(&meminfo, "MemAvailable:").unwrap_or(i64::MAX),
        disk_bytes,
        pids: (threads_in(&read("/proc/loadavg")), pids_max()),
    }
}

/// The most processes and threads there can be; 0 if the kernel does not say.
fn pids_max() -> u64 {
    let bound = |path: &str| read(path).trim().parse::<u64>().ok();
    let bounds = [bound("/proc/sys/kernel/pid_max"), bound("/proc/sys/kernel/threads-max")];
    bounds.into_iter().flatten().min().unwrap_or(0)
}

/// What `nodeInfo` says.
pub fn info(runtime: &RuntimeVersion) -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
        container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
        kernel_version: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: read("/etc/machine-id").trim().to_owned(),
        operating_system: "linux".to_owned(),
        os_image: os_image(&read("/etc/os-release")),
        system_uuid: read("/sys/class/dmi/id/product_uuid").trim().to_owned(),
        ..Default::default()
    }
}

/// The architecture in Go's words, which Kubernetes uses.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A line such as `MemTotal:  24600000 kB`, in bytes.
fn meminfo_bytes(meminfo: &str, key: &str) -> Option<i64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// `/proc/loadavg`'s fourth word is `running/threads`.
fn threads_in(loadavg: &str) -> u64 {
    loadavg
        .split_whitespace()
        .nth(3)
        .and_then(|word| word.split_once('/'))
        .and_then(|(_, threads)| threads.parse().ok())
        .unwrap_or(0)
}

fn os_image(os_release: &str) -> String {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let meminfo = "MemTotal:       24576 kB\nMemAvailable:    1024 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal:"), Some(24576 * 1024));
        assert_eq!(meminfo_bytes(meminfo, "SwapTotal:"), None);
        assert_eq!(threads_in("0.1 0.2 0.3 2/345 6789\n"), 345);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_image(""), "Linux");
    }

    #[test]
    fn this_machine_has_processors_memory_and_disk() {
        let capacity = capacity(std::path::Path::new("/"));
        assert!(capacity.cpus > 0 && capacity.memory_bytes > 0 && capacity.disk_bytes > 0);
        assert!(free(std::path::Path::new("/")).memory_bytes <= capacity.memory_bytes);
    }
}
