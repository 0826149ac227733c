//! What the machine lacks for running pods, said in a way that a person can act on.

use std::path::{Path, PathBuf};

/// Something that must be there before pods can run, and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, such as `containerd`.
    pub what: String,
    /// What it is needed for.
    pub why: String,
    /// The Debian package that brings it; none when no package can help.
    pub debian_package: Option<String>,
}

/// A program that a node needs: name, purpose, package.
const PROGRAMS: [(&str, &str, &str); 7] = [
    ("containerd", "pulls images and runs containers", "containerd"),
    ("ctr", "imports image archives into containerd", "containerd"),
    ("runc", "starts the containers of containerd", "runc"),
    ("nft", "programs services and network rules", "nftables"),
    ("conntrack", "forgets clients of UDP endpoints that are gone", "conntrack"),
    ("iptables", "the CNI plugin portmap calls it for host ports", "iptables"),
    ("ip", "leads packets between nodes, and removes the node's bridge in the end", "iproute2"),
];

/// The CNI plugins that the node's network is made of.
pub(crate) const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "portmap", "loopback"];

/// Folders searched beside `PATH`: a plain user's or a service's often lacks them.
const SYSTEM_DIRS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// All that this machine lacks for a supervised containerd; empty when pods can run.
pub fn preflight() -> Vec<Missing> {
    preflight_with(&crate::config::default_cni_bin_dirs(), rustix::process::geteuid().is_root())
}

fn preflight_with(cni_bin_dirs: &[PathBuf], is_root: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    if !is_root {
        missing.push(Missing {
            what: "root".to_owned(),
            why: "containers need mounts, network namespaces and cgroups".to_owned(),
            debian_package: None,
        });
    }
    for (program, why, package) in PROGRAMS {
        if find_program(program).is_none() {
            missing.push(Missing {
                what: program.to_owned(),
                why: why.to_owned(),
                debian_package: Some(package.to_owned()),
            });
        }
    }
    if find_cni_bin_dir(cni_bin_dirs).is_none() {
        let dirs: Vec<_> = cni_bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        missing.push(Missing {
            what: format!("CNI plugins {} in {}", CNI_PLUGINS.join(", "), dirs.join(" or ")),
            why: "give each pod an address of its own".to_owned(),
            debian_package: Some("containernetworking-plugins".to_owned()),
        });
    }
    if !Path::new("/sys/fs/cgroup").is_dir() {
        missing.push(Missing {
            what: "cgroups at /sys/fs/cgroup".to_owned(),
            why: "bound what containers use".to_owned(),
            debian_package: None,
        });
    }
    missing
}

/// The full path of a program, if the machine has it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// `PATH` for programs we start: they call others, which may stand in the system's folders.
pub fn search_path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    std::env::join_paths(dirs).unwrap_or(path)
}

/// The first folder that has every CNI plugin the node's network needs.
pub(crate) fn find_cni_bin_dir(dirs: &[PathBuf]) -> Option<PathBuf> {
    dirs.iter().find(|dir| CNI_PLUGINS.iter().all(|plugin| dir.join(plugin).is_file())).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_plugin_folder_is_reported_with_its_package() {
        let empty = tempfile::tempdir().unwrap();
        let missing = preflight_with(&[empty.path().to_path_buf()], true);
        let cni = missing.iter().find(|m| m.what.starts_with("CNI plugins")).unwrap();
        assert_eq!(cni.debian_package.as_deref(), Some("containernetworking-plugins"));
        assert!(cni.what.contains(&empty.path().display().to_string()));
    }

    #[test]
    fn a_plain_user_is_told_that_root_is_needed() {
        assert!(preflight_with(&[], false).iter().any(|m| m.what == "root"));
        assert!(!preflight_with(&[], true).iter().any(|m| m.what == "root"));
    }

    #[test]
    fn the_first_complete_plugin_folder_wins() {
        let partial = tempfile::tempdir().unwrap();
        std::fs::write(partial.path().join("bridge"), "").unwrap();
        let full = tempfile::tempdir().unwrap();
        for plugin in CNI_PLUGINS {
            std::fs::write(full.path().join(plugin), "").unwrap();
        }
        let dirs = [partial.path().to_path_buf(), full.path().to_path_buf()];
        assert_eq!(find_cni_bin_dir(&dirs).as_deref(), Some(full.path()));
    }
}
