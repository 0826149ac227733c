//! `grpc`: the standard health service, `grpc.health.v1.Health/Check`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// `SERVING` in the service's answer.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether `service` is serving.
pub(super) async fn check(
    ip: IpAddr,
    port: u16,
    service: Option<&str>,
    timeout: Duration,
) -> Result<(), String> {
    let address = SocketAddr::new(ip, port);
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| error.to_string())?
        .connect_timeout(timeout);
    let channel = endpoint.connect().await.map_err(|_| {
        format!("timeout: failed to connect service {address:?} within {timeout:?}")
    })?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| error.to_string())?;
    let request = HealthCheckRequest { service: service.unwrap_or_default().to_owned() };
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
    let answer = grpc
        .unary(tonic::Request::new(request), path, codec)
        .await
        .map_err(|status| format!("error: health rpc failed: {status}"))?;
    match answer.into_inner().status {
        SERVING => Ok(()),
        status => Err(format!("service unhealthy (responded with {status})")),
    }
}
