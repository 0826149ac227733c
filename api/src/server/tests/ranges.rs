//! What limit ranges and classes say for pods and claims that do not.

use super::*;

/// A cluster in which pods can be made.
async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    let account = json!({ "metadata": { "name": "default" } });
    cluster.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    cluster
}

/// Waits until a pod like this is answered as `wanted` says: classes and ranges are read from what
/// the server has in memory, which follows the store by a moment.
async fn until(cluster: &Cluster, body: &Value, wanted: impl Fn(&Answer) -> bool) -> Answer {
    for _ in 0..500 {
        let answer = cluster.post(&format!("{PODS}?dryRun=All"), body).await;
        if wanted(&answer) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the server does not go by what is stored");
}

#[tokio::test]
async fn a_limit_range_gives_what_is_left_out_and_refuses_what_is_beyond() {
    let cluster = cluster().await;
    let limits = json!([
        {
            "type": "Container",
            "default": { "cpu": "500m" }, "defaultRequest": { "cpu": "100m" },
            "min": { "cpu": "50m" }, "max": { "cpu": "1" },
            "maxLimitRequestRatio": { "cpu": "5" },
        },
        { "type": "Pod", "max": { "cpu": "1500m" } },
    ]);
    let range = json!({ "metadata": { "name": "r" }, "spec": { "limits": limits } });
    cluster.post("/api/v1/namespaces/default/limitranges", &range).await.ok();
    let told = "kubernetes.io/limit-ranger";
    let has_told = |answer: &Answer| answer.body["metadata"]["annotations"][told].is_string();
    let given = until(&cluster, &pod("a"), has_told).await.ok();
    assert_eq!(
        given["metadata"]["annotations"][told],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    assert_eq!(
        given["spec"]["containers"][0]["resources"],
        json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "500m" } })
    );
    for (requests, limits, why) in [
        ("10m", "40m", "[minimum cpu usage per Container is 50m, but request is 10m]"),
        ("1", "2", "maximum cpu usage per Container is 1, but limit is 2"),
        (
            "100m",
            "1",
            "cpu max limit to request ratio per Container is 5, but provided ratio is 10.000000",
        ),
    ] {
        let mut body = pod("b");
        body["spec"]["containers"][0]["resources"] =
            json!({ "requests": { "cpu": requests }, "limits": { "cpu": limits } });
        let refused = cluster.post(PODS, &body).await;
        assert_eq!(refused.code, 403, "{}", refused.body);
        let why = why.trim_matches(['[', ']']);
        assert!(refused.refusal().2.contains(why), "{why}: {}", refused.refusal().2);
    }
    let mut two = pod("b");
    let second = json!({ "name": "d", "image": "busybox" });
    two["spec"]["containers"].as_array_mut().unwrap().push(second);
    for container in two["spec"]["containers"].as_array_mut().unwrap() {
        container["resources"] = json!({ "requests": { "cpu": "400m" }, "limits": { "cpu": "1" } });
    }
    let refused = cluster.post(PODS, &two).await;
    let message = "pods \"b\" is forbidden: maximum cpu usage per Pod is 1500m, but limit is 2";
    assert_eq!(refused.refusal(), (403, "Forbidden", message));
}

#[tokio::test]
async fn classes_say_what_pods_and_claims_leave_out() {
    let cluster = cluster().await;
    let mut missing = pod("a");
    missing["spec"]["runtimeClassName"] = json!("sandboxed");
    let refused = cluster.post(PODS, &missing).await;
    let message = "pods \"a\" is forbidden: pod rejected: RuntimeClass \"sandboxed\" not found";
    assert_eq!(refused.refusal(), (403, "Forbidden", message));
    let class = json!({
        "metadata": { "name": "sandboxed" }, "handler": "runsc",
        "overhead": { "podFixed": { "cpu": "250m" } },
        "scheduling": { "nodeSelector": { "kind": "sandbox" } },
    });
    cluster.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.ok();
    let made = cluster.post(PODS, &missing).await.ok();
    assert_eq!(made["spec"]["overhead"], json!({ "cpu": "250m" }));
    assert_eq!(made["spec"]["nodeSelector"], json!({ "kind": "sandbox" }));
    let class = json!({ "metadata": { "name": "usual" }, "value": 7, "globalDefault": true });
    cluster.post("/apis/scheduling.k8s.io/v1/priorityclasses", &class).await.ok();
    let given =
        until(&cluster, &pod("b"), |answer| answer.body["spec"]["priority"] == 7).await.ok();
    assert_eq!(given["spec"]["priorityClassName"], "usual");
}
