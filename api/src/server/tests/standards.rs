//! The standards that namespaces hold their pods to, and the addresses that are seen.

use super::*;

/// An answer with its warnings.
async fn warned(cluster: &Cluster, method: Method, path: &str, body: &Value) -> (u16, String) {
    let media = match method {
        Method::PATCH => "application/merge-patch+json",
        _ => "application/json",
    };
    let response = cluster.send(method, path, media, body.to_string().into_bytes()).await;
    let warnings = response.headers().get_all("warning").iter();
    let warnings: Vec<&str> = warnings.filter_map(|text| text.to_str().ok()).collect();
    (response.status().as_u16(), warnings.join("\n"))
}

fn labels(mode: &str, level: &str) -> Value {
    json!({ "metadata": { "labels": { format!("pod-security.kubernetes.io/{mode}"): level } } })
}

#[tokio::test]
async fn a_namespace_holds_its_pods_to_its_standard() {
    let cluster = Cluster::start().await;
    let namespace = "/api/v1/namespaces/default";
    let mut bold = pod("bold");
    bold["spec"]["hostNetwork"] = true.into();
    cluster.post(PODS, &bold).await.ok();
    let (code, warnings) =
        warned(&cluster, Method::PATCH, namespace, &labels("enforce", "baseline")).await;
    assert_eq!(code, 200);
    assert_eq!(
        warnings,
        "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce \
         level \\\"baseline:latest\\\"\"\n299 - \"bold: host namespaces\""
    );
    bold["metadata"]["name"] = "bolder".into();
    let refused = cluster.post(PODS, &bold).await;
    assert_eq!(
        refused.refusal(),
        (
            403,
            "Forbidden",
            "pods \"bolder\" is forbidden: violates PodSecurity \"baseline:latest\": host \
             namespaces (hostNetwork=true)"
        )
    );
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    cluster.merge(&format!("{PODS}/bold"), &label).await.ok();
    cluster.post(PODS, &pod("plain")).await.ok();
}

#[tokio::test]
async fn what_makes_pods_is_warned_of_and_made() {
    let cluster = Cluster::start().await;
    cluster.merge("/api/v1/namespaces/default", &labels("warn", "restricted")).await.ok();
    let deployment = json!({
        "metadata": { "name": "web" },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
    });
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (code, warnings) = warned(&cluster, Method::POST, path, &deployment).await;
    assert_eq!(code, 201);
    assert!(
        warnings.starts_with(
            "299 - \"would violate PodSecurity \\\"restricted:latest\\\": \
             allowPrivilegeEscalation != false (container \\\"c\\\" must set"
        ),
        "{warnings}"
    );
    let nonsense = cluster.merge("/api/v1/namespaces/default", &labels("warn", "strict")).await;
    assert_eq!(nonsense.code, 422);
}

#[tokio::test]
async fn an_address_of_a_service_is_seen_as_an_object_and_one_that_is_taken_is_given_to_none() {
    const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    let cluster = Cluster::start().await;
    let service = json!({ "metadata": { "name": "web" }, "spec": { "ports": [{ "port": 80 }] } });
    let service = cluster.post(SERVICES, &service).await.ok();
    let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let seen = cluster.get(&format!("{ADDRESSES}/{address}")).await.ok();
    assert_eq!(
        seen["spec"]["parentRef"],
        json!({ "group": "", "resource": "services", "namespace": "default", "name": "web" })
    );
    assert_eq!(seen["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    cluster.delete(&format!("{SERVICES}/web"), &Value::Null).await.ok();
    assert_eq!(cluster.get(&format!("{ADDRESSES}/{address}")).await.code, 404);

    let parent = json!({ "resource": "others", "group": "example.com", "name": "x" });
    let taken = json!({ "metadata": { "name": "10.96.9.9" }, "spec": { "parentRef": parent } });
    cluster.post(ADDRESSES, &taken).await.ok();
    let late = json!({
        "metadata": { "name": "late" },
        "spec": { "clusterIP": "10.96.9.9", "ports": [{ "port": 80 }] },
    });
    let refused = cluster.post(SERVICES, &late).await;
    assert!(refused.refusal().2.contains("provided IP is already allocated"), "{refused:?}");
    cluster.delete(&format!("{ADDRESSES}/10.96.9.9"), &Value::Null).await.ok();
    cluster.post(SERVICES, &late).await.ok();
    assert_eq!(cluster.post(ADDRESSES, &taken).await.code, 409, "it is the service's");
}

#[tokio::test]
async fn an_autoscaler_is_the_same_in_both_versions() {
    let cluster = Cluster::start().await;
    let older = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let newer = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({
        "metadata": { "name": "web" },
        "spec": {
            "scaleTargetRef": { "kind": "Deployment", "name": "web" },
            "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 60,
        },
    });
    let made = cluster.post(older, &scaler).await.ok();
    assert_eq!(made["apiVersion"], "autoscaling/v1");
    let seen = cluster.get(&format!("{newer}/web")).await.ok();
    assert_eq!(seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 60);
    let more = json!({ "spec": { "metrics": [{
        "type": "Pods",
        "pods": { "metric": { "name": "hits" }, "target": { "type": "AverageValue", "averageValue": "1" } },
    }] } });
    cluster.merge(&format!("{newer}/web"), &more).await.ok();
    let seen = cluster.get(&format!("{older}/web")).await.ok();
    let annotation = &seen["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    assert!(annotation.as_str().is_some_and(|text| text.contains("hits")), "{seen}");
    assert_eq!(seen["spec"].get("targetCPUUtilizationPercentage"), None);
}

#[tokio::test]
async fn the_root_lists_what_can_be_read() {
    let cluster = Cluster::start().await;
    let paths = cluster.get("/").await.ok();
    let paths: Vec<&str> =
        paths["paths"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for path in ["/api/v1", "/apis/apps", "/apis/autoscaling/v1", "/healthz", "/openapi/v3"] {
        assert!(paths.contains(&path), "{path} is missing of {paths:?}");
    }
}
