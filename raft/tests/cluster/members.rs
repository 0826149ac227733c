//! Who belongs to a cluster, and who does not.

use std::sync::Arc;
use std::time::Duration;

use kontiki_raft::config::{Blocking, LogPolicy, NodeConfig, PEER_DNS_NAME, PeerTls, Timers};
use kontiki_raft::error::NodeError;
use kontiki_raft::node::Node;
use kontiki_raft::status::Role;
use kontiki_raft::types::Member;
use kontiki_storage::engine::Engine;
use kontiki_storage::engine::memory::MemoryEngine;

use super::harness::{Cluster, eventually, get, put};

#[tokio::test]
async fn a_newcomer_learns_then_votes_and_a_removed_member_is_gone() {
    let mut cluster = Cluster::of_three().await;
    put(&cluster.kv(1), "a", "1").await.unwrap();
    cluster.start(4, Arc::new(MemoryEngine::new())).await;
    let follower = cluster.follower().await;
    cluster.node(follower).add_learner(4, cluster.member(4)).await.unwrap();
    assert_eq!(get(&cluster.kv(4), "a").await.as_deref(), Some("1"));
    cluster.node(follower).promote(4).await.unwrap();
    let role = |cluster: &Cluster, id: u64| {
        let members = cluster.node(follower).status().members;
        members.into_iter().find(|member| member.id == id).map(|member| member.role)
    };
    eventually("it votes", || (role(&cluster, 4) == Some(Role::Voter)).then_some(())).await;
    let leader = cluster.leader().await;
    let leaving = (1..=3).find(|id| *id != leader && *id != follower).unwrap();
    cluster.node(follower).remove(leaving).await.unwrap();
    eventually("it is gone", || role(&cluster, leaving).is_none().then_some(())).await;
    put(&cluster.kv(4), "a", "2").await.unwrap();
}

/// The leader took the empty log of the newcomer for that of the dead member, and died of it.
#[tokio::test]
async fn a_newcomer_at_the_address_of_a_dead_member_gets_nothing_that_is_meant_for_that_one() {
    let mut cluster = Cluster::of_three().await;
    put(&cluster.kv(1), "a", "1").await.unwrap();
    cluster.converged().await;
    let leader = cluster.leader().await;
    let dead = cluster.follower().await;
    cluster.kill(dead).await;
    cluster.addresses.insert(4, cluster.addresses[&dead].clone());
    cluster.start(4, Arc::new(MemoryEngine::new())).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cluster.node(leader).status().failed, None);
    assert_eq!(cluster.node(4).status().last_log_index, 0);

    cluster.node(leader).remove(dead).await.unwrap();
    cluster.node(leader).add_learner(4, cluster.member(4)).await.unwrap();
    cluster.node(leader).promote(4).await.unwrap();
    put(&cluster.kv(4), "a", "2").await.unwrap();
    cluster.converged().await;
}

/// A panic within openraft ends it without a word.
#[tokio::test]
async fn a_member_whose_raft_has_panicked_says_that_it_has_failed() {
    let mut cluster = Cluster::of_three().await;
    put(&cluster.kv(1), "a", "1").await.unwrap();
    cluster.converged().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    cluster.kill(follower).await;
    // It has lost what it acknowledged: nothing can be right after that.
    cluster.start(follower, Arc::new(MemoryEngine::new())).await;
    let failed = eventually("it says so", || cluster.node(leader).status().failed).await;
    assert!(failed.contains("raft has ended by itself"), "{failed}");
}

#[tokio::test]
async fn impossible_changes_are_refused_with_a_reason() {
    let cluster = Cluster::of_three().await;
    let node = cluster.node(1);
    assert!(matches!(node.promote(9).await, Err(NodeError::Membership { .. })));
    let other = Member { name: "other".to_owned(), ..cluster.member(2) };
    assert!(matches!(node.add_learner(2, other).await, Err(NodeError::Membership { .. })));
    let again = node.bootstrap([(1, cluster.member(1))].into()).await;
    assert!(matches!(again, Err(NodeError::AlreadyBootstrapped)));
}

fn config(id: u64, cluster: &str, engine: Arc<dyn Engine>) -> NodeConfig {
    NodeConfig {
        node_id: id,
        cluster_id: cluster.to_owned(),
        member: Member::default(),
        engine,
        peer_source: None,
        tls: None,
        timers: Timers::default(),
        log: LogPolicy::default(),
        blocking: Blocking::Threads,
    }
}

#[tokio::test]
async fn the_data_of_another_node_or_cluster_is_refused() {
    let engine = Arc::new(MemoryEngine::new());
    Node::start(config(1, "a", engine.clone())).await.unwrap().stop().await;
    for (id, cluster) in [(2, "a"), (1, "b")] {
        let refused = Node::start(config(id, cluster, engine.clone())).await.err().unwrap();
        assert!(matches!(refused, NodeError::Identity { .. }), "{refused}");
    }
    Node::start(config(1, "a", engine)).await.unwrap().stop().await;
}

struct Authority {
    params: rcgen::CertificateParams,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { params, key: rcgen::KeyPair::generate().unwrap() }
    }

    fn peer(&self) -> PeerTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![PEER_DNS_NAME.to_owned()]).unwrap();
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let ca = self.params.self_signed(&self.key).unwrap();
        PeerTls {
            ca_pem: ca.pem().into_bytes(),
            cert_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes(),
        }
    }
}

#[tokio::test]
async fn peers_speak_mutual_tls_and_a_foreign_certificate_is_left_out() {
    let authority = Authority::new();
    let mut cluster = Cluster { tls: Some(authority.peer()), ..Cluster::default() }.boot(3).await;
    put(&cluster.kv(1), "a", "1").await.unwrap();
    cluster.tls = Some(Authority::new().peer());
    cluster.start(4, Arc::new(MemoryEngine::new())).await;
    let joining = cluster.node(1).add_learner(4, cluster.member(4));
    assert!(tokio::time::timeout(Duration::from_secs(2), joining).await.is_err());
    assert_eq!(cluster.node(4).status().applied_index, 0);
}
