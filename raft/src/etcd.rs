//! The etcd v3 API over the store: clients of etcd cannot tell the difference.
//!
//! ```text
//!  listener ── gRPC, plain or over TLS; what is not gRPC ─▶ gateway ─┐ JSON
//!      │                                                             │
//!      ▼                                                             │
//!   kv  watch  lease  cluster  maintenance  auth  lock  election ◀───┘ one file each
//!                                  queue ──┴──┘
//!      │
//!      ▼
//!   Kv, Node
//! ```
//!
//! Keys, revisions, error texts and gRPC codes are etcd's ([`error`]).

use std::sync::Arc;

use kontiki_storage::kv::{Kv, Revision};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::node::Node;

mod auth;
mod cluster;
mod convert;
mod election;
mod error;
mod filter;
mod gateway;
mod hash;
mod kv;
mod lease;
mod listener;
mod lock;
mod maintenance;
mod metrics;
pub mod proto;
mod queue;
mod watch;

use proto::auth_server::AuthServer;
use proto::cluster_server::ClusterServer;
use proto::kv_server::KvServer;
use proto::lease_server::LeaseServer;
use proto::maintenance_server::MaintenanceServer;
use proto::v3electionpb::election_server::ElectionServer;
use proto::v3lockpb::lock_server::LockServer;
use proto::watch_server::WatchServer;

/// How large a request may be, as in etcd.
const REQUEST_BYTES_MAX: usize = 3 << 19;

/// How large a message may be before it is refused unread: so that the refusal of one that is
/// merely too large is etcd's.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The version that clients are told: the API is that of etcd 3.5.
const API_VERSION: &str = "3.5.0";

type Reply<T> = Result<Response<T>, Status>;

/// Serves the etcd API of `node` on `listener` until `token` is cancelled. It knows no users: whoever
/// can connect may do everything, so without `tls`, which is to ask for certificates of those who
/// may, the listener must be on the loopback.
pub async fn serve(
    node: Node,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    token: CancellationToken,
) {
    let routes = routes(node.clone(), token.clone()).await;
    let gateway = gateway::Gateway::to(routes.clone(), node);
    listener::serve(listener, tls, listener::Front::of(routes, gateway), token).await;
}

/// All services.
async fn routes(node: Node, token: CancellationToken) -> Routes {
    let etcd = Etcd { kv: node.kv(), cluster: cluster_number(node.cluster_id()), node, token };
    let kv = KvServer::new(etcd.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX);
    let watch = WatchServer::new(etcd.clone()).max_encoding_message_size(usize::MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<KvServer<Etcd>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()
        .expect("the descriptors that were compiled in must be readable");
    Routes::new(kv)
        .add_service(watch)
        .add_service(LeaseServer::new(etcd.clone()))
        .add_service(ClusterServer::new(etcd.clone()))
        .add_service(MaintenanceServer::new(etcd.clone()))
        .add_service(AuthServer::new(etcd.clone()))
        .add_service(LockServer::new(etcd.clone()))
        .add_service(ElectionServer::new(etcd))
        .add_service(health)
        .add_service(reflection)
        .prepare()
}

/// etcd numbers clusters; ours have names: the first bytes of a checksum will do.
fn cluster_number(name: &str) -> u64 {
    let crc = u64::from(crc32fast::hash(name.as_bytes()));
    crc << 32 | (name.len() as u64 & u64::from(u32::MAX)) | 1
}

/// What all services share.
#[derive(Clone)]
struct Etcd {
    kv: Arc<dyn Kv>,
    node: Node,
    cluster: u64,
    /// Streams end with it.
    token: CancellationToken,
}

impl Etcd {
    /// Every answer has one, and the message has it optional.
    #[expect(clippy::unnecessary_wraps, reason = "the field that it fills is optional")]
    fn header(&self, revision: Revision) -> Option<proto::ResponseHeader> {
        let term = self.node.leadership().borrow().term;
        Some(proto::ResponseHeader {
            cluster_id: self.cluster,
            member_id: self.node.id(),
            revision: convert::signed(revision.get()),
            raft_term: term.0,
        })
    }

    /// The header of an answer that is of no revision of its own.
    fn header_now(&self) -> Option<proto::ResponseHeader> {
        self.header(self.kv.revision())
    }
}
