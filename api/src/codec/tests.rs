use std::fmt::Write as _;

use serde_json::json;

use super::*;

mod protobuf;
mod random;

const DEPLOYMENT: Target<'static> = Target::Kind(Gvk::new("apps", "v1", "Deployment"));
const POD: Target<'static> = Target::Kind(Gvk::new("", "v1", "Pod"));

fn read(body: &str, target: Target<'_>, validation: FieldValidation) -> Result<Decoded, String> {
    decode(body.as_bytes(), Format::Json, target, validation).map_err(|s| s.message().to_owned())
}

fn refusal(body: &Value, target: Target<'_>) -> String {
    let refused = read(&body.to_string(), target, FieldValidation::Strict).unwrap_err();
    let prefix = format!(
        "{} in version \"v1\" cannot be handled as a {}: ",
        body["kind"].as_str().unwrap(),
        match target {
            Target::Kind(gvk) => gvk.kind,
            Target::Options(schema) => schema.go_name(),
        }
    );
    refused.strip_prefix(&prefix).unwrap_or_else(|| panic!("{refused}")).to_owned()
}

fn deployment(spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

#[test]
fn unknown_fields_are_refused_warned_of_or_dropped() {
    let body = deployment(&json!({
        "foo": 1, "replicas": 2,
        "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x"}]}}
    }));
    assert_eq!(
        refusal(&body, DEPLOYMENT),
        "strict decoding error: unknown field \"spec.foo\", \
         unknown field \"spec.template.spec.containers[1].imagee\""
    );
    let warned = read(&body.to_string(), DEPLOYMENT, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings.len(), 2);
    assert_eq!(warned.warnings[0], "unknown field \"spec.foo\"");
    assert_eq!(warned.value.pointer("/spec/foo"), None);
    assert_eq!(warned.value["spec"]["replicas"], 2);
    let ignored = read(&body.to_string(), DEPLOYMENT, FieldValidation::Ignore).unwrap();
    assert_eq!(ignored, Decoded { warnings: vec![], ..warned });
}

#[test]
fn fields_given_twice_are_found_in_json_and_yaml() {
    let body = r#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1,"replicas":2}}"#;
    let refused = read(body, DEPLOYMENT, FieldValidation::Strict).unwrap_err();
    assert!(refused.ends_with("strict decoding error: duplicate field \"spec.replicas\""));
    let warned = read(body, DEPLOYMENT, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings, ["duplicate field \"spec.replicas\""]);
    assert_eq!(warned.value["spec"]["replicas"], 2);
    let yaml = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    name: b\n";
    let read = decode(yaml.as_bytes(), Format::Yaml, POD, FieldValidation::Warn).unwrap();
    assert_eq!(read.warnings, ["line 6: key \"name\" already set in map"]);
    let strict = decode(yaml.as_bytes(), Format::Yaml, POD, FieldValidation::Strict).unwrap_err();
    let all =
        "strict decoding error: yaml: unmarshal errors:\n  line 6: key \"name\" already set in map";
    assert!(strict.message().ends_with(all), "{}", strict.message());
}

#[test]
fn values_of_another_type_are_refused_in_gos_words() {
    let cases = [
        (
            json!({"replicas": "3"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of \
             type int32",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas \
             of type int32",
        ),
        (
            json!({"template": {"spec": {"containers": {"name": "a"}}}}),
            "json: cannot unmarshal object into Go struct field \
             PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 1}]}]}}}),
            "json: cannot unmarshal number into Go struct field \
             EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            json!({"template": {"metadata": {"labels": {"a": true}}}}),
            "json: cannot unmarshal bool into Go struct field \
             ObjectMeta.spec.template.metadata.labels of type string",
        ),
        (
            json!({"template": {"spec": {"containers": [{"resources":
                {"limits": {"cpu": "a lot"}}}]}}}),
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"strategy": {"rollingUpdate": {"maxSurge": true}}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(refusal(&deployment(&spec), DEPLOYMENT), expected);
    }
}

#[test]
fn nulls_are_dropped_and_values_put_into_their_canonical_form() {
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"creationTimestamp": null, "deletionTimestamp": "2026-01-02T03:04:05.6+01:00",
                     "labels": {"a": null}},
        "spec": {"containers": [{"name": "a", "args": null, "resources":
            {"requests": {"cpu": "0.1", "memory": 1024, "x": "1024Mi"}}}]}
    });
    let read = read(&body.to_string(), POD, FieldValidation::Strict).unwrap().value;
    assert_eq!(
        read["metadata"],
        json!({"deletionTimestamp": "2026-01-02T02:04:05Z", "labels": {"a": ""}})
    );
    assert_eq!(
        read["spec"]["containers"],
        json!([{"name": "a", "resources":
            {"requests": {"cpu": "100m", "memory": "1024", "x": "1Gi"}}}])
    );
}

#[test]
fn inlined_fields_and_any_json_are_kept() {
    let volume = json!({"name": "v", "hostPath": {"path": "/x"}, "source": 1});
    let body = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"volumes": [volume]}});
    assert_eq!(
        refusal(&body, POD),
        "strict decoding error: unknown field \"spec.volumes[0].source\""
    );
    let revision = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1,
                          "data": {"any": [null, {"thing": 1}]}});
    let target = Target::Kind(Gvk::new("apps", "v1", "ControllerRevision"));
    let read = read(&revision.to_string(), target, FieldValidation::Strict).unwrap();
    assert_eq!(read.value, revision);
}

#[test]
fn the_kind_is_filled_in_or_must_fit() {
    let read_as = |body: Value| read(&body.to_string(), DEPLOYMENT, FieldValidation::Strict);
    let filled = read_as(json!({"metadata": {"name": "d"}})).unwrap().value;
    assert_eq!((&filled["apiVersion"], &filled["kind"]), (&json!("apps/v1"), &json!("Deployment")));
    for (body, message) in [
        (
            json!({"apiVersion": "v1", "kind": "Pod"}),
            "Pod in version \"v1\" cannot be handled as a Deployment: converting (v1.Pod) to \
             (apps.Deployment): unknown conversion",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Foo"}),
            "Foo in version \"v1\" cannot be handled as a Deployment: no kind \"Foo\" is \
             registered for version \"apps/v1\" in scheme \
             \"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30\"",
        ),
    ] {
        assert_eq!(read_as(body).unwrap_err(), message);
    }
    let event = Target::Kind(Gvk::new("", "v1", "Event"));
    let body = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event"});
    assert_eq!(
        read(&body.to_string(), event, FieldValidation::Strict).unwrap_err(),
        "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)"
    );
}

#[test]
fn what_cannot_be_read_at_all_is_refused_with_a_look_at_it() {
    for (body, message) in [
        ("", "unexpected end of JSON input (<empty>)"),
        ("{\"a\":", "unexpected end of JSON input ({\"a\":)"),
        ("<html>", "(3c68746d6c3e)"),
        ("[]", "cannot unmarshal array into Go value of type struct"),
    ] {
        let refused = read(body, DEPLOYMENT, FieldValidation::Strict).unwrap_err();
        assert!(refused.starts_with(
            "the object provided is unrecognized (must be of type Deployment): couldn't get \
             version/kind; json parse error: "
        ));
        assert!(refused.contains(message), "{refused}");
    }
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    assert!(read(&deep, DEPLOYMENT, FieldValidation::Ignore).unwrap_err().contains("recursion"));
    let large = " ".repeat(BODY_BYTES_MAX + 1);
    let refused = decode(large.as_bytes(), Format::Json, POD, FieldValidation::Ignore).unwrap_err();
    assert_eq!(refused.code(), 413);
    assert_eq!(Format::of_content_type("text/plain").unwrap_err().code(), 415);
}

#[test]
fn delete_options_may_name_any_group() {
    let options = Target::Options(Type::named(crate::schema::DELETE_OPTIONS).unwrap());
    for body in [
        json!({"propagationPolicy": "Background"}),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}),
    ] {
        let read = read(&body.to_string(), options, FieldValidation::Strict).unwrap();
        assert_eq!(read.value, json!({"propagationPolicy": "Background"}));
    }
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": "1"});
    assert_eq!(
        refusal(&body, options),
        "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of \
         type int64"
    );
}

#[test]
fn yaml_reads_as_json_does() {
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\n  labels: {1: a}\nspec:\n  replicas: 2\n---\nkind: second\n";
    let read = decode(yaml.as_bytes(), Format::Yaml, DEPLOYMENT, FieldValidation::Strict).unwrap();
    assert_eq!(
        read.value,
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
               "metadata": {"name": "d", "labels": {"1": "a"}}, "spec": {"replicas": 2}})
    );
    let broken = decode(b"a: [", Format::Yaml, POD, FieldValidation::Strict).unwrap_err();
    assert!(broken.message().contains("yaml: "), "{}", broken.message());
}

#[test]
fn yaml_that_repeats_itself_without_end_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let list = [below.as_str(); 9].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{list}]").unwrap();
    }
    let refused = decode(bomb.as_bytes(), Format::Yaml, POD, FieldValidation::Ignore).unwrap_err();
    assert!(refused.message().contains("yaml: "), "{}", refused.message());
}
