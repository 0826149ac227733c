//! The service `Cluster`.
//!
//! A member that is added here is a learner without a name until its process comes, as an etcd
//! member is "unstarted": `kontiki server --join` at its address takes its place, and becomes a
//! voter once it has caught up. It is never counted for a quorum before (R8).

use kontiki_storage::kv::Revision;
use tonic::{Request, Status};

use super::proto;
use super::proto::cluster_server::Cluster;
use super::{Etcd, Reply, error};
use crate::error::{NodeError, Refusal};
use crate::status::{MemberStatus, Role};
use crate::types::{Member, NodeId};
use crate::{member_ids, membership};

// As in etcd, these answers are of no revision of the store.

/// How many learners there may be at a time, as in etcd.
const LEARNERS_MAX: usize = 1;

fn precondition(text: &str) -> Status {
    Status::failed_precondition(format!("etcdserver: {text}"))
}

fn refused(error: NodeError) -> Status {
    match error {
        NodeError::Membership(Refusal { reason, .. }) if reason == membership::UNHEALTHY => {
            Status::unavailable(format!("etcdserver: {reason}"))
        }
        NodeError::Membership(Refusal { reason, .. }) => precondition(&reason),
        NodeError::NoLeader { .. } => error::no_leader(),
        other => Status::internal(other.to_string()),
    }
}

/// The address in a peer URL: etcd takes a scheme, a host and a port, and nothing else.
fn address(urls: &[String]) -> Result<String, Status> {
    let bad = || Status::invalid_argument("etcdserver: given member URLs are invalid");
    let [url] = urls else { return Err(bad()) };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let address = rest.map(|rest| rest.trim_end_matches('/')).ok_or_else(bad)?;
    let authority: http::uri::Authority = address.parse().map_err(|_| bad())?;
    match (authority.port_u16(), authority.as_str().contains('@')) {
        (Some(_), false) => Ok(authority.to_string()),
        _ => Err(bad()),
    }
}

fn message(known: MemberStatus) -> proto::Member {
    let MemberStatus { id, member, role } = known;
    let is_started = !member.name.is_empty();
    let clients = (is_started && !member.etcd_addr.is_empty())
        .then(|| member.etcd_addr.clone())
        .map(|addr| if addr.contains("://") { addr } else { format!("http://{addr}") });
    proto::Member {
        id,
        name: member.name,
        peer_ur_ls: vec![format!("https://{}", member.raft_addr)],
        client_ur_ls: clients.into_iter().collect(),
        is_learner: role == Role::Learner,
    }
}

impl Etcd {
    fn members(&self) -> Vec<proto::Member> {
        self.node.status().members.into_iter().map(message).collect()
    }

    /// The member of that number, as of now.
    async fn member(&self, id: NodeId) -> Result<MemberStatus, Status> {
        self.node.linearize().await.map_err(error::refused)?;
        let known = self.node.status().members.into_iter().find(|member| member.id == id);
        known.ok_or_else(|| Status::not_found("etcdserver: member not found"))
    }

    /// A number that was never given, also where members were not numbered by it.
    async fn new_id(&self) -> Result<NodeId, Status> {
        let taken: Vec<NodeId> = self.node.status().members.iter().map(|m| m.id).collect();
        loop {
            let id = member_ids::allocate(&*self.kv).await.map_err(error::refused)?;
            if !taken.contains(&id) {
                return Ok(id);
            }
        }
    }

    fn refuse_taken(&self, address: &str, by_others_than: NodeId) -> Result<(), Status> {
        let members = self.node.status().members;
        let mut others = members.iter().filter(|member| member.id != by_others_than);
        if others.any(|member| member.member.raft_addr == address) {
            return Err(precondition("Peer URLs already exists"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Cluster for Etcd {
    async fn member_add(
        &self,
        request: Request<proto::MemberAddRequest>,
    ) -> Reply<proto::MemberAddResponse> {
        let request = request.into_inner();
        let raft_addr = address(&request.peer_ur_ls)?;
        self.node.linearize().await.map_err(error::refused)?;
        self.refuse_taken(&raft_addr, 0)?;
        let members = self.node.status().members;
        let learners = members.iter().filter(|member| member.role == Role::Learner).count();
        if request.is_learner && learners >= LEARNERS_MAX {
            return Err(precondition("too many learner members in cluster"));
        }
        let id = self.new_id().await?;
        let member = Member { raft_addr, ..Member::default() };
        self.node.register(id, member.clone()).await.map_err(refused)?;
        let added = message(MemberStatus { id, member, role: Role::Learner });
        let mut members = self.members();
        if !members.iter().any(|member| member.id == id) {
            members.push(added.clone());
        }
        let header = self.header(Revision::ZERO);
        Ok(proto::MemberAddResponse { header, member: Some(added), members }.into())
    }

    async fn member_remove(
        &self,
        request: Request<proto::MemberRemoveRequest>,
    ) -> Reply<proto::MemberRemoveResponse> {
        let id = self.member(request.into_inner().id).await?.id;
        self.node.remove(id).await.map_err(refused)?;
        let members = self.members().into_iter().filter(|member| member.id != id).collect();
        Ok(proto::MemberRemoveResponse { header: self.header(Revision::ZERO), members }.into())
    }

    async fn member_update(
        &self,
        request: Request<proto::MemberUpdateRequest>,
    ) -> Reply<proto::MemberUpdateResponse> {
        let proto::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let raft_addr = address(&peer_ur_ls)?;
        let known = self.member(id).await?;
        self.refuse_taken(&raft_addr, id)?;
        let updated = Member { raft_addr, ..known.member };
        self.node.update(id, updated.clone()).await.map_err(refused)?;
        let mut members = self.members();
        for member in members.iter_mut().filter(|member| member.id == id) {
            member.peer_ur_ls = vec![format!("https://{}", updated.raft_addr)];
        }
        Ok(proto::MemberUpdateResponse { header: self.header(Revision::ZERO), members }.into())
    }

    async fn member_list(
        &self,
        request: Request<proto::MemberListRequest>,
    ) -> Reply<proto::MemberListResponse> {
        if request.into_inner().linearizable {
            self.node.linearize().await.map_err(error::refused)?;
        }
        Ok(proto::MemberListResponse {
            header: self.header(Revision::ZERO),
            members: self.members(),
        }
        .into())
    }

    async fn member_promote(
        &self,
        request: Request<proto::MemberPromoteRequest>,
    ) -> Reply<proto::MemberPromoteResponse> {
        let known = self.member(request.into_inner().id).await?;
        if known.role == Role::Voter {
            return Err(precondition("can only promote a learner member"));
        }
        self.node.promote(known.id).await.map_err(refused)?;
        let mut members = self.members();
        for member in members.iter_mut().filter(|member| member.id == known.id) {
            member.is_learner = false;
        }
        Ok(proto::MemberPromoteResponse { header: self.header(Revision::ZERO), members }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_url_has_a_scheme_a_host_and_a_port_and_nothing_else() {
        let of = |url: &str| address(&[url.to_owned()]).ok();
        assert_eq!(of("http://127.0.0.1:2380"), Some("127.0.0.1:2380".to_owned()));
        assert_eq!(of("https://[::1]:2380/"), Some("[::1]:2380".to_owned()));
        for bad in
            ["127.0.0.1:2380", "http://host", "http://u@h:1", "http://h:1/path", "unix://a:1"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        address(&[]).unwrap_err();
    }
}
