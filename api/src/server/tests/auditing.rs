//! The audit log: who did what, as the policy says.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;

use super::*;
use crate::audit::{AuditConfig, AuditLog, Policy};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [quiet]}
- {level: Metadata, resources: [{group: "", resources: [secrets, pods]}]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}], omitManagedFields: true}
- {level: Metadata, nonResourceURLs: ["/version"], omitStages: []}
"#;

/// A server that writes an audit log.
struct Audited {
    cluster: Cluster,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Audited {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let log =
            AuditLog { path: path.clone(), max_age_days: 0, max_backups: 0, max_megabytes: 0 };
        let policy = Policy::parse(POLICY).expect("a policy");
        let audit = Some(AuditConfig { policy, log: Some(log), webhook: None });
        let cluster = Cluster::with(ApiConfig { audit, ..ApiConfig::default() }).await;
        Self { cluster, path, _folder: folder }
    }

    /// The first event of a path, once it is written.
    async fn event(&self, verb: &str, uri: &str) -> Value {
        for _ in 0..1000 {
            let text = std::fs::read_to_string(&self.path).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut events =
                lines.filter(|event| event["verb"] == verb && event["requestURI"] == uri);
            if let Some(event) = events.next() {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{verb} {uri} must be written down: {:?}", std::fs::read_to_string(&self.path));
    }
}

#[tokio::test]
async fn an_event_says_who_did_what_and_what_came_of_it() {
    let audited = Audited::start().await;
    let map = json!({ "metadata": { "name": "a" }, "data": { "k": "v" } });
    audited.cluster.post(CONFIG_MAPS, &map).await.ok();
    let event = audited.event("create", CONFIG_MAPS).await;
    assert_eq!((&event["kind"], &event["level"]), (&json!("Event"), &json!("RequestResponse")));
    assert_eq!(event["stage"], "ResponseComplete");
    assert_eq!(event["user"]["username"], "admin");
    let reference = json!({
        "resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1",
    });
    assert_eq!(event["objectRef"], reference);
    assert_eq!(event["responseStatus"], json!({ "metadata": {}, "code": 201 }));
    assert_eq!(event["requestObject"]["data"], json!({ "k": "v" }));
    assert!(event["responseObject"]["metadata"]["uid"].is_string());
    assert!(event["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(event["auditID"].as_str().is_some_and(|id| !id.is_empty()));
}

#[tokio::test]
async fn secrets_are_not_shown_and_refusals_say_why() {
    let audited = Audited::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({ "metadata": { "name": "s" }, "stringData": { "k": "hidden" } });
    let jane = User::authenticated("jane", &[]);
    audited.cluster.call_as(&jane, Method::POST, secrets, &secret).await;
    let event = audited.event("create", secrets).await;
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(event["responseStatus"]["code"], 403);
    assert_eq!(event["responseStatus"]["reason"], "Forbidden");
    audited.cluster.post(&format!("{secrets}?dryRun=All"), &secret).await.ok();
    audited.event("create", &format!("{secrets}?dryRun=All")).await;
    let quiet = User::authenticated("quiet", &[MASTERS]);
    audited.cluster.call_as(&quiet, Method::GET, CONFIG_MAPS, &Value::Null).await.ok();
    audited.cluster.get(CONFIG_MAPS).await.ok();
    let event = audited.event("list", CONFIG_MAPS).await;
    assert_eq!(event["user"]["username"], "admin", "of others nothing is written down");
    let text = std::fs::read_to_string(&audited.path).expect("a log");
    assert!(!text.contains("hidden"), "{text}");
}

#[tokio::test]
async fn a_watch_is_written_down_when_it_begins_and_when_it_ends() {
    let audited = Audited::start().await;
    let uri = format!("{PODS}?watch=true&timeoutSeconds=1");
    audited.cluster.get(&uri).await;
    let event = audited.event("watch", &uri).await;
    assert_eq!(event["stage"], "ResponseStarted");
    for _ in 0..1000 {
        let text = std::fs::read_to_string(&audited.path).expect("a log");
        if text.lines().any(|line| line.contains("\"watch\"") && line.contains("ResponseComplete"))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the end must be written down");
}

#[tokio::test]
async fn who_is_refused_before_it_is_known_who_they_are_is_written_down() {
    let audited = Audited::start().await;
    let headers = [("authorization", "Bearer nobody-s"), ("x-real-ip", "10.0.0.9")];
    let refused = audited.cluster.call_with(&headers, Method::GET, PODS).await;
    assert_eq!(refused.code, 401);
    let event = audited.event("list", PODS).await;
    assert_eq!((&event["level"], &event["user"]), (&json!("Metadata"), &json!({})));
    assert_eq!(event["stage"], "ResponseStarted");
    let status = json!({
        "metadata": {}, "code": 401, "message": "Authentication failed, attempted: bearer",
    });
    assert_eq!(event["responseStatus"], status);
    assert_eq!(event["sourceIPs"], json!(["10.0.0.9"]));
    let text = std::fs::read_to_string(&audited.path).expect("a log");
    assert!(!text.contains("nobody-s"), "{text}");
    let maps = "/apis/apps/v1/deployments";
    audited.cluster.call_with(&headers, Method::GET, maps).await;
    audited.cluster.call_with(&headers, Method::GET, PODS).await;
    let text = std::fs::read_to_string(&audited.path).expect("a log");
    assert!(!text.contains(maps), "no rule is about it: {text}");
}

#[tokio::test]
async fn what_waits_is_written_before_the_server_is_gone() {
    let audited = Audited::start().await;
    let count = 200;
    let list = async |number: usize| {
        audited.cluster.get(&format!("{PODS}?fieldManager=m{number}")).await.ok()
    };
    futures_util::future::join_all((0..count).map(list)).await;
    audited.cluster.server.api.audit.as_ref().expect("an audit log").close().await;
    let text = std::fs::read_to_string(&audited.path).expect("a log");
    assert_eq!(text.lines().filter(|line| line.contains("fieldManager=m")).count(), count);
}

#[tokio::test]
async fn as_whom_one_acts_and_what_admission_notes_is_written_down() {
    let audited = Audited::start().await;
    let labels =
        json!({ "metadata": { "labels": { "pod-security.kubernetes.io/audit": "restricted" } } });
    audited.cluster.merge("/api/v1/namespaces/default", &labels).await.ok();
    let request = Request::builder()
        .method(Method::POST)
        .uri(PODS)
        .header("content-type", "application/json")
        .header("impersonate-user", "jane")
        .header("impersonate-group", MASTERS)
        .header("user-agent", "tests/1")
        .header("x-forwarded-for", "10.0.0.1, 10.0.0.2")
        .extension(Arc::new(User::authenticated("admin", &[MASTERS])))
        .body(Body::from(pod("p").to_string()));
    read(audited.cluster.answer(request.expect("a request")).await).await.ok();
    let event = audited.event("create", PODS).await;
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(event["impersonatedUser"]["username"], "jane");
    assert_eq!(event["userAgent"], "tests/1");
    assert_eq!(event["sourceIPs"], json!(["10.0.0.1", "10.0.0.2"]));
    let notes = &event["annotations"];
    assert_eq!(notes["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let violations = notes["pod-security.kubernetes.io/audit-violations"].as_str();
    let begins = "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation";
    assert!(violations.is_some_and(|text| text.starts_with(begins)), "{violations:?}");
    assert!(event["requestObject"].is_null(), "at this level no object is shown");
}

#[tokio::test]
async fn policies_note_what_breaks_them_and_what_they_want_noted() {
    let audited = Audited::start().await;
    let folder = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "metadata": { "name": "p.example.com" },
        "spec": {
            "matchConstraints": { "resourceRules": [{ "operations": ["CREATE"],
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }] },
            "validations": [{ "expression": "object.data.k == 'right'", "message": "wrong" }],
            "auditAnnotations": [
                { "key": "said", "valueExpression": "'k is ' + object.data.k" },
                { "key": "silent", "valueExpression": "null" },
            ],
        },
    });
    let binding = json!({
        "metadata": { "name": "b.example.com" },
        "spec": { "policyName": "p.example.com", "validationActions": ["Audit"] },
    });
    let cluster = &audited.cluster;
    cluster.post(&format!("{folder}/validatingadmissionpolicies"), &policy).await.ok();
    cluster.post(&format!("{folder}/validatingadmissionpolicybindings"), &binding).await.ok();
    for attempt in 0..200 {
        let map = json!({ "metadata": { "name": format!("m{attempt}") }, "data": { "k": "left" } });
        let uri = format!("{CONFIG_MAPS}?fieldManager=m{attempt}");
        cluster.post(&uri, &map).await.ok();
        let notes = audited.event("create", &uri).await["annotations"].clone();
        if notes["p.example.com/said"].is_null() {
            // The policy is known a moment later.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        assert_eq!(notes["p.example.com/said"], "k is left");
        assert!(notes["p.example.com/silent"].is_null());
        let failures = notes["validation.policy.admission.k8s.io/validation_failure"].as_str();
        let failures: Value = serde_json::from_str(failures.expect("a note")).expect("JSON");
        assert_eq!(
            failures,
            json!([{ "message": "wrong", "policy": "p.example.com",
            "binding": "b.example.com", "expressionIndex": 0, "validationActions": ["Audit"] }])
        );
        return;
    }
    panic!("the policy must be known soon");
}
