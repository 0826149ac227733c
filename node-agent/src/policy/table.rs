//! The rules of policies as a table. Pure.
//!
//! ```text
//!  forward: established? accept ─► sender one of ours? its chain `out-UID`: return or drop
//!                               ─► receiver one of ours? its chain `in-UID`: return or drop
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Block, Policed, Ports, Rule};
use crate::proxy::ports::ipv4_range;
use crate::proxy::ruleset::{Chain, Kind, Ruleset, Set};

/// Chains of receivers and of senders, by their address.
const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";

/// The rules for these pods.
pub fn ruleset(pods: &[Policed]) -> Ruleset {
    let mut all = Ruleset::default();
    let map = || Set::new(Kind::Map, "type ipv4_addr : verdict;");
    all.sets.insert(INGRESS.to_owned(), map());
    all.sets.insert(EGRESS.to_owned(), map());
    let forward = Chain {
        hook: Some("type filter hook forward priority 0".to_owned()),
        rules: vec![
            "ct state established,related accept".to_owned(),
            format!("ip saddr vmap @{EGRESS}"),
            format!("ip daddr vmap @{INGRESS}"),
        ],
    };
    all.chains.insert("forward".to_owned(), forward);
    for pod in pods {
        let own: Vec<Ipv4Addr> = pod.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        for (set, prefix, other, rules) in
            [(INGRESS, "in", "saddr", &pod.ingress), (EGRESS, "out", "daddr", &pod.egress)]
        {
            let Some(rules) = rules else { continue };
            let name = format!("{prefix}-{}", pod.uid);
            all.chains.insert(name.clone(), Chain::of(judge(other, &own, rules)));
            if let Some(set) = all.sets.get_mut(set) {
                set.elements.extend(own.iter().map(|ip| (ip.to_string(), format!("jump {name}"))));
            }
        }
    }
    all
}

/// A pod reaches itself; then whatever some rule lets through; nothing else.
fn judge(other: &str, own: &[Ipv4Addr], rules: &[Rule]) -> Vec<String> {
    let itself = own.iter().map(|ip| format!("ip {other} {ip} return"));
    let let_through = rules.iter().flat_map(|rule| lines(other, rule));
    itself.chain(let_through).chain(["drop".to_owned()]).collect()
}

/// One line for each way of being a peer and each protocol.
fn lines(other: &str, rule: &Rule) -> Vec<String> {
    let peers = rule.peers.as_ref().map_or_else(|| vec![String::new()], |all| peers(other, all));
    let ports = rule.ports.as_ref().map_or_else(|| vec![String::new()], |all| ports(all));
    let line = |peer: &String, port: &String| format!("{peer}{port}return");
    peers.iter().flat_map(|peer| ports.iter().map(move |port| line(peer, port))).collect()
}

/// Single addresses together, each range with what is left out of it.
fn peers(other: &str, blocks: &[Block]) -> Vec<String> {
    let mut singles = BTreeSet::new();
    let mut lines = Vec::new();
    for block in blocks {
        if let Ok(ip) = block.cidr.parse::<Ipv4Addr>() {
            singles.insert(ip);
        } else if let Some(range) = ipv4_range(&block.cidr) {
            let except = block.except.iter().filter_map(|range| ipv4_range(range));
            let except: Vec<_> = except.map(|range| format!("ip {other} != {range} ")).collect();
            let except = except.concat();
            // A range of everything is no condition to nft.
            let range =
                if range.ends_with("/0") { String::new() } else { format!("ip {other} {range} ") };
            lines.push(format!("{range}{except}"));
        }
    }
    if !singles.is_empty() {
        let singles: Vec<String> = singles.iter().map(ToString::to_string).collect();
        lines.push(format!("ip {other} {{ {} }} ", singles.join(", ")));
    }
    lines
}

/// The ports of each protocol, ranges that touch joined: nft refuses what overlaps.
fn ports(all: &[Ports]) -> Vec<String> {
    let mut by_protocol: BTreeMap<String, Vec<(u16, u16)>> = BTreeMap::new();
    for ports in all {
        let protocol = ports.protocol.to_ascii_lowercase();
        by_protocol.entry(protocol).or_default().push((ports.from, ports.to));
    }
    let line = |(protocol, mut ranges): (String, Vec<(u16, u16)>)| {
        ranges.sort_unstable();
        let ranges = joined(&ranges);
        if ranges == [(0, u16::MAX)] {
            return format!("meta l4proto {protocol} ");
        }
        let shown = |(from, to): &(u16, u16)| {
            if from == to { from.to_string() } else { format!("{from}-{to}") }
        };
        let shown: Vec<String> = ranges.iter().map(shown).collect();
        format!("{protocol} dport {{ {} }} ", shown.join(", "))
    };
    by_protocol.into_iter().map(line).collect()
}

fn joined(sorted: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut all: Vec<(u16, u16)> = Vec::new();
    for (from, to) in sorted.iter().filter(|(from, to)| from <= to) {
        match all.last_mut() {
            Some((_, last)) if *from <= last.saturating_add(1) => *last = (*last).max(*to),
            _ => all.push((*from, *to)),
        }
    }
    all
}

#[cfg(test)]
mod tests;
