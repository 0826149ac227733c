//! The pods' network on this node: one bridge, addresses from the node's range, the node's
//! address towards the world.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::agent::AgentError;
use crate::config::ServiceProxy;
use crate::containerd::write_if_changed;
use crate::paths::Paths;
use crate::preflight::find_program;

pub mod answers;
pub mod peers;
pub mod routes;
pub mod services;

/// Longest wait for `ip`.
const IP_DEADLINE: Duration = Duration::from_secs(10);

/// The CNI configuration for pods of `pod_cidr` on `bridge`.
///
/// The loopback interface needs no entry: the runtime adds it. Pods have the node's address towards
/// the world by the proxy's table; the plugin (`masquerade`) is asked for that only where there is
/// none: it would hide pods from the pods of other nodes.
pub fn conflist(bridge: &str, pod_cidr: &str, ipam_dir: &Path, masquerade: bool) -> String {
    let route = if pod_cidr.contains(':') { "::/0" } else { "0.0.0.0/0" };
    let list = json!({
        "cniVersion": "0.4.0",
        "name": bridge,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": true,
                "ipMasq": masquerade,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": ipam_dir,
                    "ranges": [[{ "subnet": pod_cidr }]],
                    "routes": [{ "dst": route }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    });
    format!("{list:#}\n")
}

/// Lays the configuration down where containerd notices it; answers whether it is new.
pub fn configure(paths: &Paths, pod_cidr: &str, proxy: ServiceProxy) -> Result<bool, AgentError> {
    let masquerade = proxy == ServiceProxy::None && find_program("iptables").is_some();
    let text = conflist(&paths.bridge(), pod_cidr, &paths.ipam(), masquerade);
    write_if_changed(&paths.cni_conf().join("10-bridge.conflist"), &text)
}

/// True if this is a range of addresses in the form `ADDRESS/BITS`.
pub fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let bits_max = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        bits.parse::<u8>().is_ok_and(|bits| bits <= bits_max)
    })
}

/// Removes a link of the agent's, if it is there.
pub async fn remove_link(link: &str) {
    if !Path::new("/sys/class/net").join(link).exists() {
        return;
    }
    if let Err(why) = routes::ip(&["link", "delete", link]).await {
        tracing::warn!(link, why, "a link of the agent's stays");
    }
}

/// The node's own resolver file, or the one behind a stub on loopback that pods cannot reach.
pub fn host_resolv_conf() -> PathBuf {
    let usual = PathBuf::from("/etc/resolv.conf");
    let behind_stub = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let is_stub = std::fs::read_to_string(&usual).is_ok_and(|text| text.contains("127.0.0.53"));
    if is_stub && behind_stub.is_file() { behind_stub } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conflist_names_bridge_range_and_ports() {
        let text = conflist("kt-0123456789", "10.42.1.0/24", Path::new("/d/ipam"), true);
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        let bridge = &list["plugins"][0];
        assert_eq!(bridge["bridge"], "kt-0123456789");
        assert_eq!(bridge["ipMasq"], true);
        assert_eq!(bridge["ipam"]["ranges"][0][0]["subnet"], "10.42.1.0/24");
        assert_eq!(bridge["ipam"]["dataDir"], "/d/ipam");
        assert_eq!(list["plugins"][1]["type"], "portmap");
        assert_eq!(list["plugins"][1]["capabilities"]["portMappings"], true);
    }

    #[test]
    fn only_ranges_of_addresses_are_ranges() {
        for good in ["10.0.0.0/24", "10.0.0.0/0", "fd00::/64"] {
            assert!(is_cidr(good), "{good}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/24", "fd00::/129", "x/8"] {
            assert!(!is_cidr(bad), "{bad}");
        }
    }
}
