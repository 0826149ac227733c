//! The priority classes of what the cluster itself cannot do without.

use std::time::Duration;

use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::status::Status;
use tokio::time::sleep;
use tracing::warn;

/// Name, number and description, as every cluster has them.
const CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another \
         node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Creates the classes where they are not there.
pub(super) async fn ensure(client: &Client) {
    let mut wait = RETRY;
    while let Err(status) = create(client).await {
        warn!(%status, "creating the cluster's priority classes");
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn create(client: &Client) -> Result<(), Status> {
    for (name, value, description) in CLASSES {
        let class = PriorityClass {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            value,
            description: Some(description.into()),
            ..PriorityClass::default()
        };
        match client.create(&class).await {
            Err(status) if !status.is_already_exists() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}
