//! HorizontalPodAutoscalers over a store in memory, with measured figures that a test sets.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::cluster::{Cluster, deployment};

fn autoscaler(name: &str, spec: &Value) -> HorizontalPodAutoscaler {
    let mut whole = json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "maxReplicas": 10,
        "metrics": [{ "type": "Resource", "resource": {
            "name": "memory", "target": { "type": "AverageValue", "averageValue": "100Mi" },
        } }],
    });
    for (field, value) in spec.as_object().expect("fields") {
        whole[field.as_str()] = value.clone();
    }
    serde_json::from_value(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "name": name, "namespace": "default" }, "spec": whole,
    }))
    .unwrap()
}

impl Cluster {
    /// Status and reason of a condition.
    async fn condition(&self, name: &str, kind: &str) -> Option<(String, String)> {
        let found = self.client.get::<HorizontalPodAutoscaler>("default", name).await.ok()?;
        let conditions = found.status?.conditions?;
        let condition = conditions.into_iter().find(|condition| condition.type_ == kind)?;
        Some((condition.status, condition.reason?))
    }

    async fn until_condition(&self, name: &str, kind: &str, status: &str, reason: &str) {
        let wanted = Some((status.to_owned(), reason.to_owned()));
        self.until(reason, async || (self.condition(name, kind).await == wanted).then_some(()))
            .await;
    }

    async fn until_event(&self, reason: &str, message: &str) {
        self.until(message, async || {
            let events = self.list::<Event>("default").await;
            let is_it = |event: &Event| {
                event.reason.as_deref() == Some(reason) && event.message.as_deref() == Some(message)
            };
            events.iter().any(is_it).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_deployment_grows_as_fast_as_it_may() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 2, "web:1")).await;
    cluster.until_complete("web").await;
    "400Mi".clone_into(&mut cluster.used.memory.lock());
    cluster.create(&autoscaler("web", &json!({}))).await;
    cluster
        .until("it has doubled", async || {
            let web = cluster.client.get::<Deployment>("default", "web").await.ok()?;
            (web.spec?.replicas == Some(4)).then_some(())
        })
        .await;
    cluster.until_condition("web", "ScalingLimited", "True", "ScaleUpLimit").await;
    cluster.until_condition("web", "AbleToScale", "True", "SucceededRescale").await;
    cluster.until_condition("web", "ScalingActive", "True", "ValidMetricFound").await;
    cluster
        .until_event("SuccessfulRescale", "New size: 4; reason: memory resource above target")
        .await;
    let found = cluster.client.get::<HorizontalPodAutoscaler>("default", "web").await.unwrap();
    let status = found.status.unwrap();
    assert_eq!((status.current_replicas, status.desired_replicas), (Some(2), 4));
    assert!(status.last_scale_time.is_some());
    let metrics = serde_json::to_value(status.current_metrics).unwrap();
    assert_eq!(metrics[0]["resource"]["current"]["averageValue"], "419430400");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_hold_though_nothing_is_measured_and_what_is_missing_is_said() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 1, "web:1")).await;
    cluster.create(&autoscaler("web", &json!({ "minReplicas": 3 }))).await;
    cluster
        .until_event(
            "SuccessfulRescale",
            "New size: 3; reason: Current number of replicas below Spec.MinReplicas",
        )
        .await;
    cluster
        .create(&autoscaler(
            "lost",
            &json!({ "scaleTargetRef": {
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "none",
    } }),
        ))
        .await;
    cluster.until_condition("lost", "AbleToScale", "False", "FailedGetScale").await;
    cluster.patch::<HorizontalPodAutoscaler>("web", json!({ "spec": { "maxReplicas": 9 } })).await;
    cluster.until_condition("web", "ScalingActive", "False", "FailedGetResourceMetric").await;
    let why = "failed to get memory usage: unable to get metrics for resource memory: no metrics \
               returned from resource metrics API";
    cluster.until_event("FailedGetResourceMetric", why).await;
    let all = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get memory resource \
         metric value: {why}"
    );
    cluster.until_event("FailedComputeMetricsReplicas", &all).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_of_nothing_is_left_alone() {
    let cluster = Cluster::with_nodes(&["n1"]).await;
    cluster.create(&deployment("web", 0, "web:1")).await;
    cluster.create(&autoscaler("web", &json!({}))).await;
    cluster.until_condition("web", "ScalingActive", "False", "ScalingDisabled").await;
    let web = cluster.client.get::<Deployment>("default", "web").await.unwrap();
    assert_eq!(web.spec.unwrap().replicas, Some(0));
    cluster.stop().await;
}
