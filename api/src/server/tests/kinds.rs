//! Kinds of the cluster's own upkeep: what clients do with each.

use http::Method;

use super::*;

/// What can be done with an object of any kind: the API operations that conformance asks for.
async fn operate(cluster: &Cluster, path: &str, mut object: Value) {
    object["metadata"]["name"] = object["metadata"]["name"].as_str().unwrap_or("thing").into();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    object["metadata"]["labels"] = json!({ "test": "operate" });
    // The cluster has some of its own: the address of the Service `kubernetes`.
    let others = cluster.get(path).await.ok()["items"].clone();
    let made = cluster.post(path, &object).await.ok();
    let one = format!("{path}/{name}");
    let read = cluster.get(&one).await.ok();
    assert_eq!(read, made, "{path}");
    let patch = json!({ "metadata": { "annotations": { "patched": "true" } } });
    let patched = cluster.merge(&one, &patch).await.ok();
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true", "{path}");
    let mut updated = patched.clone();
    updated["metadata"]["annotations"]["updated"] = "true".into();
    let updated = cluster.put(&one, &updated).await.ok();
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true", "{path}");
    let list = cluster.get(&format!("{path}?labelSelector=test=operate")).await.ok();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{path}");
    cluster.delete(&one, &Value::Null).await.ok();
    assert_eq!(cluster.get(&one).await.code, 404, "{path}");
    cluster.post(path, &object).await.ok();
    cluster.delete(&format!("{path}?labelSelector=test=operate"), &Value::Null).await.ok();
    assert_eq!(cluster.get(path).await.ok()["items"], others, "{path}");
}

#[tokio::test]
async fn kinds_without_a_controller_are_kept_as_clients_write_them() {
    let cluster = Cluster::start().await;
    let claim = json!({ "devices": { "requests": [
        { "name": "r", "exactly": { "deviceClassName": "c" } } ] } });
    let table = [
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({ "spec": {
            "matchingPrecedence": 10000,
            "priorityLevelConfiguration": { "name": "global-default" },
            "distinguisherMethod": { "type": "ByUser" } } }),
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({ "spec": {
            "type": "Limited", "limited": { "nominalConcurrencyShares": 2,
                "limitResponse": { "type": "Reject" } } } }),
        ),
        (
            "/apis/networking.k8s.io/v1/ipaddresses",
            json!({ "metadata": { "name": "192.168.0.1" },
            "spec": { "parentRef": { "resource": "services", "name": "s", "namespace": "default" } } }),
        ),
        (
            "/apis/networking.k8s.io/v1/servicecidrs",
            json!({ "spec": { "cidrs": ["10.1.1.0/24"] } }),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({ "driverName": "d.example.com",
            "parameters": { "a": "b" } }),
        ),
        (
            "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities",
            json!({ "storageClassName": "c", "capacity": "1Gi" }),
        ),
        ("/apis/resource.k8s.io/v1/deviceclasses", json!({ "spec": {} })),
        ("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims", json!({ "spec": claim })),
        (
            "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
            json!({ "spec": { "spec": claim } }),
        ),
        (
            "/apis/resource.k8s.io/v1/resourceslices",
            json!({ "spec": { "driver": "d.example.com",
            "nodeName": "n", "pool": { "name": "n", "generation": 1, "resourceSliceCount": 1 } } }),
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            json!({
            "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Why", "action": "Do", "type": "Normal",
            "note": "n", "reportingController": "test", "reportingInstance": "i",
            "regarding": { "namespace": "default" } }),
        ),
    ];
    for (path, object) in table {
        let mut full = json!({ "metadata": { "name": "thing" } });
        full.as_object_mut().unwrap().extend(object.as_object().unwrap().clone());
        operate(&cluster, path, full).await;
    }
}

#[tokio::test]
async fn statuses_of_flow_control_and_service_blocks_are_their_own() {
    let cluster = Cluster::start().await;
    let condition = |kind: &str| {
        json!({ "status": { "conditions": [{ "type": kind, "status": "True",
        "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } })
    };
    let table = [
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
            json!({ "spec": { "priorityLevelConfiguration": { "name": "p" } } }),
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            json!({ "spec": { "type": "Exempt" } }),
        ),
        (
            "/apis/networking.k8s.io/v1/servicecidrs",
            json!({ "spec": { "cidrs": ["10.1.1.0/24"] } }),
        ),
    ];
    for (path, mut object) in table {
        object["metadata"] = json!({ "name": "x" });
        cluster.post(path, &object).await.ok();
        let status = format!("{path}/x/status");
        let patched = cluster.merge(&status, &condition("T")).await.ok();
        assert_eq!(patched["status"]["conditions"][0]["type"], "T", "{path}");
        let mut whole = patched.clone();
        whole["status"]["conditions"][0]["reason"] = "Other".into();
        let put = cluster.put(&status, &whole).await.ok();
        assert_eq!(put["status"]["conditions"][0]["reason"], "Other", "{path}");
        assert_eq!(put["spec"], patched["spec"], "{path}");
    }
}

#[tokio::test]
async fn an_event_is_the_same_object_in_both_groups() {
    let cluster = Cluster::start().await;
    let core = "/api/v1/namespaces/default/events";
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({ "metadata": { "name": "e" }, "reason": "R", "message": "what happened",
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" }, "count": 3 });
    cluster.post(core, &event).await.ok();
    let seen = cluster.get(&format!("{newer}/e")).await.ok();
    assert_eq!(seen["apiVersion"], "events.k8s.io/v1");
    assert_eq!((&seen["note"], &seen["deprecatedCount"]), (&json!("what happened"), &json!(3)));
    assert_eq!(seen["regarding"]["name"], "p");
    let series = json!({ "note": "again", "series": { "count": 2,
        "lastObservedTime": "2026-01-01T00:00:00.000000Z" } });
    cluster.merge(&format!("{newer}/e"), &series).await.ok();
    let seen = cluster.get(&format!("{core}/e")).await.ok();
    assert_eq!((&seen["apiVersion"], &seen["message"]), (&json!("v1"), &json!("again")));
    assert_eq!((&seen["series"]["count"], seen.get("note")), (&json!(2), None));
    let selected = cluster.get(&format!("{newer}?fieldSelector=regarding.name=p")).await.ok();
    assert_eq!(selected["items"].as_array().map(Vec::len), Some(1));
}

/// A request for a certificate of somebody of these groups.
fn request(groups: &[&str], signer: &str) -> Value {
    use base64::Engine as _;
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name.push(rcgen::DnType::CommonName, "somebody");
    for group in groups {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
    }
    let key = rcgen::KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("pem");
    let pem = base64::engine::general_purpose::STANDARD.encode(pem);
    json!({ "metadata": { "name": "c" }, "spec": { "request": pem, "signerName": signer,
        "usages": ["client auth"], "expirationSeconds": 3600, "username": "forged" } })
}

#[tokio::test]
async fn a_request_for_a_certificate_is_approved_and_signed_by_parts_of_its_own() {
    let cluster = Cluster::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let made = cluster.post(path, &request(&[], "example.com/signer")).await.ok();
    assert_eq!(made["spec"]["username"], "admin", "who asks is not for the client to say");
    let one = format!("{path}/c");
    let approved = json!({ "status": { "conditions": [{ "type": "Approved", "status": "True",
        "reason": "ok", "message": "m" }] } });
    // The status is no place for a decision.
    let refused = cluster.merge(&format!("{one}/status"), &approved).await;
    assert_eq!(refused.code, 422, "{refused:?}");
    assert!(refused.refusal().2.contains("may not add a condition of type \"Approved\""));
    let decided = cluster.merge(&format!("{one}/approval"), &approved).await.ok();
    let condition = &decided["status"]["conditions"][0];
    assert_eq!(condition["type"], "Approved");
    assert!(condition["lastUpdateTime"].is_string());
    let signed = json!({ "status": { "certificate": "LS0tLS1CRUdJTgo=" } });
    let signed = cluster.merge(&format!("{one}/status"), &signed).await.ok();
    assert_eq!(signed["status"]["certificate"], "LS0tLS1CRUdJTgo=");
    assert_eq!(signed["status"]["conditions"][0]["type"], "Approved", "what was decided stays");
    let denied = json!({ "status": { "conditions": [
        { "type": "Approved", "status": "True" }, { "type": "Denied", "status": "True" }] } });
    let both = cluster.merge(&format!("{one}/approval"), &denied).await;
    assert!(both.refusal().2.contains("mutually exclusive"), "{both:?}");
    let list =
        cluster.get(&format!("{path}?fieldSelector=spec.signerName=example.com/signer")).await;
    assert_eq!(list.ok()["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn nobody_approves_or_asks_for_more_than_they_may() {
    let cluster = Cluster::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let client = "kubernetes.io/kube-apiserver-client";
    let refused = cluster.post(path, &request(&[MASTERS], client)).await;
    assert_eq!(refused.code, 403);
    assert!(refused.refusal().2.contains("system:masters group is not allowed"), "{refused:?}");
    cluster.post(path, &request(&["devs"], client)).await.ok();
    let role = json!({ "metadata": { "name": "approver" }, "rules": [{ "verbs": ["update", "patch", "get"],
        "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"] }] });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    cluster.post(&format!("{rbac}/clusterroles"), &role).await.ok();
    let binding = json!({ "metadata": { "name": "approver" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver" },
        "subjects": [{ "kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io" }] });
    cluster.post(&format!("{rbac}/clusterrolebindings"), &binding).await.ok();
    let mut approved = cluster.get(&format!("{path}/c")).await.ok();
    approved["status"]["conditions"] = json!([{ "type": "Approved", "status": "True" }]);
    let eve = User::authenticated("eve", &[]);
    let path = format!("{path}/c/approval");
    let answer = cluster.call_as(&eve, Method::PUT, &path, &approved).await;
    assert_eq!(answer.code, 403);
    let why = "user not permitted to approve requests with signerName \
               \"kubernetes.io/kube-apiserver-client\"";
    assert!(answer.refusal().2.ends_with(why), "{answer:?}");
}
