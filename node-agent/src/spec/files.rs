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
pub fn write(
    paths: &Paths,
    pod: &Pod,
    ips: &[IpAddr],
    domain: Option<&str>,
    message: &Path,
) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let parent = message.parent().unwrap_or(message);
    std::fs::create_dir_all(parent)?;
    std::fs::write(message, "")?;
    // Any user of the container may write its last words.
    std::fs::set_permissions(message, std::fs::Permissions::from_mode(0o666))?;
    std::fs::write(etc_hosts(paths, pod), hosts_text(pod, ips, domain))
}

/// What every pod's `/etc/hosts` begins with.
const HOSTS: &str = "\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";
/// The same for a pod in the node's network, whose file follows.
const HOSTS_OF_NODE: &str = "# Kubernetes-managed hosts file (host network).\n";
/// What goes before the names that the pod itself wants.
const ALIASES: &str = "\n# Entries added by HostAliases.\n";

/// The text of the pod's `/etc/hosts`; `domain` is what its host name is below.
pub fn hosts_text(pod: &Pod, ips: &[IpAddr], domain: Option<&str>) -> String {
    let spec = pod.spec.as_ref();
    let mut text = if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
        HOSTS_OF_NODE.to_owned() + &std::fs::read_to_string("/etc/hosts").unwrap_or_default()
    } else {
        let (mut text, name) = (HOSTS.to_owned(), hostname(pod));
        for ip in ips {
            match domain {
                Some(domain) => text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n")),
                None => text.push_str(&format!("{ip}\t{name}\n")),
            }
        }
        text
    };
    let mut aliases = spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()).peekable();
    if aliases.peek().is_some() {
        text.push_str(ALIASES);
    }
    for alias in aliases {
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
