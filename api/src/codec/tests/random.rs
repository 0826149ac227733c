//! Whatever comes in: nothing panics, and what is taken once is taken again unchanged.

use proptest::prelude::*;

use super::*;
use crate::patch::{self, PatchType};

/// Names that hit fields, directives and unknown fields alike.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "name",
        "labels",
        "annotations",
        "creationTimestamp",
        "finalizers",
        "ownerReferences",
        "spec",
        "status",
        "replicas",
        "template",
        "containers",
        "volumes",
        "hostPath",
        "env",
        "value",
        "ports",
        "containerPort",
        "resources",
        "requests",
        "cpu",
        "strategy",
        "rollingUpdate",
        "maxSurge",
        "type",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "unknown",
    ])
    .prop_map(str::to_owned)
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "b",
            "1Gi",
            "50%",
            "delete",
            "replace",
            "merge",
            "2026-01-02T03:04:05Z",
            "apps/v1",
            "Deployment"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object with trees where an object has its parts.
fn object() -> impl Strategy<Value = Value> {
    (tree(), tree(), tree()).prop_map(|(metadata, spec, containers)| {
        let mut spec = spec;
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("template".into(), json!({"spec": {"containers": containers}}));
        }
        json!({"metadata": metadata, "spec": spec})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_taken_once_is_taken_again_unchanged(value in object()) {
        if let Ok(read) = conform(value, DEPLOYMENT, FieldValidation::Warn) {
            let again = conform(read.value.clone(), DEPLOYMENT, FieldValidation::Strict);
            prop_assert_eq!(again.unwrap().value, read.value.clone());
            let bytes = encode_protobuf(&read.value).unwrap();
            prop_assert!(decode(&bytes, Format::Protobuf, DEPLOYMENT, FieldValidation::Strict).is_ok());
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in ".{0,200}") {
        for format in [Format::Json, Format::Yaml, Format::Protobuf] {
            let _ = decode(text.as_bytes(), format, POD, FieldValidation::Strict);
        }
    }

    #[test]
    fn no_bytes_make_the_protobuf_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..400,
    ) {
        let body = [b"k8s\0".to_vec(), bytes.clone()].concat();
        let _ = decode(&body, Format::Protobuf, POD, FieldValidation::Strict);
        let raw = protobuf::read_raw("v1", "Pod", &bytes);
        prop_assert!(raw.is_ok() || raw.unwrap_err().starts_with("Pod in version"));
        let good = encode_protobuf(&json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": {"a": "b"}}})).unwrap();
        let _ = decode(&good[..cut.min(good.len())], Format::Protobuf, POD, FieldValidation::Strict);
    }

    #[test]
    fn no_patch_makes_the_merge_panic(current in object(), change in object()) {
        let schema = Type::of_kind(Gvk::new("apps", "v1", "Deployment"));
        for patch_type in [PatchType::Strategic, PatchType::Merge, PatchType::Json] {
            let _ = patch::apply(patch_type, &current, &change, schema);
        }
    }

    #[test]
    fn an_object_patched_with_itself_stays_as_it_is(value in object()) {
        let schema = Type::of_kind(Gvk::new("apps", "v1", "Deployment"));
        // Conformed: without directives and nulls, as the store has it.
        if let Ok(read) = conform(value, DEPLOYMENT, FieldValidation::Ignore)
            && let Ok(patched) = patch::apply(PatchType::Strategic, &read.value, &read.value, schema)
        {
            let again = patch::apply(PatchType::Strategic, &patched, &patched, schema).unwrap();
            prop_assert_eq!(again, patched);
        }
    }
}
