//! Kontiki's etcd API beside a real etcd: the same seeded sequence of calls goes to both, through
//! the same client, and every answer must be the same, revisions and refusals included.
//!
//! ```text
//!  seed ──▶ random ──▶ step ──┬──▶ etcd, one member     ──▶ answer ─┐
//!                             └──▶ Kontiki, one member  ──▶ answer ─┴─▶ equal?
//! ```
//!
//! Left out of the comparison is only what is no part of the store: numbers of clusters, members
//! and terms, the time that is left of a lease to a few seconds, and how events are gathered into
//! messages.

#![allow(clippy::unwrap_used, reason = "a harness of tests fails where it stands")]

use std::env;

use futures_util::future::join_all;
use kontiki_tests::{ports, requirements};

mod etcd {
    pub(super) mod answer;
    pub(super) mod compare;
    pub(super) mod gateway;
    pub(super) mod python;
    pub(super) mod random;
    pub(super) mod side;
    pub(super) mod watching;
}

use etcd::{compare, gateway, python};

/// Seeds that every run tries.
const SEEDS: [u64; 3] = [1, 2, 3];

/// So many run beside each other: etcd brings watches up to date only now and then, and what a
/// seed does is mostly to wait for that.
const TOGETHER: usize = 4;

/// `KONTIKI_ETCD_SEEDS=7` tries seed 7, `KONTIKI_ETCD_SEEDS=10..20` ten of them.
fn seeds() -> Vec<u64> {
    let Ok(asked) = env::var("KONTIKI_ETCD_SEEDS") else { return SEEDS.to_vec() };
    let number = |text: &str| text.parse().expect("KONTIKI_ETCD_SEEDS must be `7` or `10..20`");
    match asked.split_once("..") {
        Some((from, before)) => (number(from)..number(before)).collect(),
        None => vec![number(&asked)],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_one_that_etcd_gives() {
    if !requirements::met(&["etcd"], false) {
        return;
    }
    for seeds in seeds().chunks(TOGETHER) {
        let ports = (ports::free()..).step_by(2).map(|port| [port, port + 1]);
        join_all(seeds.iter().zip(ports).map(|(seed, ports)| compare::run(*seed, ports))).await;
    }
}

#[test]
fn the_python_clients_of_etcd_find_nothing_amiss() {
    python::run();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_json_gateway_answers_as_that_of_etcd() {
    if !requirements::met(&["etcd"], false) {
        return;
    }
    // Beyond those of the test above, which may run in the same process.
    let port = ports::free() + 20;
    gateway::run([port, port + 1]).await;
}
