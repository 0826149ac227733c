//! The ways to other nodes' pods, where those nodes are on the same link: a route for each range of
//! addresses, by way of the node that has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Stdio;

use super::IP_DEADLINE;
use crate::preflight::find_program;

/// The routes' protocol, by which the agent knows its own again.
const PROTOCOL: &str = "75";
/// Lets a node pass on what is not for itself.
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// What `ip` says of a route that is not there.
const GONE: &str = "No such process";

/// Ranges of pods' addresses, and the node by way of which each is reached.
pub type Ways = BTreeMap<String, IpAddr>;

/// What must be done so that `wanted` is what there is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    put: Ways,
    remove: BTreeSet<String>,
}

fn changes(known: &Ways, wanted: &Ways) -> Changes {
    let put = wanted.iter().filter(|(range, by)| known.get(*range) != Some(by));
    let put = put.map(|(range, by)| (range.clone(), *by)).collect();
    let remove = known.keys().filter(|range| !wanted.contains_key(*range)).cloned().collect();
    Changes { put, remove }
}

/// The routes of one node.
#[derive(Debug)]
pub struct Routes {
    own: IpAddr,
    /// What is in force; none before the first look.
    known: Option<Ways>,
}

impl Routes {
    /// Routes of the node with this address.
    pub fn new(own: IpAddr) -> Self {
        Self { own, known: None }
    }

    /// Brings the routes up to `ways`; answers whether they are. Ranges of nodes that share this
    /// one's address are on this very machine and need none.
    #[must_use]
    pub async fn sync(&mut self, ways: &Ways) -> bool {
        let wanted: Ways = ways
            .iter()
            .filter(|(_, by)| **by != self.own && by.is_ipv4() == self.own.is_ipv4())
            .map(|(range, by)| (range.clone(), *by))
            .collect();
        let mut known = match self.known.take() {
            Some(known) => known,
            None if wanted.is_empty() => return true,
            None => {
                let _ = std::fs::write(FORWARD, "1");
                listed(&ip(&["route", "show", "proto", PROTOCOL]).await.unwrap_or_default())
            }
        };
        let Changes { put, remove } = changes(&known, &wanted);
        for (range, by) in put {
            let via = by.to_string();
            match ip(&["route", "replace", &range, "via", &via, "proto", PROTOCOL]).await {
                Ok(_) => drop(known.insert(range, by)),
                // Nodes on another link are reached by somebody else's routes.
                Err(why) => tracing::warn!(range, %by, why, "no route to a node's pods"),
            }
        }
        for range in remove {
            match ip(&["route", "delete", &range, "proto", PROTOCOL]).await {
                Err(why) if !why.contains(GONE) => {
                    tracing::warn!(range, why, "a route to pods that are gone stays");
                }
                _ => drop(known.remove(&range)),
            }
        }
        let is_done = known == wanted;
        self.known = Some(known);
        is_done
    }
}

/// Removes the routes of this network namespace's agent.
pub async fn remove() {
    let Ok(all) = ip(&["route", "show", "proto", PROTOCOL]).await else { return };
    for range in listed(&all).into_keys() {
        let _ = ip(&["route", "delete", &range, "proto", PROTOCOL]).await;
    }
}

/// The routes that `ip route` lists.
fn listed(text: &str) -> Ways {
    let way = |line: &str| {
        let mut words = line.split_whitespace();
        let range = words.next()?;
        let by = words.skip_while(|word| *word != "via").nth(1)?.parse().ok()?;
        Some((range.to_owned(), by))
    };
    text.lines().filter_map(way).collect()
}

/// Runs `ip`; answers what it printed, or why it failed.
pub(super) async fn ip(args: &[&str]) -> Result<String, String> {
    let program = find_program("ip").ok_or("the program ip is missing")?;
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(IP_DEADLINE, command.output())
        .await
        .map_err(|_| "ip did not end".to_owned())?
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(all: &[(&str, &str)]) -> Ways {
        all.iter().map(|(range, by)| ((*range).to_owned(), by.parse().unwrap())).collect()
    }

    #[test]
    fn routes_are_told_from_what_ip_prints() {
        let text = "10.42.1.0/24 via 198.18.7.12 dev up0 proto 75 \n\
                    10.42.2.0/24 via 198.18.7.13 dev up0 proto 75 \n\
                    unreachable 10.42.3.0/24 proto 75\n";
        let expected = ways(&[("10.42.1.0/24", "198.18.7.12"), ("10.42.2.0/24", "198.18.7.13")]);
        assert_eq!(listed(text), expected);
    }

    #[test]
    fn only_what_differs_is_changed() {
        let known = ways(&[("10.42.1.0/24", "198.18.7.12"), ("10.42.2.0/24", "198.18.7.13")]);
        let wanted = ways(&[("10.42.1.0/24", "198.18.7.12"), ("10.42.3.0/24", "198.18.7.13")]);
        let expected = Changes {
            put: ways(&[("10.42.3.0/24", "198.18.7.13")]),
            remove: ["10.42.2.0/24".to_owned()].into(),
        };
        assert_eq!(changes(&known, &wanted), expected);
        assert_eq!(changes(&wanted, &wanted), Changes::default());
    }
}
