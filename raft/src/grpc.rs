//! The peers' network: gRPC over HTTP/2, with mutual TLS.
//!
//! Each peer has three connections, so that what is large or slow never delays what keeps the
//! cluster together: one for the log, one for heartbeats, votes and read indexes, one for
//! everything else. A connection that fails is dropped and the next call makes a new one (R11).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

use crate::config::{PEER_DNS_NAME, PeerTls};

mod client;
mod lane;
mod server;

pub use client::GrpcTransport;
pub use server::{PeerServeError, serve};

/// How large a message may be: an append message of `log_store::READ_BYTES` with one largest entry,
/// and room to spare.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// HTTP/2 windows: what may be on its way unacknowledged.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How often an idle or waiting connection is tried, and how long its answer may take (R11).
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1000);

/// The metadata by which peers without TLS notice that they belong to different clusters.
const CLUSTER_HEADER: &str = "kontiki-cluster";

/// The metadata that names the member that a call is for. A newcomer may have the address of a dead
/// member: what is meant for that one must never reach it, or its empty log passes for a log that
/// was lost.
const MEMBER_HEADER: &str = "kontiki-member";

/// Why a certificate cannot be used is only known to the TLS library in words.
type TlsResult<T> = Result<T, tonic::transport::Error>;

fn endpoint(
    addr: &str,
    source: Option<IpAddr>,
    tls: Option<&PeerTls>,
    connect_timeout: Duration,
) -> TlsResult<Endpoint> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{addr}"))?
        .connect_timeout(connect_timeout)
        .local_address(source.filter(|source| same_family(addr, *source)))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let Some(tls) = tls else { return Ok(endpoint) };
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca_pem))
        .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
        .domain_name(PEER_DNS_NAME);
    endpoint.tls_config(config)
}

/// A socket of one family cannot connect to an address of the other.
fn same_family(addr: &str, source: IpAddr) -> bool {
    addr.parse().is_ok_and(|addr: SocketAddr| addr.is_ipv4() == source.is_ipv4())
}

fn server_tls(tls: &PeerTls) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
        .client_ca_root(Certificate::from_pem(&tls.ca_pem))
}
