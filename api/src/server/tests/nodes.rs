//! What a node's agent may: read what its pods need, write what is its own, and nothing beside.

use super::*;

const NODES: &str = "/api/v1/nodes";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn agent(node: &str) -> User {
    User::authenticated(format!("system:node:{node}"), &["system:nodes"])
}

impl Cluster {
    async fn at_node(&self, node: &str, method: Method, path: &str, body: &Value) -> Answer {
        self.call_as(&agent(node), method, path, body).await
    }

    async fn read(&self, node: &str, path: &str) -> u16 {
        self.at_node(node, Method::GET, path, &Value::Null).await.code
    }

    /// A pod on a node that uses one secret.
    async fn pod_on(&self, node: &str, name: &str, secret: &str) -> Value {
        let mut wanted = pod(name);
        wanted["spec"]["nodeName"] = json!(node);
        wanted["spec"]["volumes"] = json!([{ "name": "s", "secret": { "secretName": secret } }]);
        self.post(PODS, &wanted).await.ok()
    }
}

#[tokio::test]
async fn a_node_reads_the_secrets_of_its_pods_and_no_others() {
    let cluster = Cluster::start().await;
    let other = cluster.another_server();
    for name in ["mine", "theirs"] {
        cluster.post(SECRETS, &json!({ "metadata": { "name": name } })).await.ok();
    }
    assert_eq!(other.read("n1", &format!("{SECRETS}/mine")).await, 403);
    cluster.pod_on("n1", "a", "mine").await;
    cluster.pod_on("n2", "b", "theirs").await;
    assert_eq!(other.read("n1", &format!("{SECRETS}/mine")).await, 200);
    assert_eq!(other.read("n2", &format!("{SECRETS}/theirs")).await, 200);
    let refused =
        other.at_node("n1", Method::GET, &format!("{SECRETS}/theirs"), &Value::Null).await;
    assert_eq!(
        refused.refusal().2,
        "secrets \"theirs\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" \
         in API group \"\" in the namespace \"default\": no relationship found between node 'n1' \
         and this object"
    );
    assert_eq!(other.read("n1", SECRETS).await, 403);
    assert_eq!(other.read("n1", "/api/v1/secrets").await, 403);
    let one = format!("{SECRETS}?fieldSelector=metadata.name%3Dmine");
    assert_eq!(other.read("n1", &one).await, 200);
    let path = format!("{SECRETS}/mine");
    let written = other.at_node("n1", Method::DELETE, &path, &Value::Null).await;
    assert_eq!(written.code, 403);
}

#[tokio::test]
async fn a_node_writes_its_own_node_and_not_its_taints_or_its_role() {
    let cluster = Cluster::start().await;
    let node =
        |name: &str, labels: Value| json!({ "metadata": { "name": name, "labels": labels } });
    let create = async |body: Value| {
        let answer = cluster.at_node("n1", Method::POST, NODES, &body).await;
        (answer.code, answer.refusal().2.to_owned())
    };
    let (code, message) = create(node("n2", json!({}))).await;
    assert_eq!(code, 403);
    assert!(message.ends_with("node \"n1\" is not allowed to modify node \"n2\""), "{message}");
    let role = json!({ "node-role.kubernetes.io/control-plane": "" });
    assert_eq!(create(node("n1", role)).await.0, 403);
    let own = json!({ "kubernetes.io/hostname": "n1", "team": "a" });
    assert_eq!(create(node("n1", own)).await.0, 201);
    cluster.post(NODES, &node("n2", json!({}))).await.ok();
    let update = async |name: &str, changes: Value| {
        let path = format!("{NODES}/{name}");
        let mut body = cluster.get(&path).await.ok();
        for (field, value) in changes.as_object().expect("changes") {
            body[field.as_str()] = value.clone();
        }
        cluster.at_node("n1", Method::PUT, &path, &body).await.code
    };
    let taints = json!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } });
    assert_eq!(update("n1", taints).await, 403);
    assert_eq!(update("n1", json!({ "spec": { "podCIDR": "10.0.0.0/24" } })).await, 200);
    assert_eq!(update("n2", json!({})).await, 403);
    assert_eq!(cluster.read("n1", &format!("{NODES}/n1")).await, 200);
    assert_eq!(cluster.read("n1", &format!("{NODES}/n2")).await, 403);
    assert_eq!(cluster.read("n1", NODES).await, 403);
}

#[tokio::test]
async fn a_node_sees_and_ends_its_own_pods_only() {
    let cluster = Cluster::start().await;
    cluster.pod_on("n1", "a", "s").await;
    cluster.pod_on("n2", "b", "s").await;
    assert_eq!(cluster.read("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await, 200);
    assert_eq!(cluster.read("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2").await, 403);
    assert_eq!(cluster.read("n1", "/api/v1/pods").await, 403);
    assert_eq!(cluster.read("n1", &format!("{PODS}/a")).await, 200);
    assert_eq!(cluster.read("n1", &format!("{PODS}/b")).await, 403);
    let status = async |name: &str| {
        let path = format!("{PODS}/{name}");
        let mut body = cluster.get(&path).await.ok();
        body["status"]["phase"] = json!("Running");
        cluster.at_node("n1", Method::PUT, &format!("{path}/status"), &body).await.code
    };
    assert_eq!(status("a").await, 200);
    assert_eq!(status("b").await, 403);
    let delete = async |name: &str| {
        let body = json!({ "gracePeriodSeconds": 0 });
        cluster.at_node("n1", Method::DELETE, &format!("{PODS}/{name}"), &body).await.code
    };
    assert_eq!(delete("b").await, 403);
    assert_eq!(delete("a").await, 200);
    assert_eq!(cluster.at_node("n1", Method::POST, PODS, &pod("c")).await.code, 403);
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_pods_only() {
    let cluster = Cluster::start().await;
    let own = cluster.pod_on("n1", "a", "s").await;
    let other = cluster.pod_on("n2", "b", "s").await;
    let ask = async |node: &str, bound: Value| {
        let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let body = json!({ "spec": { "boundObjectRef": bound } });
        cluster.at_node(node, Method::POST, path, &body).await.code
    };
    let bound = |pod: &Value| {
        let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
        json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid })
    };
    assert_eq!(ask("n1", bound(&own)).await, 201);
    assert_eq!(ask("n1", bound(&other)).await, 403);
    assert_eq!(ask("n1", Value::Null).await, 403);
    assert_eq!(ask("n3", bound(&own)).await, 403, "it has no pod of that account");
}

#[tokio::test]
async fn a_node_holds_its_own_lease_only() {
    let cluster = Cluster::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let create = async |name: &str| {
        let body = json!({ "metadata": { "name": name }, "spec": { "holderIdentity": name } });
        cluster.at_node("n1", Method::POST, leases, &body).await.code
    };
    assert_eq!(create("n2").await, 403);
    assert_eq!(create("n1").await, 201);
    assert_eq!(cluster.read("n1", &format!("{leases}/n1")).await, 200);
    assert_eq!(cluster.read("n1", leases).await, 403);
    let elsewhere = "/apis/coordination.k8s.io/v1/namespaces/default/leases/n1";
    assert_eq!(cluster.read("n1", elsewhere).await, 403);
}

#[tokio::test]
async fn agents_that_wait_for_news_of_the_network_hold_up_no_reads() {
    let config =
        ApiConfig { max_reads_in_flight: 1, max_writes_in_flight: 0, ..ApiConfig::default() };
    let cluster = Cluster::with(config).await;
    let network = "/kontiki/v1/network";
    let first = cluster.at_node("n1", Method::GET, network, &Value::Null).await.ok();
    let after = format!("{network}?after={}", first["tag"].as_str().expect("a tag"));
    let waiting = cluster.at_node("n1", Method::GET, &after, &Value::Null);
    let reading = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        cluster.get("/api/v1/namespaces").await
    };
    // The reading ends first although it begins last.
    tokio::select! {
        biased;
        _ = waiting => panic!("nothing is news"),
        answer = reading => drop(answer.ok()),
    }
}

#[tokio::test]
async fn a_node_is_told_of_others_by_address_alone_and_nobody_else_is() {
    let cluster = Cluster::start().await;
    let network = "/kontiki/v1/network";
    for (name, ip) in [("n1", "192.0.2.1"), ("n2", "192.0.2.2")] {
        let spec = json!({ "podCIDR": format!("10.42.{}.0/24", &name[1..]) });
        cluster.post(NODES, &json!({ "metadata": { "name": name }, "spec": spec })).await.ok();
        let addresses = json!([{ "type": "InternalIP", "address": ip }]);
        let status = json!({ "status": { "addresses": addresses } });
        cluster.merge(&format!("{NODES}/{name}/status"), &status).await.ok();
    }
    cluster.pod_on("n2", "b", "theirs").await;
    let status = json!({ "status": { "podIPs": [{ "ip": "10.42.2.5" }], "podIP": "10.42.2.5" } });
    cluster.merge(&format!("{PODS}/b/status"), &status).await.ok();
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let policy = json!({ "metadata": { "name": "p" }, "spec": { "podSelector": {} } });
    cluster.post(policies, &policy).await.ok();
    let told =
        async |node: &str, path: &str| cluster.at_node(node, Method::GET, path, &Value::Null).await;
    for _ in 0..500 {
        let first = told("n2", network).await.ok();
        if first["pods"].as_array().is_some_and(|pods| !pods.is_empty()) {
            assert_eq!(first["pods"][0]["ips"], json!(["10.42.2.5"]));
            assert_eq!(first["pods"][0]["ingress"], json!([]));
            let way = json!({ "ranges": ["10.42.1.0/24"], "address": "192.0.2.1" });
            assert_eq!(first["nodes"], json!([way]));
            assert_eq!(told("n1", network).await.ok()["pods"], json!([]));
            let user = User::authenticated("system:kube-proxy", &["system:authenticated"]);
            let refused = cluster.call_as(&user, Method::GET, network, &Value::Null).await;
            assert_eq!(refused.code, 403);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the policy is not seen");
}
