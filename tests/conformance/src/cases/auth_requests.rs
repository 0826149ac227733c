//! Certificate signing requests, and questions about what one may do.

use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::{Patch, refused};
use crate::cases;
use crate::pods::discovered;
use crate::world::{World, condition, items, name_of, same};

const SOON: Duration = Duration::from_secs(60);
const CERTIFICATES: &str = "certificates.k8s.io/v1";
const REQUESTS: &str = "certificatesigningrequests";

cases! {
    "[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]"
        => requests,
    "[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]"
        => reviews,
}

/// A request for a certificate, as any program makes it.
const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHjMIGKAgEAMCgxFDASBgNVBAMMC2UyZS1leGFtcGxlMRAwDgYDVQQKDAdleGFt
cGxlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZVTPLU1Ort3tfbZm0LDt2gcZ
vFmsLsda0PubBJYajPlYnxsLnerActIJcS3kjqOqzQ1bUNs4B7EkY3uEu2vAmqAA
MAoGCCqGSM49BAMCA0gAMEUCIGYCoP79BQAsbWi9/7mdoAk+YfEyUBydmG4tjIHK
K+IlAiEArFl64AfFQZhsXTkWqS5V+PQBIcFuWGeDzyEzJ5GoXmg=
-----END CERTIFICATE REQUEST-----
";

/// A certificate, signed by nobody that matters.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBpDCCAUugAwIBAgIUGn0MsyrKQGLTkISAZz6ZCJCeZ1gwCgYIKoZIzj0EAwIw
KDEUMBIGA1UEAwwLZTJlLWV4YW1wbGUxEDAOBgNVBAoMB2V4YW1wbGUwHhcNMjYx
MTMwMTY1NzIwWhcNMzYxMTI3MTY1NzIwWjAoMRQwEgYDVQQDDAtlMmUtZXhhbXBs
ZTEQMA4GA1UECgwHZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABGVU
zy1NTq7d7X22ZtCw7doHGbxZrC7HWtD7mwSWGoz5WJ8bC53qwHLSCXEt5I6jqs0N
W1DbOAexJGN7hLtrwJqjUzBRMB0GA1UdDgQWBBTHJNAvBkFHZICqCkC5ujVUD053
xjAfBgNVHSMEGDAWgBTHJNAvBkFHZICqCkC5ujVUD053xjAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCIBpZaUiRW+G0Gphw5vFIJJAKQF5Xuo7QfSCj
qmK5acyOAiA85gnrWp8/pM06vThMtMw4QmQRFp6aOMV5RF0UslixHg==
-----END CERTIFICATE-----
";

async fn requests(world: World) -> Result<()> {
    let all = world.global(CERTIFICATES, REQUESTS, "");
    let chosen = format!("{all}?labelSelector=test%3D{}", world.ns);
    let result = request(&world, &all, &chosen).await;
    world.api.delete(&chosen).await?;
    result
}

async fn request(world: &World, all: &str, chosen: &str) -> Result<()> {
    let subs = [REQUESTS, &format!("{REQUESTS}/approval"), &format!("{REQUESTS}/status")];
    discovered(world, CERTIFICATES, &subs).await?;
    let mut watch = world.api.watch(chosen).await?;
    let object = json!({
        "metadata": {"generateName": "example-csr-", "labels": {"test": world.ns}},
        "spec": {
            "request": BASE64_STANDARD.encode(REQUEST),
            "signerName": format!("example.com/{}", world.ns),
            "expirationSeconds": 3600,
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    });
    let made = world.api.create(all, &object).await?;
    world.api.create(all, &object).await?;
    world.api.create(all, &object).await?;
    let path = format!("{all}/{}", name_of(&made));
    same("found", &world.api.get(&path).await?, &made)?;
    same("listed", &json!(items(&world.api.get(chosen).await?).len()), &json!(3))?;
    let first = |csr: &Value| name_of(csr) == name_of(&made);
    watch.expect("ADDED", SOON, first).await?;
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    world.api.patch(&path, Patch::Merge, &patch).await?;
    let updated = world
        .api
        .update(&path, |csr| csr["metadata"]["annotations"]["updated"] = json!("true"))
        .await?;
    let annotations = json!({"patched": "true", "updated": "true"});
    same("annotations", &updated["metadata"]["annotations"], &annotations)?;
    let is_updated = |csr: &Value| csr["metadata"]["annotations"] == annotations;
    watch.expect("MODIFIED", SOON, is_updated).await?;
    approve(world, &path).await?;
    certify(world, &path).await?;
    world.api.delete(&path).await?;
    refused(world.api.get(&path).await, 404, "NotFound")?;
    watch.expect("DELETED", SOON, first).await?;
    same("left", &json!(items(&world.api.get(chosen).await?).len()), &json!(2))?;
    world.api.delete(chosen).await?;
    same("left", &json!(items(&world.api.get(chosen).await?).len()), &json!(0))
}

/// Adds a condition through a subresource.
async fn add_condition(world: &World, path: &str, kind: &str) -> Result<Value> {
    let added = json!({"type": kind, "status": "True", "reason": "Test", "message": "added"});
    let add = |csr: &mut Value| match csr["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(added.clone()),
        None => csr["status"]["conditions"] = json!([added]),
    };
    let updated = world.api.update(path, add).await?;
    same(kind, &json!(condition(&updated, kind)), &json!("True"))?;
    Ok(updated)
}

async fn approve(world: &World, path: &str) -> Result<()> {
    let approval = format!("{path}/approval");
    same("approval", &world.api.get(&approval).await?, &world.api.get(path).await?)?;
    let patch = json!({
        "metadata": {"annotations": {"patchedapproval": "true"}},
        "status": {"conditions": [{
            "type": "ApprovalPatch", "status": "True", "reason": "Test", "message": "patched",
        }]},
    });
    let patched = world.api.patch(&approval, Patch::Merge, &patch).await?;
    same("patched", &json!(condition(&patched, "ApprovalPatch")), &json!("True"))?;
    same("annotation", &patched["metadata"]["annotations"]["patchedapproval"], &json!("true"))?;
    add_condition(world, &approval, "Approved").await?;
    // Only an approval approves.
    let status = format!("{path}/status");
    let denied = json!([{"type": "Denied", "status": "True", "reason": "Test"}]);
    let mut csr = world.api.get(&status).await?;
    csr["status"]["conditions"] = denied;
    refused(world.api.replace(&status, &csr).await, 422, "Invalid").map(drop)
}

async fn certify(world: &World, path: &str) -> Result<()> {
    let status = format!("{path}/status");
    same("status", &world.api.get(&status).await?, &world.api.get(path).await?)?;
    let certificate = json!(BASE64_STANDARD.encode(CERTIFICATE));
    let patch = json!({
        "metadata": {"annotations": {"patchedstatus": "true"}},
        "status": {"certificate": certificate},
    });
    let patched = world.api.patch(&status, Patch::Merge, &patch).await?;
    same("certificate", &patched["status"]["certificate"], &certificate)?;
    same("annotation", &patched["metadata"]["annotations"]["patchedstatus"], &json!("true"))?;
    let updated = add_condition(world, &status, "StatusUpdate").await?;
    same("approved as before", &json!(condition(&updated, "Approved")), &json!("True"))
}

const AUTHORIZATION: &str = "authorization.k8s.io/v1";

/// Lets an account get configurations of its namespace.
async fn let_read(world: &World, account: &str) -> Result<()> {
    let version = "rbac.authorization.k8s.io/v1";
    let role = json!({
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
    });
    world.create(version, "roles", &role).await?;
    let binding = json!({
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": world.ns}],
    });
    world.create(version, "rolebindings", &binding).await.map(drop)
}

/// Each kind of review gives the same answer: an administrator's question about another, in all
/// namespaces and in this one, and the other's question about itself.
async fn reviews(world: World) -> Result<()> {
    let account = json!({"metadata": {"name": "asker"}});
    world.create("v1", "serviceaccounts", &account).await?;
    let_read(&world, "asker").await?;
    for (verb, allowed) in [("get", true), ("delete", false)] {
        let asked = json!({
            "group": "", "version": "v1", "resource": "configmaps", "verb": verb,
            "namespace": world.ns,
        });
        let user = format!("system:serviceaccount:{}:asker", world.ns);
        let about = json!({"spec": {"resourceAttributes": asked, "user": user}});
        let path = world.global(AUTHORIZATION, "subjectaccessreviews", "");
        // The role may be known a little later than it is made.
        let mut answer = world.api.create(&path, &about).await?;
        for _ in 0..50 {
            if answer["status"]["allowed"] == allowed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            answer = world.api.create(&path, &about).await?;
        }
        same(&format!("{verb}, of another"), &answer["status"]["allowed"], &json!(allowed))?;
        let local = json!({
            "metadata": {"namespace": world.ns},
            "spec": {"resourceAttributes": asked, "user": user},
        });
        let answer = world.create(AUTHORIZATION, "localsubjectaccessreviews", &local).await?;
        same(&format!("{verb}, here"), &answer["status"]["allowed"], &json!(allowed))?;
        let own = of_itself(&world, &user, &asked).await?;
        same(&format!("{verb}, of itself"), &own["status"]["allowed"], &json!(allowed))?;
    }
    Ok(())
}

async fn of_itself(world: &World, user: &str, asked: &Value) -> Result<Value> {
    let review = json!({
        "apiVersion": AUTHORIZATION, "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    });
    let path = world.global(AUTHORIZATION, "selfsubjectaccessreviews", "");
    let of_namespace = format!("system:serviceaccounts:{}", world.ns);
    let headers = [
        ("content-type", "application/json"),
        ("impersonate-user", user),
        ("impersonate-group", "system:authenticated"),
        ("impersonate-group", "system:serviceaccounts"),
        ("impersonate-group", &of_namespace),
    ];
    let body = review.to_string().into_bytes();
    let answer = world.api.send(Method::POST, &path, &headers, Some(body)).await?;
    same("code", &json!(answer.code), &json!(201))?;
    Ok(answer.json())
}
