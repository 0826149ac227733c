//! What the API lets whom do, found out by trying. What would write is a dry run.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::target::{Answer, Target};
use super::{Finding, Item, Verdict};

const ANONYMOUS: Item = Item { id: "1.2.1", title: "Requests without credentials are refused" };
const KUBELET_IDENTITY: Item =
    Item { id: "1.2.4", title: "The API shows nodes a client certificate of its own" };
const NOT_ALWAYS_ALLOW: Item =
    Item { id: "1.2.6", title: "Not everything is allowed to everybody" };
const NODE: Item = Item { id: "1.2.7", title: "The Node authorizer bounds what nodes read" };
const RBAC: Item = Item { id: "1.2.8", title: "RBAC decides what is allowed" };
const NOT_ALWAYS_ADMIT: Item = Item { id: "1.2.10", title: "Not everything is admitted" };
const SERVICE_ACCOUNT: Item = Item { id: "1.2.12", title: "Pods get their service account" };
const LIFECYCLE: Item =
    Item { id: "1.2.13", title: "Nothing is made in a namespace that is not there" };
const NODE_RESTRICTION: Item = Item { id: "1.2.14", title: "A node cannot change another node" };
const PROFILING: Item = Item { id: "1.2.15", title: "Profiling is not served" };
const LOOKUP: Item = Item { id: "1.2.21", title: "Tokens that nobody issued are refused" };

const NODES: &str = "system:nodes";
const DRY_RUN: &str = "dryRun=All";

/// Tries the items that the API itself answers for.
pub(super) async fn check(target: &Target) -> anyhow::Result<Vec<Finding>> {
    let mut findings = vec![
        anonymous(&target.get_as_nobody(NAMESPACES, None).await?),
        refused(
            LOOKUP,
            StatusCode::UNAUTHORIZED,
            &target.get_as_nobody(NAMESPACES, Some("kontiki-check")).await?,
        ),
        refused(PROFILING, StatusCode::NOT_FOUND, &target.get("/debug/pprof/").await?),
    ];
    let stranger = ("kontiki:check", "system:authenticated");
    let answer = target.ask_as(stranger, Method::GET, SECRETS, None).await?;
    findings.push(refused(NOT_ALWAYS_ALLOW, StatusCode::FORBIDDEN, &answer));
    let node = ("system:node:kontiki-check", NODES);
    let answer = target.ask_as(node, Method::GET, SECRETS, None).await?;
    findings.push(refused(NODE, StatusCode::FORBIDDEN, &answer));
    findings.push(rbac(target).await?);
    findings.extend(admission(target).await?);
    findings.push(kubelet(target).await?);
    Ok(findings)
}

const NAMESPACES: &str = "/api/v1/namespaces";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// An item that holds where something is refused with that code.
fn refused(item: Item, code: StatusCode, answer: &Answer) -> Finding {
    item.judge(answer.code == code, answer.said())
}

/// What a binding gives is allowed; that it is not to others, 1.2.6 shows.
async fn rbac(target: &Target) -> anyhow::Result<Finding> {
    let user = "system:kube-scheduler";
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": { "user": user, "resourceAttributes": { "verb": "list", "resource": "pods" } },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let is_allowed = target.post(path, &review).await?.document["status"]["allowed"] == true;
    let path = format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{user}");
    let binding = target.get(&path).await?;
    let may = if is_allowed { "may" } else { "may not" };
    let said = format!("{user} {may} list pods; its ClusterRoleBinding: {}", binding.said());
    Ok(RBAC.judge(is_allowed && binding.code.is_success(), said))
}

/// As nobody known, one is refused; not to be anybody at all is better.
fn anonymous(answer: &Answer) -> Finding {
    match answer.code {
        StatusCode::FORBIDDEN => ANONYMOUS.found(Verdict::Warn, answer.said()),
        _ => refused(ANONYMOUS, StatusCode::UNAUTHORIZED, answer),
    }
}

async fn admission(target: &Target) -> anyhow::Result<Vec<Finding>> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "kontiki-check" },
        "spec": { "containers": [{ "name": "a", "image": "a" }] },
    });
    let path = format!("/api/v1/namespaces/default/pods?{DRY_RUN}");
    let answer = target.post(&path, &pod).await?;
    let account = answer.document["spec"]["serviceAccountName"].as_str().unwrap_or_default();
    let said = match account {
        "" => answer.said(),
        account => format!("a pod without one got {account}"),
    };
    let mut findings = vec![SERVICE_ACCOUNT.judge(!account.is_empty(), said)];
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "kontiki-check" },
    });
    let path = format!("/api/v1/namespaces/kontiki-check-is-nowhere/configmaps?{DRY_RUN}");
    let answer = target.post(&path, &map).await?;
    findings.push(refused(LIFECYCLE, StatusCode::NOT_FOUND, &answer));
    // What a plugin refuses was not admitted by one that admits everything.
    findings.push(NOT_ALWAYS_ADMIT.judge(!answer.code.is_success(), answer.said()));
    findings.push(node_restriction(target).await?);
    Ok(findings)
}

async fn node_restriction(target: &Target) -> anyhow::Result<Finding> {
    let nodes = target.get("/api/v1/nodes?limit=1").await?;
    let Some(name) = nodes.document["items"][0]["metadata"]["name"].as_str() else {
        return Ok(NODE_RESTRICTION.found(Verdict::Info, "there is no node to try it on"));
    };
    let patch = json!({ "metadata": { "labels": { "kontiki.dev/check": "tried" } } });
    let path = format!("/api/v1/nodes/{name}?{DRY_RUN}");
    let other = ("system:node:kontiki-check", NODES);
    let answer = target.ask_as(other, Method::PATCH, &path, Some(&patch)).await?;
    Ok(refused(NODE_RESTRICTION, StatusCode::FORBIDDEN, &answer))
}

/// Agents let nobody in without a certificate; so where the API gets through, it has shown one.
async fn kubelet(target: &Target) -> anyhow::Result<Finding> {
    let nodes = target.get(NODES_PATH).await?;
    let ready = |node: &&Value| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let known: Vec<&str> = target.file.agents.iter().map(|agent| agent.name.as_str()).collect();
    let is_own =
        |node: &&Value| node["metadata"]["name"].as_str().is_some_and(|name| known.contains(&name));
    let mut all = nodes.document["items"].as_array().into_iter().flatten();
    let Some(node) = all.find(|node| ready(node) && is_own(node)) else {
        return Ok(KUBELET_IDENTITY.found(Verdict::Info, "there is no agent that is ready"));
    };
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let answer = target.get(&format!("{NODES_PATH}/{name}/proxy/pods")).await?;
    let said = format!("its request for the pods of {name}: {}", answer.said());
    Ok(KUBELET_IDENTITY.judge(answer.code.is_success(), said))
}

const NODES_PATH: &str = "/api/v1/nodes";
