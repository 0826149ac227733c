//! Files that every container finds in its `/etc`, and the one for its last words.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::hostname;
use crate::api::uid;
use crate::paths::Paths;
use crate::runtime::Dns;

/// Where a container writes its last words unless it says otherwise.
const TERMINATION_PATH: &str = "/dev/termination-log";

/// The pod's `/etc/hosts` on the node.
pub fn etc_hosts(paths: &Paths, pod: &Pod) -> PathBuf {
    paths.pod(uid(pod)).join("etc-hosts")
}

/// Path of the termination message inside the container.
pub fn termination_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or(TERMINATION_PATH)
}

/// Path of the termination message on the node.
pub fn termination_message(
    paths: &Paths,
    pod: &Pod,
    container: &Container,
    attempt: u32,
) -> PathBuf {
    paths.pod(uid(pod)).join("containers").join(&container.name).join(format!("{attempt}.message"))
}

/// Writes the pod's `/etc/hosts` and an empty termination message.
pub fn write(paths: &Paths, pod: &Pod, ips: &[IpAddr], message: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let parent = message.parent().unwrap_or(message);
    std::fs::create_dir_all(parent)?;
    std::fs::write(message, "")?;
    // Any user of the container may write its last words.
    std::fs::set_permissions(message, std::fs::Permissions::from_mode(0o666))?;
    std::fs::write(etc_hosts(paths, pod), hosts_text(pod, ips))
}

/// The text of the pod's `/etc/hosts`.
pub fn hosts_text(pod: &Pod, ips: &[IpAddr]) -> String {
    let spec = pod.spec.as_ref();
    let mut text = if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
        std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        let mut text =
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
        for ip in ips {
            text.push_str(&format!("{ip}\t{}\n", hostname(pod)));
        }
        text
    };
    for alias in spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

/// Reads a resolver file.
pub fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last one counts.
            Some("search" | "domain") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    dns
}
