//! Reads the authorization file again when it has changed, as upstream. What is wrong with it leaves in
//! force what was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{AuthorizationConfig, ClusterAuthorizer};

/// How often it is looked at. Upstream's minute is long for who waits for it.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Looks at the file of a configuration every `period` until `stop`.
pub(crate) async fn follow(
    authorizer: Arc<ClusterAuthorizer>,
    config: AuthorizationConfig,
    period: Duration,
    stop: CancellationToken,
) {
    let Some((path, text)) = config.file else { return };
    let mut known = Some(text);
    while stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
        let now = tokio::fs::read_to_string(&path).await.ok();
        if now == known {
            continue;
        }
        let file = path.display();
        match choose(&authorizer, &path).await {
            Ok(()) => tracing::info!(%file, "the authorization configuration has changed"),
            Err(error) => {
                tracing::error!(%file, error, "the authorization configuration stays as it was");
            }
        }
        known = now;
    }
}

async fn choose(authorizer: &ClusterAuthorizer, path: &Path) -> Result<(), String> {
    let path = path.to_owned();
    // It names files, which are read, too.
    let read = tokio::task::spawn_blocking(move || AuthorizationConfig::read(&path));
    authorizer.choose(read.await.map_err(|error| error.to_string())??)
}

#[cfg(test)]
mod tests {
    use kontiki_storage::kv::Kv;
    use kontiki_storage::local::LocalKv;
    use serde_json::json;

    use super::*;
    use crate::informer::Informers;
    use crate::registry::scheme::Scheme;
    use crate::resources;

    fn document(types: &[&str]) -> String {
        let authorizers: Vec<_> =
            types.iter().map(|one| json!({ "type": one, "name": one.to_lowercase() })).collect();
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
            "authorizers": authorizers,
        })
        .to_string()
    }

    #[tokio::test]
    async fn a_changed_file_counts_and_a_wrong_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write(&document(&["Node", "RBAC"]));
        let config = AuthorizationConfig::read(file.path()).unwrap();
        let kv: Arc<dyn Kv> = Arc::new(LocalKv::in_memory());
        let informers = Informers::new(Arc::clone(&kv), Arc::new(Scheme::new(resources::KINDS)));
        let authorizer = ClusterAuthorizer::new(kv, &informers, Some(&config)).unwrap();
        let authorizer = Arc::new(authorizer);
        let stop = CancellationToken::new();
        let period = Duration::from_millis(5);
        let following = follow(Arc::clone(&authorizer), config, period, stop.clone());
        let following = tokio::spawn(following);
        let has_rbac = || authorizer.config().unwrap().has_rbac();
        let until = async |expected: bool| {
            let reached = async {
                while has_rbac() != expected {
                    tokio::time::sleep(period).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), reached).await.expect("it is read");
        };
        write(&document(&["Node"]));
        until(false).await;
        write("authorizers: [");
        tokio::time::sleep(20 * period).await;
        assert!(!has_rbac());
        write(&document(&["RBAC"]));
        until(true).await;
        stop.cancel();
        following.await.unwrap();
        informers.shutdown().await;
    }
}
