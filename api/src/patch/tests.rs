use serde_json::json;

use super::*;
use crate::schema::Gvk;

fn pod() -> Option<&'static Type> {
    Type::of_kind(Gvk::new("", "v1", "Pod"))
}

fn strategic(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    apply(PatchType::Strategic, current, patch, pod())
}

/// Each case patches the `spec` of a pod.
fn check(name: &str, current: &Value, patch: &Value, expected: &Value) {
    let patched = strategic(&json!({"spec": current}), &json!({"spec": patch}));
    assert_eq!(patched, Ok(json!({"spec": expected})), "{name}");
}

#[test]
fn lists_of_maps_are_merged_by_their_key() {
    let two = json!({"containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "b:1", "command": ["x", "y"]}
    ]});
    check(
        "an element is changed, the rest stays",
        &two,
        &json!({"containers": [{"name": "b", "image": "b:2"}]}),
        &json!({"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "b:2", "command": ["x", "y"]}
        ]}),
    );
    check(
        "a list within an element is merged too, one without a strategy is replaced",
        &two,
        &json!({"containers": [
            {"name": "a", "env": [{"name": "Y", "value": "2"}]},
            {"name": "b", "command": ["z"]}
        ]}),
        &json!({"containers": [
            {"name": "a", "image": "a:1",
             "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
            {"name": "b", "image": "b:1", "command": ["z"]}
        ]}),
    );
    check(
        "an element is added, before the live ones as Kubernetes does without an order",
        &json!({"containers": [{"name": "a"}]}),
        &json!({"containers": [{"name": "c", "image": null}]}),
        &json!({"containers": [{"name": "c"}, {"name": "a"}]}),
    );
    check(
        "null removes a field",
        &two,
        &json!({"containers": [{"name": "b", "command": null}], "nodeName": null}),
        &json!({"containers": [
            {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]},
            {"name": "b", "image": "b:1"}
        ]}),
    );
}

#[test]
fn directives_in_elements_delete_and_replace() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check(
        "delete",
        &two,
        &json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        &json!({"containers": [{"name": "b"}]}),
    );
    check(
        "delete of what is not there",
        &two,
        &json!({"containers": [{"name": "z", "$patch": "delete"}]}),
        &two,
    );
    check(
        "replace",
        &two,
        &json!({"containers": [{"name": "c", "image": null}, {"$patch": "replace"}]}),
        &json!({"containers": [{"name": "c"}]}),
    );
    check(
        "merge is what happens without it",
        &two,
        &json!({"containers": [{"name": "b", "image": "i", "$patch": "merge"}]}),
        &json!({"containers": [{"name": "a"}, {"name": "b", "image": "i"}]}),
    );
    check(
        "in a list that is new they only go",
        &json!({}),
        &json!({"containers": [{"name": "a"}, {"name": "b", "$patch": "delete"}]}),
        &json!({"containers": [{"name": "a"}]}),
    );
}

#[test]
fn directives_in_maps_delete_and_replace() {
    let context = json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}});
    check(
        "replace",
        &context,
        &json!({"securityContext": {"$patch": "replace", "runAsGroup": 3}}),
        &json!({"securityContext": {"runAsGroup": 3}}),
    );
    check(
        "delete",
        &context,
        &json!({"securityContext": {"$patch": "delete"}}),
        &json!({"securityContext": {}}),
    );
    check(
        "merge",
        &context,
        &json!({"securityContext": {"$patch": "merge", "fsGroup": null}}),
        &json!({"securityContext": {"runAsUser": 1}}),
    );
}

#[test]
fn the_order_of_elements_is_that_of_the_patch() {
    let three = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    check(
        "reordered",
        &three,
        &json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}),
        &json!({"containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}),
    );
    check(
        "added in the middle and at the end",
        &json!({"containers": [{"name": "a"}, {"name": "c"}]}),
        &json!({
            "$setElementOrder/containers":
                [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}],
            "containers": [{"name": "b"}, {"name": "d"}]
        }),
        &json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]}),
    );
    check(
        "what only the server has keeps its place before those it was before",
        &json!({"containers": [{"name": "sidecar"}, {"name": "a"}, {"name": "b"}]}),
        &json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b", "image": "i"}]
        }),
        &json!({"containers": [{"name": "sidecar"}, {"name": "b", "image": "i"}, {"name": "a"}]}),
    );
    check(
        "as kubectl apply deletes an element",
        &three,
        &json!({
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            "containers": [{"name": "b", "$patch": "delete"}]
        }),
        &json!({"containers": [{"name": "a"}, {"name": "c"}]}),
    );
    check(
        "nothing there, nothing ordered",
        &json!({}),
        &json!({"$setElementOrder/containers": [{"name": "a"}]}),
        &json!({}),
    );
}

#[test]
fn only_retained_keys_stay() {
    let current = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    check(
        "one source of a volume gives way to another",
        &current,
        &json!({"volumes":
            [{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]}),
        &json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
    let deployment = Type::of_kind(Gvk::new("apps", "v1", "Deployment"));
    let patched = apply(
        PatchType::Strategic,
        &json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        &json!({"spec": {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}}),
        deployment,
    );
    assert_eq!(patched, Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
}

#[test]
fn scalars_are_added_once_and_deleted_by_a_directive() {
    let meta = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    let current = meta(json!(["a", "b"]));
    let cases = [
        (json!({"finalizers": ["b", "c"]}), json!(["a", "b", "c"])),
        (json!({"$deleteFromPrimitiveList/finalizers": ["a"]}), json!(["b"])),
        (
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
                   "$setElementOrder/finalizers": ["b", "c"]}),
            json!(["b", "c"]),
        ),
        (json!({"$setElementOrder/finalizers": ["b", "a"]}), json!(["b", "a"])),
    ];
    for (patch, expected) in cases {
        let patched = strategic(&current, &json!({ "metadata": patch.clone() }));
        assert_eq!(patched, Ok(meta(expected)), "{patch}");
    }
}

#[test]
fn maps_of_texts_merge_and_atomic_lists_are_replaced() {
    let current = json!({
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"tolerations": [{"key": "x"}], "nodeSelector": {"n": "1"}}
    });
    let patch = json!({
        "metadata": {"labels": {"b": null, "c": "3"}, "annotations": {"k": "v", "n": null}},
        "spec": {"tolerations": [{"key": "y"}]}
    });
    assert_eq!(
        strategic(&current, &patch),
        Ok(json!({
            "metadata": {"labels": {"a": "1", "c": "3"}, "annotations": {"k": "v"}},
            "spec": {"tolerations": [{"key": "y"}], "nodeSelector": {"n": "1"}}
        }))
    );
}

#[test]
fn a_wrong_strategic_patch_names_the_field_and_the_reason() {
    let current = json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}});
    for (patch, why) in [
        (
            json!({"containers": [{"image": "i"}]}),
            "invalid strategic merge patch at spec.containers: map does not contain declared merge \
             key: name",
        ),
        (
            json!({"containers": [{"$patch": "delete"}]}),
            "invalid strategic merge patch at spec.containers: map does not contain declared merge \
             key: name",
        ),
        (
            json!({"$patch": "forget"}),
            "invalid strategic merge patch at spec: unknown patch type \"forget\"",
        ),
        (
            json!({"containers": ["a"]}),
            "invalid strategic merge patch at spec.containers: a list must not have both maps and \
             other values",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "$retainKeys": ["name"]}]}),
            "invalid strategic merge patch at spec.volumes.[name=\"v\"]: \"emptyDir\" is set but \
             not in $retainKeys",
        ),
        (
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}),
            "invalid strategic merge patch at spec.containers: the patch's list and its \
             $setElementOrder do not match",
        ),
        (
            json!({"$setElementOrder/tolerations": []}),
            "invalid strategic merge patch at spec.tolerations: $setElementOrder orders lists that \
             are merged; this is not",
        ),
        (
            json!({"$deleteFromPrimitiveList/containers": 1}),
            "invalid strategic merge patch at spec.containers: $deleteFromPrimitiveList must be a \
             list",
        ),
    ] {
        let refused = strategic(&current, &json!({ "spec": patch.clone() }));
        assert_eq!(refused, Err(PatchError::Malformed(why.to_owned())), "{patch}");
    }
}

#[test]
fn a_merge_patch_merges_maps_and_replaces_lists() {
    let current = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    let body = br#"{"a":{"b":null,"d":3},"l":[9]}"#;
    let patch = PatchType::Merge.read(body, FieldValidation::Strict).unwrap().value;
    assert_eq!(
        apply(PatchType::Merge, &current, &patch, None),
        Ok(json!({"a": {"c": 2, "d": 3}, "l": [9]}))
    );
}

#[test]
fn a_json_patch_is_carried_out_in_order_or_not_at_all() {
    let current = json!({"spec": {"replicas": 1}});
    let run = |operations: Value| apply(PatchType::Json, &current, &operations, None);
    assert_eq!(
        run(json!([
            {"op": "test", "path": "/spec/replicas", "value": 1},
            {"op": "replace", "path": "/spec/replicas", "value": 2},
            {"op": "add", "path": "/spec/paused", "value": true},
        ])),
        Ok(json!({"spec": {"replicas": 2, "paused": true}}))
    );
    let failed = run(json!([{"op": "test", "path": "/spec/replicas", "value": 9}])).unwrap_err();
    assert_eq!(
        failed,
        PatchError::Untrue("testing value /spec/replicas failed: test failed".to_owned())
    );
    assert_eq!(Status::from(failed).code(), 422);
    let missing = run(json!([{"op": "remove", "path": "/spec/nothing"}])).unwrap_err();
    assert!(missing.to_string().contains("/spec/nothing"), "{missing}");
    let unknown = run(json!([{"op": "jump", "path": "/spec"}])).unwrap_err();
    assert_eq!(Status::from(unknown).code(), 400);
    let none_left = run(json!([{"op": "replace", "path": "", "value": 1}])).unwrap_err();
    assert!(matches!(none_left, PatchError::Rejected(_)));
}

#[test]
fn a_json_patch_is_bounded_in_operations_and_in_copies() {
    let test = json!({"op": "test", "path": "/a", "value": "x"});
    let many = Value::Array(vec![test; OPERATIONS_MAX + 1]);
    let refused = apply(PatchType::Json, &json!({"a": "x"}), &many, None).unwrap_err();
    assert_eq!(Status::from(refused).code(), 413);
    // Each copy doubles the list: thirty of them would be a gigabyte.
    let copy = json!({"op": "copy", "from": "/l", "path": "/l/-"});
    let bomb = Value::Array(vec![copy; 40]);
    let refused = apply(PatchType::Json, &json!({"l": ["x"]}), &bomb, None).unwrap_err();
    assert!(matches!(refused, PatchError::TooLarge(_)), "{refused}");
}

#[test]
fn a_body_that_is_no_patch_is_refused() {
    for (patch_type, body) in
        [(PatchType::Json, "{}"), (PatchType::Merge, "[]"), (PatchType::Strategic, "x")]
    {
        let refused = patch_type.read(body.as_bytes(), FieldValidation::Warn).unwrap_err();
        assert!(refused.to_string().starts_with("error decoding patch: "), "{refused}");
        assert_eq!(Status::from(refused).code(), 400);
    }
    let named = PatchType::of_content_type("application/merge-patch+json; charset=utf-8");
    assert_eq!(named, Some(PatchType::Merge));
    assert_eq!(PatchType::of_content_type("application/apply-patch+yaml"), None);
}

#[test]
fn fields_given_twice_in_a_patch_are_refused_warned_of_or_dropped() {
    let merge = br#"{"spec":{"paused":true,"paused":false}}"#;
    let json = br#"[{"op":"remove","op":"test","path":"/a","value":1}]"#;
    for (patch_type, body, twice) in [
        (PatchType::Strategic, merge.as_slice(), "duplicate field \"spec.paused\""),
        (PatchType::Json, json.as_slice(), "json patch duplicate field \"[0].op\""),
    ] {
        let refused = patch_type.read(body, FieldValidation::Strict).unwrap_err();
        assert_eq!(refused.to_string(), format!("strict decoding error: {twice}"));
        assert_eq!(patch_type.read(body, FieldValidation::Warn).unwrap().warnings, [twice]);
        assert_eq!(patch_type.read(body, FieldValidation::Ignore).unwrap().warnings.len(), 0);
    }
}
