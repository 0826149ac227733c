//! Kinds of which every operation is promised: flow control and admission policies.

use anyhow::Result;
use serde_json::{Value, json};

use super::operations::{self, Kind};
use crate::cases;
use crate::world::World;

cases! {
    "[sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]"
        => flow_schemas,
    "[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]"
        => priority_levels,
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations [Conformance]"
        => policies,
    "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations [Conformance]"
        => bindings,
}

async fn flow_schemas(world: World) -> Result<()> {
    let kind = Kind {
        version: "flowcontrol.apiserver.k8s.io/v1",
        plural: "flowschemas",
        object: flow_schema,
        patch: || json!({"spec": {"matchingPrecedence": 9999}}),
        condition: Some(|| condition("Tried")),
    };
    operations::all(&world, &kind).await
}

fn flow_schema() -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "spec": {
            "matchingPrecedence": 10000,
            "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "nobody-of-conformance"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        },
    })
}

async fn priority_levels(world: World) -> Result<()> {
    let kind = Kind {
        version: "flowcontrol.apiserver.k8s.io/v1",
        plural: "prioritylevelconfigurations",
        object: priority_level,
        patch: || json!({"spec": {"limited": {"nominalConcurrencyShares": 4}}}),
        condition: Some(|| condition("Tried")),
    };
    operations::all(&world, &kind).await
}

fn priority_level() -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "spec": {
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}},
        },
    })
}

fn condition(kind: &str) -> Value {
    json!({
        "type": kind, "status": "False", "reason": "Conformance", "message": "patched",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

async fn policies(world: World) -> Result<()> {
    let kind = Kind {
        version: "admissionregistration.k8s.io/v1",
        plural: "validatingadmissionpolicies",
        object: policy,
        patch: || json!({"spec": {"failurePolicy": "Ignore"}}),
        condition: Some(|| condition("Tried")),
    };
    operations::all(&world, &kind).await
}

/// One that no binding puts in force.
fn policy() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"], "resources": ["deployments"],
            }]},
            "validations": [{"expression": "object.spec.replicas <= 100"}],
        },
    })
}

async fn bindings(world: World) -> Result<()> {
    let kind = Kind {
        version: "admissionregistration.k8s.io/v1",
        plural: "validatingadmissionpolicybindings",
        object: binding,
        patch: || json!({"spec": {"validationActions": ["Warn"]}}),
        condition: None,
    };
    operations::all(&world, &kind).await
}

/// One of a policy that there is not.
fn binding() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "spec": {"policyName": "none-of-conformance", "validationActions": ["Deny"]},
    })
}
