//! What the agent asks of the API about pods, in one trait so that tests can stand in for it.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodStatus, Secret,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

/// Why a question about a pod was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The object does not exist, or is another one of the same name.
    #[error("{0} not found")]
    Gone(String),
    /// The API refuses; asking again helps only if something changes.
    #[error("{act}: {message}")]
    Refused {
        /// What was asked.
        act: String,
        /// The API's words.
        message: String,
    },
    /// No server answers.
    #[error("{act}: no API server answers: {message}")]
    Unreachable {
        /// What was asked.
        act: String,
        /// The last error.
        message: String,
    },
}

impl ApiError {
    fn of(act: String, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::Gone(act),
            kube::Error::Api(status) => Self::Refused { act, message: status.message.clone() },
            other => Self::Unreachable { act, message: chain(other) },
        }
    }
}

/// An error with all that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// A service account's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What is shown to whom it is for.
    pub value: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Questions about pods.
#[async_trait]
pub trait PodApi: Send + Sync + 'static {
    /// Writes the status of this very pod (same UID), and returns the pod as it is then.
    async fn write_status(&self, pod: &Pod, status: &PodStatus) -> Result<Pod, ApiError>;
    /// Deletes this very pod, at once: the agent is done with it.
    async fn delete(&self, pod: &Pod) -> Result<(), ApiError>;
    /// A ConfigMap.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, ApiError>;
    /// A Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, ApiError>;
    /// A claim.
    async fn claim(&self, namespace: &str, name: &str) -> Result<PersistentVolumeClaim, ApiError>;
    /// A volume.
    async fn volume(&self, name: &str) -> Result<PersistentVolume, ApiError>;
    /// A node as it is now.
    async fn node(&self, name: &str) -> Result<Node, ApiError>;
    /// A token for a pod's service account.
    async fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<Token, ApiError>;
}

/// The API by way of a client.
#[derive(Clone)]
pub struct KubeApi {
    client: kube::Client,
}

impl KubeApi {
    /// Asks by way of `client`.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace(pod))
    }
}

/// The namespace of a pod; never empty for one that came from the API.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The name of a pod; never empty for one that came from the API.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The UID of a pod; never empty for one that came from the API.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

#[async_trait]
impl PodApi for KubeApi {
    async fn write_status(&self, pod: &Pod, status: &PodStatus) -> Result<Pod, ApiError> {
        let act = || format!("write the status of pod {}/{}", namespace(pod), name(pod));
        let patch = json!({ "metadata": { "uid": uid(pod) }, "status": status_patch(status) });
        self.pods(pod)
            .patch_status(name(pod), &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(|error| ApiError::of(act(), &error))
    }

    async fn delete(&self, pod: &Pod) -> Result<(), ApiError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let act = || format!("delete pod {}/{}", namespace(pod), name(pod));
        self.pods(pod)
            .delete(name(pod), &params)
            .await
            .map(|_| ())
            .map_err(|error| ApiError::of(act(), &error))
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, ApiError> {
        Api::namespaced(self.client.clone(), namespace)
            .get(name)
            .await
            .map_err(|error| ApiError::of(format!("configmap \"{name}\""), &error))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Secret, ApiError> {
        Api::namespaced(self.client.clone(), namespace)
            .get(name)
            .await
            .map_err(|error| ApiError::of(format!("secret \"{name}\""), &error))
    }

    async fn claim(&self, namespace: &str, name: &str) -> Result<PersistentVolumeClaim, ApiError> {
        Api::namespaced(self.client.clone(), namespace)
            .get(name)
            .await
            .map_err(|error| ApiError::of(format!("persistentvolumeclaim \"{name}\""), &error))
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ApiError> {
        Api::all(self.client.clone())
            .get(name)
            .await
            .map_err(|error| ApiError::of(format!("persistentvolume \"{name}\""), &error))
    }

    async fn node(&self, name: &str) -> Result<Node, ApiError> {
        Api::all(self.client.clone())
            .get(name)
            .await
            .map_err(|error| ApiError::of(format!("node \"{name}\""), &error))
    }

    async fn token(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<Token, ApiError> {
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default");
        let act = || format!("token of service account \"{account}\"");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audience.iter().collect::<Vec<_>>(),
                "expirationSeconds": seconds,
                "boundObjectRef": {
                    "apiVersion": "v1", "kind": "Pod", "name": name(pod), "uid": uid(pod),
                },
            },
        });
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", namespace(pod));
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(|error| ApiError::Refused { act: act(), message: error.to_string() })?;
        let answer: serde_json::Value =
            self.client.request(request).await.map_err(|error| ApiError::of(act(), &error))?;
        let status = &answer["status"];
        let token = status["token"].as_str().zip(status["expirationTimestamp"].as_str());
        token
            .and_then(|(value, end)| {
                Some(Token { value: value.to_owned(), expires_at: end.parse().ok()? })
            })
            .ok_or_else(|| ApiError::Refused {
                act: act(),
                message: "the answer has no token with an end".to_owned(),
            })
    }
}

/// Fields of a status that may vanish again: a merge patch only removes what it names as null.
const VANISHING: [&str; 7] =
    ["reason", "message", "podIP", "podIPs", "startTime", "initContainerStatuses", "hostIPs"];

fn status_patch(status: &PodStatus) -> serde_json::Value {
    let mut patch = json!(status);
    if let Some(fields) = patch.as_object_mut() {
        for field in VANISHING {
            fields.entry(field).or_insert(serde_json::Value::Null);
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_patch_removes_what_the_status_no_longer_has() {
        let status = PodStatus { phase: Some("Running".into()), ..Default::default() };
        let patch = status_patch(&status);
        assert_eq!(patch["phase"], "Running");
        assert!(patch.as_object().unwrap().contains_key("podIP") && patch["podIP"].is_null());
    }
}
