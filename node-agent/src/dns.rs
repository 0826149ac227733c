//! Cluster DNS: a resolver in every agent, so that a node's pods ask on their node.
//!
//! ```text
//!   pod ── 10.96.0.10:53 ──(proxy)──► server ──► zone (pure: names from the catalog)
//!                                        └─────► upstream (the node's own name servers)
//! ```
//!
//! It listens at a free port of the node's address; the Service `kube-dns` leads there, unless that
//! selects pods of its own (CoreDNS, say). Answers come from the catalog at the moment they are
//! asked for: they are as fresh as the watch. Only this node and its pods are answered.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub mod server;
pub mod upstream;
pub mod zone;

use crate::catalog::Catalog;
use server::Server;
use upstream::Upstream;
use zone::Zone;

/// Ports tried until one is free for both protocols.
const BIND_ATTEMPTS: usize = 16;

/// Where pods find names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDns {
    /// Address of the Service.
    pub address: IpAddr,
    /// The domain of the cluster, such as `cluster.local`.
    pub domain: String,
}

/// A resolver that has bound its port.
pub struct Dns {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Dns {
    /// Binds the same port of `address` for UDP and TCP.
    pub async fn bind(address: IpAddr) -> std::io::Result<Self> {
        let mut outcome = Err(std::io::ErrorKind::AddrInUse.into());
        for _ in 0..BIND_ATTEMPTS {
            let udp = UdpSocket::bind((address, 0)).await?;
            match TcpListener::bind(udp.local_addr()?).await {
                Ok(tcp) => return Ok(Self { udp, tcp }),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until `shutdown`. `range` is that of this node's pods.
    pub async fn run(
        self,
        config: ClusterDns,
        catalog: Arc<RwLock<Catalog>>,
        range: watch::Receiver<Option<String>>,
        shutdown: CancellationToken,
    ) {
        let upstream = Upstream::new(config.address);
        let zone = Zone::new(&config);
        let server = Arc::new(Server::new(zone, catalog, upstream, range));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = server.clone().serve_udp(Arc::new(self.udp)) => {}
            () = server.serve_tcp(self.tcp) => {}
        }
    }
}
