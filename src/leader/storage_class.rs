//! The class `local-path`: claims that name no class get a folder on a node's disk. Who has a better
//! one takes the mark of the default away from this; as long as it is there it is left as it is.

use std::time::Duration;

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kontiki_api::client::Client;
use kontiki_api::status::Status;
use tokio::time::sleep;
use tracing::warn;

use crate::controllers::local_path::PROVISIONER;

const NAME: &str = "local-path";
const DEFAULT_MARK: &str = "storageclass.kubernetes.io/is-default-class";
/// After a failure.
const RETRY: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Creates the class where it is not there.
pub(super) async fn ensure(client: &Client) {
    let mut wait = RETRY;
    while let Err(status) = create(client).await {
        warn!(%status, "creating the storage class {NAME}");
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn create(client: &Client) -> Result<(), Status> {
    match client.create(&class()).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

fn class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            annotations: Some([(DEFAULT_MARK.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.into(),
        reclaim_policy: Some("Delete".into()),
        volume_binding_mode: Some("WaitForFirstConsumer".into()),
        ..StorageClass::default()
    }
}
