//! A server's way in, both halves.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use kontiki_api::server::{Caller, EnrollKind, Enrollment};
use kontiki_api::status::Status;
use kontiki_raft::member_ids;
use kontiki_raft::node::Node;
use kontiki_raft::status::Role as MemberRole;
use kontiki_raft::types::Member;
use kontiki_storage::kv::KvError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::node::{EnrollNode, admit, check_name};
use super::{Door, ServerStep, decode};
use crate::member::MemberRecord;
use crate::pki::files::ServerPki;
use crate::pki::{Authority, Identity as Pair, PkiError};
use crate::server::config::{Origin, ServerConfig};
use crate::server::identity::Identity;
use crate::token::{Role, Token};

/// How long changes of members may take: they queue behind one another.
const JOIN_DEADLINE: Duration = Duration::from_secs(25);
/// Between two attempts.
const RETRY_EVERY: Duration = Duration::from_millis(30);
/// Between two looks at whether this is a member still.
const STANDING_EVERY: Duration = Duration::from_secs(2);
/// A member that is led, as far as it knows, looks every so many times only.
const LED_ROUNDS: u64 = 5;
/// How long a member with the name of a newcomer may take to show that it is alive.
const ALIVE_DEADLINE: Duration = Duration::from_millis(500);

/// Who asks to be made a member, once its Raft listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Joining {
    /// The id it was given.
    pub node_id: u64,
    /// Its name.
    pub name: String,
    /// URL of its Kubernetes API.
    pub api: String,
    /// Where its peers reach it.
    pub raft: String,
    /// Where it speaks the etcd API.
    pub etcd: String,
}

/// What a new server is given.
#[derive(Serialize, Deserialize)]
pub struct Enrolled {
    /// The cluster.
    pub cluster_id: String,
    /// Its id: never given before, and never again.
    pub node_id: u64,
    ca_cert: String,
    ca_key: String,
    peer_ca_cert: String,
    peer_ca_key: String,
    front_proxy_ca_cert: String,
    front_proxy_ca_key: String,
}

impl Enrolled {
    /// The cluster's authorities.
    pub fn authorities(&self) -> Result<ServerPki, PkiError> {
        let load = |name: &str, cert: &str, key: &str| {
            Authority::load(name, Pair { cert_pem: cert.into(), key_pem: key.into() })
        };
        Ok(ServerPki {
            ca: load("the cluster's authority", &self.ca_cert, &self.ca_key)?,
            peer_ca: load("the peers' authority", &self.peer_ca_cert, &self.peer_ca_key)?,
            front_proxy_ca: load(
                "the front proxies' authority",
                &self.front_proxy_ca_cert,
                &self.front_proxy_ca_key,
            )?,
        })
    }
}

/// The joiner's first step.
pub async fn enroll(servers: &[String], token: &Token, name: &str) -> anyhow::Result<Enrolled> {
    let step = ServerStep::Certificates { name: name.into() };
    let door = Door::new(servers, token, None)?;
    door.knock("server", &step).await.context("enter the cluster")
}

/// The joiner's second step: asks until this member votes, once in its life. Ends when `stop` is
/// cancelled, or with an error when the cluster has removed this member.
pub async fn stay_member(
    node: Node,
    member: Member,
    config: ServerConfig,
    identity: Arc<Identity>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let told = member.clone();
    let joining = Joining {
        node_id: node.id(),
        name: member.name,
        api: member.api_url,
        raft: member.raft_addr,
        etcd: member.etcd_addr,
    };
    let way = Way { node: &node, config: &config, identity: &identity };
    let living = async {
        if !identity.record.joined {
            way.become_voter(&joining).await;
            let record = MemberRecord { joined: true, ..identity.record.clone() };
            record.write(&config.data_dir)?;
        }
        // Both go on at the same time: who was removed cannot tell anybody its addresses.
        tokio::select! {
            removed = way.removed() => Err(removed),
            () = tell_addresses(&node, &told) => Err(way.removed().await),
        }
    };
    stop.run_until_cancelled(living).await.unwrap_or(Ok(()))
}

/// Sees to it that the cluster knows this server by its addresses: those that it had may have
/// changed, or it is the first of a cluster that was restored.
async fn tell_addresses(node: &Node, member: &Member) {
    let is_known = || {
        let members = node.status().members;
        members.iter().any(|known| known.id == node.id() && known.member == *member)
    };
    while !is_known() {
        if let Err(error) = node.update(node.id(), member.clone()).await {
            warn!("the cluster does not know this server's addresses yet: {error:#}");
        }
        sleep(RETRY_EVERY).await;
    }
}

fn is_voter(node: &Node) -> bool {
    let status = node.status();
    status.members.iter().any(|member| member.id == status.id && member.role == MemberRole::Voter)
}

/// A member's way to the others.
struct Way<'a> {
    node: &'a Node,
    config: &'a ServerConfig,
    identity: &'a Identity,
}

impl Way<'_> {
    async fn become_voter(&self, joining: &Joining) {
        while !is_voter(self.node) {
            match self.ask(&ServerStep::Join(joining.clone())).await {
                Ok(Some(joined)) => info!(%joined, "joined"),
                Ok(None) => {}
                Err(error) => warn!("not a voter yet: {error:#}"),
            }
            sleep(RETRY_EVERY).await;
        }
    }

    /// Ends when the others say that this is no member any more. They are asked often while nobody
    /// leads it, and now and then besides: who was removed may never hear of it from the log, and
    /// goes on to believe in the leader that it had.
    async fn removed(&self) -> anyhow::Error {
        let cluster_id = self.node.cluster_id().to_owned();
        let step = ServerStep::Standing { cluster_id, node_id: self.node.id() };
        let mut round = 0_u64;
        loop {
            round += 1;
            sleep(STANDING_EVERY).await;
            let is_led = is_voter(self.node) && self.node.status().leader.is_some();
            if is_led && !round.is_multiple_of(LED_ROUNDS) {
                continue;
            }
            match self.ask(&step).await {
                Ok(Some(standing)) if standing["member"] == Value::Bool(false) => {
                    return self.note_removed();
                }
                Ok(_) => {}
                Err(error) => tracing::debug!("ask whether this is a member: {error:#}"),
            }
        }
    }

    /// Writes down that this is no member any more, so that it is known without the others.
    fn note_removed(&self) -> anyhow::Error {
        let data_dir = &self.config.data_dir;
        let joined = self.identity.record.clone();
        let record = MemberRecord { joined: true, removed: true, ..joined };
        let noted = record.write(data_dir).and_then(|()| record.check_not_removed(data_dir));
        noted.err().map_or_else(|| anyhow::anyhow!("this server was removed"), Into::into)
    }

    /// Asks the others; `None` where none is known.
    async fn ask(&self, step: &ServerStep) -> anyhow::Result<Option<Value>> {
        let token = self.identity.pki.token(Role::Server)?;
        let mut servers: Vec<String> = match &self.config.origin {
            Origin::Join { servers, .. } => servers.clone(),
            Origin::Init | Origin::Resume => Vec::new(),
        };
        let known = self.node.status().members.into_iter();
        servers.extend(known.filter(|m| m.id != self.node.id()).map(|m| m.member.api_url));
        servers.retain(|server| !server.is_empty());
        if servers.is_empty() {
            return Ok(None);
        }
        Door::new(&servers, &token, None)?.knock("server", step).await.map(Some)
    }
}

/// The server's half.
pub struct Enroller {
    node: Node,
    identity: Arc<Identity>,
    /// Changes of members are made one after the other.
    changing: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Enrollment for Enroller {
    async fn enroll(
        &self,
        kind: EnrollKind,
        token: &str,
        body: Value,
        caller: Caller,
    ) -> Result<Value, Status> {
        let role = match kind {
            EnrollKind::Server => Role::Server,
            EnrollKind::Node => Role::Node,
        };
        self.check(token, role)?;
        match role {
            Role::Node => {
                self.admit_node(&decode(body).map_err(Status::bad_request)?, &caller).await
            }
            Role::Server => match decode(body).map_err(Status::bad_request)? {
                ServerStep::Certificates { name } => self.admit_server(&name).await,
                ServerStep::Join(joining) => self.make_member(joining).await,
                ServerStep::Standing { cluster_id, node_id } => {
                    self.standing(&cluster_id, node_id).await
                }
            },
        }
    }
}

impl Enroller {
    /// Of this node and its authorities.
    pub fn new(node: Node, identity: Arc<Identity>) -> Self {
        Self { node, identity, changing: tokio::sync::Mutex::default() }
    }

    fn check(&self, token: &str, role: Role) -> Result<(), Status> {
        let ours = self.identity.pki.token(role).map_err(Status::internal)?;
        match token.parse::<Token>() {
            Ok(theirs) if theirs.matches(&ours) => Ok(()),
            // Which part is wrong is nobody's business who does not have it.
            Ok(_) | Err(_) => Err(Status::unauthorized()),
        }
    }

    async fn admit_node(&self, request: &EnrollNode, caller: &Caller) -> Result<Value, Status> {
        check_name(caller, request).await?;
        let enrolled = admit(&self.identity.pki, request)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        info!(node = request.node_name, "node enrolled");
        serde_json::to_value(enrolled).map_err(Status::internal)
    }

    async fn admit_server(&self, name: &str) -> Result<Value, Status> {
        self.refuse_living_namesake(name).await?;
        let pki = &self.identity.pki;
        let enrolled = Enrolled {
            cluster_id: self.identity.record.cluster_id.clone(),
            node_id: member_ids::allocate(&*self.node.kv())
                .await
                .map_err(|error| unavailable(&error))?,
            ca_cert: pki.ca.identity().cert_pem.clone(),
            ca_key: pki.ca.identity().key_pem.clone(),
            peer_ca_cert: pki.peer_ca.identity().cert_pem.clone(),
            peer_ca_key: pki.peer_ca.identity().key_pem.clone(),
            front_proxy_ca_cert: pki.front_proxy_ca.identity().cert_pem.clone(),
            front_proxy_ca_key: pki.front_proxy_ca.identity().key_pem.clone(),
        };
        info!(name, id = enrolled.node_id, "server enrolled");
        serde_json::to_value(enrolled).map_err(Status::internal)
    }

    /// Whether somebody is a member, as of now: what this server believes may be old.
    async fn standing(&self, cluster_id: &str, node_id: u64) -> Result<Value, Status> {
        self.node.linearize().await.map_err(|error| Status::from_kv(&error))?;
        let mut members = self.node.status().members.into_iter();
        let is_member = cluster_id == self.node.cluster_id() && members.any(|m| m.id == node_id);
        Ok(json!({ "member": is_member }))
    }

    /// A newcomer takes the place of a dead member of its name, never that of a living one.
    async fn refuse_living_namesake(&self, name: &str) -> Result<(), Status> {
        let members = self.node.status().members;
        for member in members.into_iter().filter(|known| known.member.name == name) {
            let connecting = TcpStream::connect(member.member.raft_addr.clone());
            // A newcomer in the same place listens already, but does not speak before it has an id.
            let alive = matches!(timeout(ALIVE_DEADLINE, connecting).await, Ok(Ok(_)));
            if alive && self.speaks(&member.member.api_url).await {
                return Err(Status::conflict(
                    "",
                    "servers",
                    name,
                    "a server of this name is a member and alive; choose another --name",
                ));
            }
        }
        Ok(())
    }

    async fn speaks(&self, api: &str) -> bool {
        let Ok(pin) = self.identity.pki.ca.cert_der() else { return false };
        let config = crate::pki::tls::pinned_config(crate::token::ca_hash(&pin), None);
        let Ok(http) = config.map_err(Into::into).and_then(crate::client::with_tls) else {
            return false;
        };
        http.get(format!("{api}/livez")).timeout(ALIVE_DEADLINE).send().await.is_ok()
    }

    async fn make_member(&self, joining: Joining) -> Result<Value, Status> {
        let until = Instant::now() + JOIN_DEADLINE;
        let _one_at_a_time = timeout(JOIN_DEADLINE, self.changing.lock())
            .await
            .map_err(|_| Status::timeout("other changes of members are under way"))?;
        let mut told = String::new();
        loop {
            match self.change_members(&joining).await {
                Ok(()) => return Ok(json!({ "id": joining.node_id, "role": "voter" })),
                // Another server may be making a change: it ends, or its leader does.
                Err(error) if Instant::now() < until => {
                    let reason = error.to_string();
                    if reason != told {
                        warn!("{} is no member yet, which is tried again: {reason}", joining.name);
                        told = reason;
                    }
                    sleep(RETRY_EVERY).await;
                }
                Err(error) => {
                    return Err(Status::unavailable(format!(
                        "make {} a member: {error}",
                        joining.name
                    )));
                }
            }
        }
    }

    async fn change_members(
        &self,
        joining: &Joining,
    ) -> Result<(), kontiki_raft::error::NodeError> {
        for dead in self.node.status().members {
            let same_place =
                dead.member.name == joining.name || dead.member.raft_addr == joining.raft;
            if same_place && dead.id < joining.node_id {
                self.node.remove(dead.id).await?;
                info!(id = dead.id, "removed the member whose place is taken: {}", dead.member);
            }
        }
        let member = Member {
            name: joining.name.clone(),
            raft_addr: joining.raft.clone(),
            api_url: joining.api.clone(),
            etcd_addr: joining.etcd.clone(),
        };
        self.node.add_learner(joining.node_id, member).await?;
        self.node.promote(joining.node_id).await
    }
}

fn unavailable(error: &KvError) -> Status {
    Status::unavailable(format!("give out a member id: {error}"))
}
