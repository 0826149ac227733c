//! Mirror pods: in the API they show the static pods that the node runs by itself. One that is
//! deleted, or shows what the pod was before, is made anew; one that shows none is removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{chain, name, namespace, uid};
use crate::static_pods::{HASH, MIRROR, annotation};

/// Wait after the API did not take something.
const RETRY: Duration = Duration::from_secs(1);

/// Namespace and name of a pod.
pub type Key = (String, String);

/// The key of a pod.
pub fn key(pod: &Pod) -> Key {
    (namespace(pod).to_owned(), name(pod).to_owned())
}

/// A mirror pod as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its UID.
    pub uid: String,
    /// What it shows.
    pub hash: String,
    /// Somebody has deleted it.
    pub is_ending: bool,
}

impl Mirror {
    /// The mirror that a pod of the API is, if it is one.
    pub fn of(pod: &Pod) -> Option<Self> {
        let hash = annotation(pod, MIRROR)?.to_owned();
        let is_ending = pod.metadata.deletion_timestamp.is_some();
        Some(Self { uid: uid(pod).to_owned(), hash, is_ending })
    }

    /// Whether it shows this pod as it is.
    pub fn shows(&self, pod: &Pod) -> bool {
        !self.is_ending && Some(self.hash.as_str()) == annotation(pod, HASH)
    }
}

/// What there is to be shown, and what shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// The static pods.
    pub pods: BTreeMap<Key, Arc<Pod>>,
    /// The mirror pods.
    pub mirrors: BTreeMap<Key, Mirror>,
    /// Files and API were heard: what is missing is not there.
    pub is_whole: bool,
}

/// Something to be done in the API.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Create(Arc<Pod>),
    Delete(Key, Mirror),
}

/// What must be done so that each static pod has one mirror, and there are no others.
fn plan(view: &View) -> Vec<Step> {
    if !view.is_whole {
        return Vec::new();
    }
    let is_right =
        |key: &Key, mirror: &Mirror| view.pods.get(key).is_some_and(|pod| mirror.shows(pod));
    let wrong = view.mirrors.iter().filter(|(key, mirror)| !is_right(key, mirror));
    let wrong = wrong.map(|(key, mirror)| Step::Delete(key.clone(), mirror.clone()));
    // A name is free only once the API has let go of the old one.
    let missing = view.pods.iter().filter(|(key, _)| !view.mirrors.contains_key(*key));
    wrong.chain(missing.map(|(_, pod)| Step::Create(pod.clone()))).collect()
}

/// Keeps the mirrors until `shutdown`.
pub async fn run(
    client: kube::Client,
    node: String,
    mut view: watch::Receiver<View>,
    shutdown: CancellationToken,
) {
    let work = async {
        loop {
            let steps = plan(&view.borrow_and_update());
            let mut failed = false;
            for step in steps {
                if let Err(error) = act(&client, &node, &step).await {
                    tracing::debug!(
                        error = chain(&error),
                        ?step,
                        "a mirror pod is not as it must be"
                    );
                    failed = true;
                }
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
        }
    };
    // What was cut off is planned anew by the next agent.
    shutdown.run_until_cancelled(work).await;
}

async fn act(client: &kube::Client, node: &str, step: &Step) -> Result<(), kube::Error> {
    let pods = |namespace: &str| Api::<Pod>::namespaced(client.clone(), namespace);
    let outcome = match step {
        Step::Create(pod) => {
            let node = Api::<Node>::all(client.clone()).get(node).await?;
            let mirror = mirror(pod, &node);
            pods(namespace(pod)).create(&PostParams::default(), &mirror).await.map(drop)
        }
        Step::Delete((namespace, name), mirror) => {
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: Some(mirror.uid.clone()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            pods(namespace).delete(name, &params).await.map(drop)
        }
    };
    match (step, outcome) {
        // The watch will tell of it.
        (Step::Create(_), Err(kube::Error::Api(status))) if status.reason == "AlreadyExists" => {
            Ok(())
        }
        (Step::Delete(..), Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        (_, outcome) => outcome,
    }
}

/// What shows a static pod; it goes with its node.
fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    annotations.insert(MIRROR.to_owned(), hash);
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, hash: &str) -> (Key, Arc<Pod>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "ns", "uid": hash,
                "annotations": { HASH: hash, "kubernetes.io/config.source": "file" },
            },
            "spec": { "containers": [{ "name": "c" }], "nodeName": "n1" },
        }))
        .unwrap();
        (key(&pod), Arc::new(pod))
    }

    fn of(name: &str, hash: &str, is_ending: bool) -> (Key, Mirror) {
        let key = ("ns".to_owned(), name.to_owned());
        (key, Mirror { uid: format!("u-{name}"), hash: hash.to_owned(), is_ending })
    }

    #[test]
    fn each_static_pod_has_one_mirror_that_shows_it_as_it_is() {
        let pods = ["fine", "missing", "changed", "deleted"].map(|name| pod(name, "1"));
        let mirrors = [
            of("fine", "1", false),
            of("changed", "0", false),
            of("deleted", "1", true),
            of("orphan", "1", false),
        ];
        let mut view = View { pods: pods.into(), mirrors: mirrors.into(), is_whole: false };
        assert_eq!(plan(&view), [], "nobody was heard");
        view.is_whole = true;
        let steps: Vec<_> = plan(&view)
            .into_iter()
            .map(|step| match step {
                Step::Create(pod) => format!("create {}", name(&pod)),
                Step::Delete((_, name), mirror) => format!("delete {name} {}", mirror.uid),
            })
            .collect();
        assert_eq!(
            steps,
            [
                "delete changed u-changed",
                "delete deleted u-deleted",
                "delete orphan u-orphan",
                "create missing"
            ]
        );
    }

    #[test]
    fn a_mirror_says_whose_it_is_and_what_it_shows() {
        let (_, pod) = pod("web", "h");
        let node: Node =
            serde_json::from_value(json!({ "metadata": { "name": "n1", "uid": "nu" } })).unwrap();
        let mirror = mirror(&pod, &node);
        assert_eq!(annotation(&mirror, MIRROR), Some("h"));
        assert_eq!(annotation(&mirror, "kubernetes.io/config.source"), Some("file"));
        assert_eq!((mirror.metadata.uid.as_ref(), &mirror.spec), (None, &pod.spec));
        let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Node", "nu"));
        let seen = Mirror::of(&mirror).unwrap();
        assert!(seen.shows(&pod));
        assert_eq!(Mirror::of(&pod), None);
    }
}
