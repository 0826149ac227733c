//! Messages made by prost from the real definitions, read by the table.
#![allow(clippy::unnecessary_wraps, reason = "every field of a message is an Option")]

use k8s_pb::api::core::v1 as core;
use k8s_pb::apimachinery::pkg::api::resource::Quantity;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use k8s_pb::apimachinery::pkg::util::intstr::IntOrString;
use k8s_pb::{api, apimachinery};
use prost::Message;

use super::*;

fn enveloped(api_version: &str, kind: &str, message: &impl Message) -> Vec<u8> {
    let unknown = Unknown {
        type_meta: Some(TypeMeta {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
        }),
        raw: Some(message.encode_to_vec()),
        content_encoding: Some(String::new()),
        content_type: Some(String::new()),
    };
    [b"k8s\0".to_vec(), unknown.encode_to_vec()].concat()
}

fn read_as(api_version: &str, kind: &str, message: &impl Message) -> Value {
    let target = Target::Kind(Gvk::parse(api_version, kind));
    let body = enveloped(api_version, kind, message);
    decode(&body, Format::Protobuf, target, FieldValidation::Strict).unwrap().value
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn named(name: &str) -> Option<meta::ObjectMeta> {
    Some(meta::ObjectMeta {
        name: text(name),
        generate_name: text(""),
        namespace: text("default"),
        uid: text(""),
        creation_timestamp: Some(meta::Time { seconds: Some(0), nanos: Some(0) }),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        generation: Some(0),
        ..Default::default()
    })
}

#[test]
fn a_deployment_as_go_writes_it_reads_as_its_json() {
    let container = core::Container {
        name: text("web"),
        image: text("web:1"),
        tty: Some(false),
        ports: vec![core::ContainerPort { container_port: Some(80), ..Default::default() }],
        resources: Some(core::ResourceRequirements {
            requests: [("cpu".to_owned(), Quantity { string: text("0.1") })].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let deployment = api::apps::v1::Deployment {
        metadata: named("web"),
        spec: Some(api::apps::v1::DeploymentSpec {
            replicas: Some(0),
            min_ready_seconds: Some(0),
            paused: Some(false),
            strategy: Some(api::apps::v1::DeploymentStrategy {
                r#type: text("RollingUpdate"),
                rolling_update: Some(api::apps::v1::RollingUpdateDeployment {
                    max_surge: Some(IntOrString {
                        r#type: Some(1),
                        int_val: Some(0),
                        str_val: text("25%"),
                    }),
                    max_unavailable: Some(IntOrString {
                        r#type: Some(0),
                        int_val: Some(1),
                        str_val: text(""),
                    }),
                }),
            }),
            template: Some(core::PodTemplateSpec {
                metadata: Some(meta::ObjectMeta::default()),
                spec: Some(core::PodSpec {
                    containers: vec![container],
                    termination_grace_period_seconds: Some(0),
                    volumes: vec![core::Volume {
                        name: text("v"),
                        volume_source: Some(core::VolumeSource {
                            empty_dir: Some(core::EmptyDirVolumeSource::default()),
                            ..Default::default()
                        }),
                    }],
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }),
        status: Some(api::apps::v1::DeploymentStatus::default()),
    };
    assert_eq!(
        read_as("apps/v1", "Deployment", &deployment),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "replicas": 0,
                "strategy": {"type": "RollingUpdate",
                             "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
                "template": {"metadata": {}, "spec": {
                    "containers": [{
                        "name": "web", "image": "web:1", "ports": [{"containerPort": 80}],
                        "resources": {"requests": {"cpu": "100m"}}
                    }],
                    "terminationGracePeriodSeconds": 0,
                    "volumes": [{"name": "v", "emptyDir": {}}]
                }}
            },
            "status": {}
        })
    );
}

#[test]
fn bytes_times_and_any_json_are_carried_over() {
    let secret = core::Secret {
        metadata: named("s"),
        data: [("k".to_owned(), vec![0, 255])].into(),
        r#type: text("Opaque"),
        immutable: Some(false),
        ..Default::default()
    };
    let read = read_as("v1", "Secret", &secret);
    assert_eq!(read["data"], json!({"k": "AP8="}));
    assert_eq!((&read["type"], &read["immutable"]), (&json!("Opaque"), &json!(false)));

    let lease = api::coordination::v1::Lease {
        spec: Some(api::coordination::v1::LeaseSpec {
            holder_identity: text("n"),
            renew_time: Some(meta::MicroTime { seconds: Some(1), nanos: Some(2000) }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let read = read_as("coordination.k8s.io/v1", "Lease", &lease);
    assert_eq!(read["spec"]["renewTime"], "1970-01-01T00:00:01.000002Z");

    let raw = apimachinery::pkg::runtime::RawExtension { raw: Some(br#"{"a":[1]}"#.to_vec()) };
    let revision = api::apps::v1::ControllerRevision {
        data: Some(raw),
        revision: Some(0),
        ..Default::default()
    };
    let read = read_as("apps/v1", "ControllerRevision", &revision);
    assert_eq!((&read["data"], &read["revision"]), (&json!({"a": [1]}), &json!(0)));
}

#[test]
fn options_and_reviews_read_too() {
    let options = meta::DeleteOptions {
        grace_period_seconds: Some(0),
        propagation_policy: text("Background"),
        preconditions: Some(meta::Preconditions { uid: text("u"), ..Default::default() }),
        ..Default::default()
    };
    let body = enveloped("v1", "DeleteOptions", &options);
    let target = Target::Options(Type::named(crate::schema::DELETE_OPTIONS).unwrap());
    assert_eq!(
        decode(&body, Format::Protobuf, target, FieldValidation::Strict).unwrap().value,
        json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background",
               "preconditions": {"uid": "u"}})
    );
    let review = api::authorization::v1::SelfSubjectAccessReview {
        spec: Some(api::authorization::v1::SelfSubjectAccessReviewSpec {
            resource_attributes: Some(api::authorization::v1::ResourceAttributes {
                verb: text("get"),
                resource: text("pods"),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let read = read_as("authorization.k8s.io/v1", "SelfSubjectAccessReview", &review);
    assert_eq!(read["spec"], json!({"resourceAttributes": {"verb": "get", "resource": "pods"}}));
}

#[test]
fn texts_wrapped_into_a_message_are_a_list() {
    let user = api::authentication::v1::UserInfo {
        username: text("me"),
        extra: [(
            "scopes".to_owned(),
            api::authentication::v1::ExtraValue { items: vec!["a".into(), "b".into()] },
        )]
        .into(),
        ..Default::default()
    };
    let review = api::authentication::v1::SelfSubjectReview {
        status: Some(api::authentication::v1::SelfSubjectReviewStatus { user_info: Some(user) }),
        ..Default::default()
    };
    let value = read_as("authentication.k8s.io/v1", "SelfSubjectReview", &review);
    assert_eq!(
        value["status"]["userInfo"],
        json!({"username": "me", "extra": {"scopes": ["a", "b"]}})
    );
    let bytes = encode_protobuf(&value).unwrap();
    let target = Target::Kind(Gvk::new("authentication.k8s.io", "v1", "SelfSubjectReview"));
    let again = decode(&bytes, Format::Protobuf, target, FieldValidation::Strict).unwrap().value;
    assert_eq!(again, value);
}

/// A value for every field of a type, down to a depth.
fn filled(schema: &'static Type, depth: usize) -> Value {
    let mut map = serde_json::Map::new();
    fill(schema, depth, &mut map);
    Value::Object(map)
}

fn fill(schema: &'static Type, depth: usize, map: &mut serde_json::Map<String, Value>) {
    for field in schema.own_fields() {
        if let Some(value) = sample(&field.shape, depth) {
            map.insert(field.name.to_owned(), value);
        }
    }
    for (_, inlined) in &schema.inlined {
        fill(inlined.get(), depth, map);
    }
}

fn sample(shape: &crate::schema::Shape, depth: usize) -> Option<Value> {
    use crate::schema::Shape;
    Some(match shape {
        Shape::String => json!("text"),
        Shape::Int32 | Shape::Int64 => json!(-7),
        Shape::Bool | Shape::SchemaOrBool => json!(true),
        Shape::Double => json!(1.5),
        Shape::Bytes => json!("AAECAw=="),
        Shape::Time => json!("2026-01-02T03:04:05Z"),
        Shape::MicroTime => json!("1926-01-02T03:04:05.000007Z"),
        Shape::Quantity => json!("500m"),
        Shape::IntOrString => json!("50%"),
        Shape::Raw | Shape::FieldsV1 => json!({"f:a": {".": {}}}),
        Shape::Wrapped | Shape::SchemaOrStrings => json!(["a", "b"]),
        Shape::SchemaOrArray => json!([{"type": "object"}]),
        Shape::Message(_) if depth == 0 => return None,
        Shape::Message(id) => filled(id.get(), depth - 1),
        Shape::List(inner) => json!([sample(inner, depth)?, sample(inner, depth)?]),
        Shape::Map(inner) => json!({"a": sample(inner, depth)?, "b": sample(inner, depth)?}),
    })
}

#[test]
fn every_kind_survives_protobuf_and_json_with_every_field_set() {
    let mut kinds = 0;
    for schema in Type::all() {
        let Some(gvk) = schema.kind else { continue };
        let mut value = filled(schema, 6);
        value["apiVersion"] = gvk.api_version().into();
        value["kind"] = gvk.kind.into();
        let bytes = encode_protobuf(&value).unwrap();
        let target = Target::Kind(gvk);
        let read = decode(&bytes, Format::Protobuf, target, FieldValidation::Strict).unwrap();
        assert_eq!(read.value, value, "{}", schema.name);
        let conformed = conform(value.clone(), target, FieldValidation::Strict).unwrap();
        assert_eq!(conformed.value, value, "{}", schema.name);
        kinds += 1;
    }
    assert!(kinds > 100, "{kinds}");
}

/// What our writer makes is what prost reads: the tags are those of the real definitions.
#[test]
fn a_pod_with_every_field_set_is_read_by_prost() {
    let pod = Type::of_kind(Gvk::new("", "v1", "Pod")).unwrap();
    let mut value = filled(pod, 6);
    value["apiVersion"] = "v1".into();
    value["kind"] = "Pod".into();
    let bytes = encode_protobuf(&value).unwrap();
    let unknown = Unknown::decode(&bytes[4..]).unwrap();
    let message = core::Pod::decode(unknown.raw.unwrap().as_slice()).unwrap();
    let container = &message.spec.as_ref().unwrap().containers[0];
    assert_eq!(container.name.as_deref(), Some("text"));
    assert_eq!(container.ports[1].container_port, Some(-7));
    let probe = container.liveness_probe.as_ref().unwrap();
    assert_eq!(probe.handler.as_ref().unwrap().grpc.as_ref().unwrap().port, Some(-7));
    assert_eq!(read_as("v1", "Pod", &message), value);
}

#[test]
fn broken_messages_are_refused() {
    let good = enveloped("v1", "Pod", &core::Pod { metadata: named("p"), ..Default::default() });
    for (body, why) in [
        (b"{}".to_vec(), "expected prefix [107 56 115 0]"),
        (good[..good.len() - 9].to_vec(), "proto: "),
        (enveloped("apps/v1", "Deployment", &core::Pod::default()), "unknown conversion"),
        (enveloped("v1", "Nothing", &core::Pod::default()), "no kind \"Nothing\""),
        ([b"k8s\0".as_slice(), &[0xff; 12]].concat(), "proto: "),
    ] {
        let refused = decode(&body, Format::Protobuf, POD, FieldValidation::Strict).unwrap_err();
        assert_eq!(refused.code(), 400);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
}

#[test]
fn numbers_out_of_range_and_endless_nesting_are_refused() {
    // Deployment { 2: spec { 1: replicas = 2^40 } }
    let number = [0x12, 0x07, 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    let refused = read_raw("apps/v1", "Deployment", &number).unwrap_err();
    assert!(refused.contains("overflows the int32 replicas"), "{refused}");
    // A schema within a schema within a schema: `not` of `not`.
    let mut schema = Vec::new();
    for _ in 0..200 {
        let length = prost::length_delimiter_len(schema.len());
        let mut outer = vec![0xe2, 0x01];
        prost::encode_length_delimiter(schema.len(), &mut outer).unwrap();
        assert_eq!(outer.len(), 2 + length);
        outer.extend(schema);
        schema = outer;
    }
    let wrap = |tags: &[u8], inner: Vec<u8>| {
        tags.iter().rev().fold(inner, |inner, tag| {
            let mut outer = vec![*tag];
            prost::encode_length_delimiter(inner.len(), &mut outer).unwrap();
            outer.extend(inner);
            outer
        })
    };
    // spec = 2, versions = 7, schema = 4, openAPIV3Schema = 1
    let deep = wrap(&[0x12, 0x3a, 0x22, 0x0a], schema);
    let refused =
        read_raw("apiextensions.k8s.io/v1", "CustomResourceDefinition", &deep).unwrap_err();
    assert!(refused.contains("nested too deeply"), "{refused}");
}

pub(super) fn read_raw(api_version: &str, kind: &str, raw: &[u8]) -> Result<Value, String> {
    let unknown = Unknown {
        type_meta: Some(TypeMeta { api_version: text(api_version), kind: text(kind) }),
        raw: Some(raw.to_vec()),
        ..Default::default()
    };
    let body = [b"k8s\0".to_vec(), unknown.encode_to_vec()].concat();
    let target = Target::Kind(Gvk::parse(api_version, kind));
    decode(&body, Format::Protobuf, target, FieldValidation::Strict)
        .map(|read| read.value)
        .map_err(|status| status.message().to_owned())
}
