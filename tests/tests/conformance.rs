//! What kubectl expects of an API server, told by kubectl itself: every kubectl on the path, against
//! the API server over a store in memory. No other part of Kontiki runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use kontiki::kubeconfig::Kubeconfig;
use kontiki::pki::{Authority, Profile};
use kontiki_api::server::{ApiConfig, ApiServer};
use kontiki_api::tls;
use kontiki_storage::local::LocalKv;
use kontiki_tests::kubectl::Kubectl;
use kontiki_tests::requirements;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        env: [{name: A, value: "1"}]
        resources: {requests: {cpu: 100m}}
      - {name: sidecar, image: sidecar:1}
"#;

/// An API server that serves until this is dropped.
struct Served {
    folder: TempDir,
    _stop: DropGuard,
    _runtime: Runtime,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime must start");
        let folder = tempfile::tempdir().expect("a temporary folder must be had");
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        runtime.block_on(serve(folder.path(), stop));
        Self { folder, _stop: guard, _runtime: runtime }
    }

    /// Every kubectl, each with its own cache.
    fn kubectls(&self) -> Vec<Kubectl> {
        Kubectl::all(&self.folder.path().join("kubeconfig"))
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("the manifest must be written");
        path.to_string_lossy().into_owned()
    }
}

async fn serve(folder: &Path, stop: CancellationToken) {
    let authority = Authority::create("conformance").expect("an authority must be made");
    let ca_pem = authority.cert_pem().to_owned();
    let config = ApiConfig { client_ca_pem: Some(ca_pem.clone()), ..ApiConfig::default() };
    let api = ApiServer::new(Arc::new(LocalKv::in_memory()), config).expect("must be made");
    api.bootstrap(&api.client()).await.expect("a store in memory takes the first objects");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("must listen");
    let address = listener.local_addr().expect("must have an address");
    let hosts = ["127.0.0.1".to_owned()];
    let serving = authority.issue(&Profile::api_server(&hosts)).expect("must be issued");
    let tls = tls::server_config(&serving.cert_pem, &serving.key_pem).expect("must be a pair");
    let identity = authority.issue(&Profile::admin()).expect("must be issued");
    let kubeconfig = Kubeconfig { server: format!("https://{address}"), ca_pem, identity };
    fs::write(folder.join("kubeconfig"), kubeconfig.render("conformance"))
        .expect("must be written");
    tokio::spawn(async move { api.serve(listener, Arc::new(tls), stop).await });
}

/// Runs the story with each kubectl, or leaves it out where there is none.
fn with_each_kubectl(story: impl Fn(&Served, &Kubectl)) {
    if !requirements::met(&["kubectl"], false) {
        return;
    }
    let served = Served::start();
    for kubectl in served.kubectls() {
        story(&served, &kubectl);
    }
}

#[test]
fn apply_creates_changes_and_leaves_alone() {
    with_each_kubectl(|served, kubectl| {
        let applied = kubectl.apply(DEPLOYMENT).expect("must be created");
        assert_eq!(applied.trim(), "deployment.apps/web created");
        let again = kubectl.apply(DEPLOYMENT).expect("must be taken");
        assert_eq!(again.trim(), "deployment.apps/web unchanged");
        kubectl.ok(&["set", "image", "deployment/web", "sidecar=sidecar:2"]);

        // A variable is renamed, and what another command set is taken back.
        let changed = DEPLOYMENT.replace("name: A, value: \"1\"", "name: B, value: \"2\"");
        let changed = changed.replace("image: web:1", "image: web:3");
        kubectl.apply(&changed).expect("must be taken");
        let read = kubectl.json(&["get", "deployment", "web"]);
        let containers = &read["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers[0]["image"], "web:3");
        assert_eq!(containers[0]["env"], serde_json::json!([{"name": "B", "value": "2"}]));
        assert_eq!(containers[0]["resources"]["requests"]["cpu"], "100m");
        assert_eq!(containers[1]["name"], "sidecar");
        assert_eq!(containers[1]["image"], "sidecar:1", "apply takes back what it set");

        let path = served.file("changed.yaml", &changed);
        let diff = kubectl.run(&["diff", "-f", &path]);
        let printed = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert!(!printed.contains("web:"), "{printed}");
        kubectl.ok(&["delete", "-f", &path]);
    });
}

#[test]
fn server_side_apply_owns_its_fields_and_is_told_of_those_of_others() {
    with_each_kubectl(|served, kubectl| {
        let path = served.file("owned.yaml", DEPLOYMENT);
        let apply = |path: &str, more: &[&str]| {
            kubectl.attempt(&[&["apply", "--server-side", "-f", path], more].concat())
        };
        let applied = apply(&path, &[]).expect("must be created");
        assert_eq!(applied.trim(), "deployment.apps/web serverside-applied");
        let first = kubectl.json(&["get", "deployment", "web", "--show-managed-fields"]);
        apply(&path, &[]).expect("must be taken again");
        let second = kubectl.json(&["get", "deployment", "web", "--show-managed-fields"]);
        assert_eq!(first, second, "the same again changes nothing");
        let entry = &first["metadata"]["managedFields"][0];
        assert_eq!((&entry["manager"], &entry["operation"]), (&"kubectl".into(), &"Apply".into()));

        // Another manager has an opinion on one field, and this one gives another up.
        let changed = DEPLOYMENT.replace("replicas: 2", "replicas: 3");
        let changed = changed.replace("      - {name: sidecar, image: sidecar:1}\n", "");
        let changed = served.file("changed.yaml", &changed);
        let refused = apply(&changed, &["--field-manager=other"]).expect_err("must be refused");
        let told = "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas";
        assert!(refused.contains(told), "{refused}");
        apply(&changed, &["--field-manager=other", "--force-conflicts"]).expect("must be forced");
        kubectl.ok(&["scale", "deployment", "web", "--replicas=4"]);
        let refused = apply(&path, &[]).expect_err("must be refused");
        assert!(
            refused.contains("conflict with \"kubectl\" with subresource \"scale\""),
            "{refused}"
        );
        let one = DEPLOYMENT.replace("  replicas: 2\n", "");
        let one = one.replace("      - {name: sidecar, image: sidecar:1}\n", "");
        let one = served.file("one.yaml", &one);
        apply(&one, &[]).expect("must be taken");
        let read = kubectl.json(&["get", "deployment", "web"]);
        assert_eq!(read["spec"]["replicas"], 4, "what was scaled stays");
        let containers = read["spec"]["template"]["spec"]["containers"].as_array();
        assert_eq!(containers.map(Vec::len), Some(1), "{read}");
        kubectl.ok(&["delete", "deployment", "web"]);
    });
}

#[test]
fn an_object_of_client_side_apply_is_taken_over_by_server_side_apply() {
    with_each_kubectl(|served, kubectl| {
        kubectl.apply(DEPLOYMENT).expect("must be created");
        let changed = DEPLOYMENT.replace("replicas: 2", "replicas: 5");
        let changed = changed.replace("        env: [{name: A, value: \"1\"}]\n", "");
        let path = served.file("taken.yaml", &changed);
        kubectl.ok(&["apply", "--server-side", "-f", &path]);
        let read = kubectl.json(&["get", "deployment", "web", "--show-managed-fields"]);
        assert_eq!(read["spec"]["replicas"], 5);
        let container = &read["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container.get("env"), None, "what was applied before and is no more goes");
        let managers: Vec<&str> = read["metadata"]["managedFields"]
            .as_array()
            .expect("there must be managers")
            .iter()
            .filter_map(|entry| entry["manager"].as_str())
            .collect();
        assert!(managers.contains(&"kubectl"), "{read}");
        assert!(!managers.contains(&"kubectl-client-side-apply"), "{read}");
        kubectl.ok(&["delete", "deployment", "web"]);
    });
}

const WIDGETS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.conformance.example.com}
spec:
  group: conformance.example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    schema:
      openAPIV3Schema:
        description: A widget of the conformance test.
        type: object
        properties:
          spec:
            description: What is wanted.
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, description: How large it is.}
              color: {type: string, default: red}
";

const WIDGET: &str = "apiVersion: conformance.example.com/v1\nkind: Widget\n\
                      metadata: {name: one}\nspec: {size: 3}\n";

#[test]
fn a_custom_kind_is_used_like_any_other() {
    with_each_kubectl(|served, kubectl| {
        kubectl.apply(WIDGETS).expect("must be created");
        let definition = "crd/widgets.conformance.example.com";
        kubectl.ok(&["wait", "--for=condition=established", "--timeout=10s", definition]);
        let applied = kubectl.apply(WIDGET).expect("must be created");
        assert_eq!(applied.trim(), "widget.conformance.example.com/one created");
        let again = kubectl.apply(WIDGET).expect("must be taken");
        assert_eq!(again.trim(), "widget.conformance.example.com/one unchanged");
        let shown = kubectl.ok(&["get", "wd"]);
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["NAME", "SIZE"], ["one", "3"]]);
        assert!(kubectl.ok(&["get", "all"]).contains("widget.conformance.example.com/one"));
        let explained = kubectl.ok(&["explain", "widget.spec"]);
        for text in ["size\t<integer> -required-", "How large it is.", "What is wanted."] {
            assert!(explained.contains(text), "{text} is missing in {explained}");
        }
        kubectl.ok(&["patch", "wd", "one", "--type=merge", "-p", r#"{"spec":{"size":4}}"#]);
        let read = kubectl.json(&["get", "wd", "one"]);
        assert_eq!(read["spec"], serde_json::json!({ "size": 4, "color": "red" }));
        assert_eq!(read["metadata"]["generation"], 2);
        let unknown = WIDGET.replace("size: 3", "size: 3, heft: 1");
        let refused = kubectl.apply(&unknown).expect_err("must be refused");
        assert!(refused.contains("unknown field \"spec.heft\""), "{refused}");
        let small = WIDGET.replace("size: 3", "size: 0");
        let refused = kubectl.apply(&small).expect_err("must be refused");
        let why = "spec.size in body should be greater than or equal to 1";
        assert!(refused.contains(why), "{refused}");
        let path = served.file("widget.yaml", WIDGET);
        let applied = kubectl.ok(&["apply", "--server-side", "--force-conflicts", "-f", &path]);
        assert_eq!(applied.trim(), "widget.conformance.example.com/one serverside-applied");
        kubectl.ok(&["delete", "wd", "one"]);
        // No controller runs here that would see to the end of the definition.
        kubectl.ok(&["delete", definition, "--wait=false"]);
        let free = r#"{"metadata":{"finalizers":null}}"#;
        kubectl.ok(&["patch", definition, "--type=merge", "-p", free]);
    });
}

#[test]
fn wrong_manifests_are_refused_with_the_field_and_the_reason() {
    with_each_kubectl(|served, kubectl| {
        let unknown = DEPLOYMENT.replace("replicas: 2", "replicas: 2\n  foo: 1");
        let refused = kubectl.apply(&unknown).expect_err("must be refused");
        assert!(refused.contains("strict decoding error: unknown field \"spec.foo\""), "{refused}");
        let path = served.file("unknown.yaml", &unknown);
        let refused = kubectl.refused(&["create", "-f", &path]);
        assert!(refused.contains("unknown field \"spec.foo\""), "{refused}");

        let text = DEPLOYMENT.replace("replicas: 2", "replicas: two");
        let refused = kubectl.apply(&text).expect_err("must be refused");
        assert!(
            refused.contains(
                "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of \
                 type int32"
            ),
            "{refused}"
        );

        let warned = kubectl.run(&["create", "--validate=warn", "-f", &path]);
        let complaint = String::from_utf8_lossy(&warned.stderr).into_owned();
        assert!(complaint.contains("Warning: unknown field \"spec.foo\""), "{complaint}");
        let read = kubectl.json(&["get", "deployment", "web"]);
        assert_eq!(read["spec"].get("foo"), None);
        kubectl.ok(&["delete", "deployment", "web"]);
    });
}

#[test]
fn protobuf_bodies_of_typed_commands_are_understood() {
    with_each_kubectl(|_, kubectl| {
        kubectl.ok(&["create", "deployment", "typed", "--image=typed:1", "--replicas=0"]);
        let read = kubectl.json(&["get", "deployment", "typed"]);
        assert_eq!(read["spec"]["replicas"], 0);
        assert_eq!(read["spec"]["template"]["spec"]["containers"][0]["image"], "typed:1");
        kubectl.ok(&["scale", "deployment", "typed", "--replicas=4"]);
        let scaled = kubectl.ok(&["get", "deployment", "typed", "-o", "jsonpath={.spec.replicas}"]);
        assert_eq!(scaled, "4");
        let described = kubectl.ok(&["describe", "deployment", "typed"]);
        assert!(described.contains("4 desired"), "{described}");
        kubectl.ok(&["create", "secret", "generic", "typed", "--from-literal=key=value"]);
        let data = kubectl.ok(&["get", "secret", "typed", "-o", "jsonpath={.data.key}"]);
        assert_eq!(data, "dmFsdWU=");
        kubectl.ok(&["delete", "deployment/typed", "secret/typed"]);
    });
}

#[test]
fn each_kind_of_patch_is_carried_out() {
    with_each_kubectl(|_, kubectl| {
        kubectl.apply(DEPLOYMENT).expect("must be created");
        let patch = |kind: &str, patch: &str| {
            kubectl.attempt(&["patch", "deployment", "web", "--type", kind, "-p", patch])
        };
        patch("merge", r#"{"spec":{"replicas":7}}"#).expect("must be taken");
        let containers = r#"{"spec":{"template":{"spec":{"containers":
            [{"name":"sidecar","$patch":"delete"},{"name":"web","image":"web:9"}]}}}}"#;
        patch("strategic", containers).expect("must be taken");
        patch("json", r#"[{"op":"remove","path":"/spec/template/spec/containers/0/env"}]"#)
            .expect("must be taken");
        let read = kubectl.json(&["get", "deployment", "web"]);
        assert_eq!(read["spec"]["replicas"], 7);
        let containers = &read["spec"]["template"]["spec"]["containers"];
        assert_eq!(containers.as_array().map(Vec::len), Some(1));
        assert_eq!(containers[0]["image"], "web:9");
        assert_eq!(containers[0].get("env"), None);

        let failed = patch("json", r#"[{"op":"test","path":"/spec/replicas","value":1}]"#);
        let failed = failed.expect_err("must be refused");
        // Upstream says no more of it either.
        assert!(failed.contains("rejected our request due to an error in our request"), "{failed}");
        let nameless = patch("strategic", r#"{"spec":{"template":{"spec":{"containers":[{}]}}}}"#);
        let nameless = nameless.expect_err("must be refused");
        assert!(nameless.contains("does not contain declared merge key: name"), "{nameless}");
        kubectl.ok(&["delete", "deployment", "web"]);
    });
}

#[test]
fn resources_of_every_group_can_be_explained_to_the_last_field() {
    with_each_kubectl(|_, kubectl| {
        let resources = kubectl.ok(&["api-resources", "--no-headers", "-o", "name"]);
        assert!(resources.lines().any(|line| line == "deployments.apps"), "{resources}");
        // One resource of each group: each group has a document of its own.
        let mut groups = BTreeMap::new();
        for resource in resources.lines() {
            let group = resource.split_once('.').map_or("", |(_, group)| group);
            groups.entry(group).or_insert(resource);
        }
        for (group, resource) in groups {
            // Of events and nodes there are two groups, and kubectl takes the name for the older one.
            let newer = match group {
                "events.k8s.io" => Some(("events", "--api-version=events.k8s.io/v1")),
                "metrics.k8s.io" => Some(("nodes", "--api-version=metrics.k8s.io/v1beta1")),
                _ => None,
            };
            let explained = match newer {
                Some((name, version)) => kubectl.ok(&["explain", name, version, "--recursive"]),
                None => kubectl.ok(&["explain", resource, "--recursive"]),
            };
            assert!(explained.contains("metadata\t<ObjectMeta>"), "{resource}: {explained}");
        }
        let containers = kubectl.ok(&["explain", "pod.spec.containers"]);
        for text in ["containers <[]Container>", "imagePullPolicy\t<string>", "Image pull policy."]
        {
            assert!(containers.contains(text), "{text} is missing in {containers}");
        }
        let port = kubectl.ok(&["explain", "service.spec.ports.targetPort"]);
        assert!(port.contains("<IntOrString>"), "{port}");
        let missing = kubectl.refused(&["explain", "pod.spec.nothing"]);
        assert!(missing.contains("field \"nothing\" does not exist"), "{missing}");
    });
}

#[test]
fn a_manifest_of_many_objects_is_read_from_standard_input() {
    with_each_kubectl(|_, kubectl| {
        let manifest = "apiVersion: v1\nkind: List\nitems:\n\
                        - {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {a: b}}\n\
                        - {apiVersion: v1, kind: ConfigMap, metadata: {name: two}}\n\
                        ---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: three}}\n";
        kubectl.apply(manifest).expect("must be taken");
        let mut delete = kubectl.command(&["delete", "-f", "-"]);
        let mut child =
            delete.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("was asked for");
        std::io::Write::write_all(&mut stdin, manifest.as_bytes()).expect("kubectl reads");
        drop(stdin);
        let output = child.wait_with_output().expect("ends");
        let printed = String::from_utf8_lossy(&output.stdout);
        for name in ["one", "two", "three"] {
            assert!(printed.contains(&format!("configmap \"{name}\" deleted")), "{printed}");
        }
    });
}

#[test]
fn an_object_over_the_stores_limit_is_refused_and_not_there() {
    with_each_kubectl(|served, kubectl| {
        let huge = "x".repeat((3 << 20) / 2);
        let manifest = DEPLOYMENT.replace("value: \"1\"", &format!("value: \"{huge}\""));
        let file = served.file("huge.yaml", &manifest);
        let refusal = kubectl.refused(&["create", "-f", &file]);
        assert!(
            refusal.contains("Error from server (RequestEntityTooLarge)")
                && refusal.contains("Request entity too large: limit is"),
            "{refusal}"
        );
        assert!(kubectl.refused(&["get", "deployment", "web"]).contains("NotFound"));
    });
}
