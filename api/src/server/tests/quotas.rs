//! Quotas: nothing beyond them, however many create at once.

use http::Method;

use super::*;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

/// A cluster with a quota whose use has been counted, by a second server too.
pub(super) async fn limited(hard: Value) -> (Arc<Cluster>, Arc<Cluster>) {
    let cluster = Cluster::start().await;
    let account = json!({ "metadata": { "name": "default" } });
    cluster.post("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
    cluster.post(QUOTAS, &quota).await.ok();
    let second = cluster.another_server();
    for server in [&cluster, &second] {
        known(server).await;
    }
    (Arc::new(cluster), Arc::new(second))
}

/// Writes the status that the controller would write, with nothing used.
pub(super) async fn counted(cluster: &Cluster, hard: &Value) {
    let none = hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0")));
    let used: serde_json::Map<String, Value> = none.collect();
    let status = json!({ "status": { "hard": hard, "used": used } });
    cluster.merge(&format!("{QUOTAS}/q/status"), &status).await.ok();
}

/// Waits until the server knows that there is a quota: before it is counted it refuses everything.
async fn known(cluster: &Cluster) {
    for _ in 0..500 {
        let answer = cluster.post(&format!("{PODS}?dryRun=All"), &pod("try")).await;
        if answer.code == 403 {
            let told = answer.refusal().2;
            let is_seen = ["status unknown for quota: q, resources: ", "failed quota: q: "];
            assert!(is_seen.iter().any(|text| told.contains(text)), "{told}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the server does not see the quota");
}

#[tokio::test]
async fn many_creates_on_two_servers_do_not_overrun_a_quota() {
    const PODS_MAX: usize = 5;
    let hard = json!({ "pods": PODS_MAX.to_string() });
    let (one, two) = limited(hard.clone()).await;
    counted(&one, &hard).await;
    let mut creates = tokio::task::JoinSet::new();
    for index in 0..16 {
        let server = Arc::clone(if index % 2 == 0 { &one } else { &two });
        creates.spawn(async move {
            let mut answer = server.post(PODS, &pod(&format!("p{index}"))).await;
            // Who was crowded out comes again, as clients do.
            while answer.code == 504 {
                answer = server.post(PODS, &pod(&format!("p{index}"))).await;
            }
            answer
        });
    }
    let answers = creates.join_all().await;
    let made = answers.iter().filter(|answer| answer.code == 201).count();
    assert_eq!(made, PODS_MAX);
    let refused = answers.iter().find(|answer| answer.code != 201).unwrap();
    let (code, reason, message) = refused.refusal();
    assert_eq!((code, reason), (403, "Forbidden"));
    let why = "exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5";
    assert!(message.ends_with(why), "{message}");
    let quota = one.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(quota["status"]["used"], json!({ "pods": "5" }));
    let pods = one.get(PODS).await.ok();
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(PODS_MAX));
}

#[tokio::test]
async fn a_quota_of_amounts_wants_them_said_and_sums_them() {
    let hard = json!({ "pods": "9", "requests.cpu": "1", "limits.memory": "1Gi" });
    let (cluster, _) = limited(json!({ "pods": "9" })).await;
    cluster.merge(&format!("{QUOTAS}/q"), &json!({ "spec": { "hard": hard } })).await.ok();
    counted(&cluster, &hard).await;
    let refused = cluster.post(PODS, &pod("a")).await;
    let message = "pods \"a\" is forbidden: failed quota: q: must specify limits.memory for: c; \
                   requests.cpu for: c";
    assert_eq!(refused.refusal(), (403, "Forbidden", message));
    let sized = |name: &str, cpu: &str| {
        let mut body = pod(name);
        body["spec"]["containers"][0]["resources"] =
            json!({ "requests": { "cpu": cpu }, "limits": { "memory": "256Mi" } });
        body
    };
    cluster.post(PODS, &sized("a", "600m")).await.ok();
    let refused = cluster.post(PODS, &sized("b", "500m")).await;
    let message = "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: \
                   requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(refused.refusal(), (403, "Forbidden", message));
    cluster.post(PODS, &sized("b", "400m")).await.ok();
    let quota = cluster.get(&format!("{QUOTAS}/q")).await.ok();
    assert_eq!(
        quota["status"]["used"],
        json!({ "pods": "2", "requests.cpu": "1", "limits.memory": "512Mi" })
    );
    let gone = cluster.call(Method::DELETE, &format!("{QUOTAS}/q"), &Value::Null).await;
    assert_eq!(gone.code, 200);
}
