//! The service `kube-dns` in `kube-system`: the address at which pods find the cluster's names. It
//! has no selector: each node's agent answers for its own pods. Whoever would rather run CoreDNS
//! gives it one.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kontiki_api::client::Client;
use kontiki_api::status::Status;
use tokio::time::sleep;
use tracing::warn;

use crate::pki::CLUSTER_DNS_IP;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
const PORT: i32 = 53;
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Creates the service where it is not there.
pub(super) async fn ensure(client: &Client) {
    let mut wait = RETRY;
    while let Err(status) = create(client).await {
        warn!(%status, "creating the service kube-dns");
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn create(client: &Client) -> Result<(), Status> {
    // Asked for first, since creating it again would fail for its address before its name.
    match client.get::<Service>(NAMESPACE, NAME).await {
        Err(status) if status.is_not_found() => client.create(&service()).await.map(drop),
        found => found.map(drop),
    }
}

fn service() -> Service {
    // As upstream's add-on has them: tools find the resolver by these.
    let labels = [
        ("k8s-app", "kube-dns"),
        ("kubernetes.io/cluster-service", "true"),
        ("kubernetes.io/name", "KubeDNS"),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.into()),
        port: PORT,
        protocol: Some(protocol.into()),
        target_port: Some(IntOrString::Int(PORT)),
        ..ServicePort::default()
    };
    let address = CLUSTER_DNS_IP.to_string();
    Service {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(NAMESPACE.into()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some(address.clone()),
            cluster_ips: Some(vec![address]),
            ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
