//! Tables of rules, properties of ports, and the kernel's own opinion.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::proxy::ruleset::{diff, render, replace};

fn pod(value: &Value) -> Policed {
    serde_json::from_value(value.clone()).unwrap()
}

/// The rules of one chain.
fn chain(pods: &[Policed], name: &str) -> Vec<String> {
    ruleset(pods).chains.get(name).map(|chain| chain.rules.clone()).unwrap_or_default()
}

#[test]
fn only_directions_that_a_policy_speaks_of_are_judged() {
    let deny = pod(&json!({ "uid": "u", "ips": ["10.42.0.5"], "ingress": [] }));
    let all = ruleset(std::slice::from_ref(&deny));
    assert_eq!(all.sets["ingress"].elements["10.42.0.5"], "jump in-u");
    assert!(all.sets["egress"].elements.is_empty());
    assert_eq!(chain(&[deny], "in-u"), ["ip saddr 10.42.0.5 return", "drop"]);
}

#[test]
fn peers_and_ports_become_conditions_of_one_line() {
    let range = json!({ "cidr": "172.16.0.9/12", "except": ["172.17.0.0/16", "172.18.0.0/16"] });
    let web = json!({ "protocol": "TCP", "from": 80, "to": 80 });
    let dns = json!({ "protocol": "UDP", "from": 53, "to": 53 });
    let whole = json!({ "protocol": "SCTP", "from": 0, "to": 65535 });
    for (rule, expected) in [
        (json!({}), vec!["return"]),
        (json!({ "ports": [web] }), vec!["tcp dport { 80 } return"]),
        (json!({ "ports": [whole] }), vec!["meta l4proto sctp return"]),
        (
            json!({ "peers": [{ "cidr": "10.0.0.2" }, { "cidr": "10.0.0.1" }] }),
            vec!["ip daddr { 10.0.0.1, 10.0.0.2 } return"],
        ),
        (
            json!({ "peers": [range, { "cidr": "10.0.0.1" }], "ports": [web, dns] }),
            vec![
                "ip daddr 172.16.0.0/12 ip daddr != 172.17.0.0/16 ip daddr != 172.18.0.0/16 \
                 tcp dport { 80 } return",
                "ip daddr 172.16.0.0/12 ip daddr != 172.17.0.0/16 ip daddr != 172.18.0.0/16 \
                 udp dport { 53 } return",
                "ip daddr { 10.0.0.1 } tcp dport { 80 } return",
                "ip daddr { 10.0.0.1 } udp dport { 53 } return",
            ],
        ),
        (
            json!({ "peers": [{ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"] }] }),
            vec!["ip daddr != 10.0.0.0/8 return"],
        ),
        (json!({ "peers": [{ "cidr": "fd00::/8" }] }), vec![]),
    ] {
        let policed = pod(&json!({ "uid": "u", "ips": [], "egress": [rule] }));
        let mut rules = chain(&[policed], "out-u");
        assert_eq!(rules.pop().as_deref(), Some("drop"));
        assert_eq!(rules, expected, "{rule}");
    }
}

#[test]
fn a_change_of_one_pod_leaves_the_others_alone() {
    let with = |uid: &str, ip: &str, rules: Value| {
        pod(&json!({ "uid": uid, "ips": [ip], "ingress": rules }))
    };
    let (a, b) = (with("a", "10.0.0.1", json!([])), with("b", "10.0.0.2", json!([])));
    let old = ruleset(&[a.clone(), b]);
    let new = ruleset(&[a, with("b", "10.0.0.2", json!([{}]))]);
    let script = render("ip t", &diff(&old, &new));
    assert_eq!(
        script,
        "flush chain ip t in-b\nadd rule ip t in-b ip saddr 10.0.0.2 return\n\
         add rule ip t in-b return\nadd rule ip t in-b drop\n"
    );
}

proptest! {
    #[test]
    fn joined_ports_hold_the_same_ports_and_never_touch(
        ranges in prop::collection::vec((0u16..40, 0u16..40), 0..8),
    ) {
        let mut ranges: Vec<_> = ranges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
        ranges.sort_unstable();
        let joined = joined(&ranges);
        let holds = |all: &[(u16, u16)], port| all.iter().any(|(from, to)| (*from..=*to).contains(&port));
        for port in 0..50 {
            prop_assert_eq!(holds(&ranges, port), holds(&joined, port));
        }
        prop_assert!(joined.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
    }
}

/// In a network namespace of its own, which goes with it.
#[test]
fn the_kernel_takes_the_policies_and_every_difference() {
    let nft = crate::preflight::find_program("nft");
    let Some(nft) = nft.filter(|_| rustix::process::geteuid().is_root()) else {
        eprintln!("left out: this test needs nft and root");
        return;
    };
    let rich = |uid: &str, ip: &str| {
        pod(&json!({
            "uid": uid, "ips": [ip],
            "ingress": [{
                "peers": [{ "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] }, { "cidr": "192.0.2.7" }],
                "ports": [
                    { "protocol": "TCP", "from": 80, "to": 90 },
                    { "protocol": "TCP", "from": 85, "to": 99 },
                    { "protocol": "SCTP", "from": 0, "to": 65535 },
                ],
            }, {}],
            "egress": [{ "peers": [{ "cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "10.1.0.0/16"] }] }],
        }))
    };
    let table = "ip kontiki-test-policy";
    let (a, b) = (
        rich("6f1c2a10-9d1e-4b7e-8a51-0c9a54c2b001", "10.42.0.5"),
        rich("0c9a54c2-9d1e-4b7e-8a51-6f1c2a10b002", "10.42.0.6"),
    );
    let denied = Policed { ingress: Some(Vec::new()), egress: None, ..a.clone() };
    let states =
        [vec![], vec![a.clone()], vec![a.clone(), b.clone()], vec![denied, b], vec![a], vec![]];
    let states: Vec<_> = states.iter().map(|pods| ruleset(pods)).collect();
    let mut scripts =
        vec![replace(table, &states[0]), replace(table, &states[2]), replace(table, &states[0])];
    scripts.extend(states.windows(2).map(|pair| render(table, &diff(&pair[0], &pair[1]))));
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::from("set -e\n");
    for (number, script) in scripts.iter().enumerate() {
        let path = dir.path().join(format!("{number}.nft"));
        std::fs::write(&path, script).unwrap();
        all.push_str(&format!("{} -f {}\n", nft.display(), path.display()));
    }
    let mut command = std::process::Command::new("unshare");
    let output = command.args(["--net", "sh", "-c", &all]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
