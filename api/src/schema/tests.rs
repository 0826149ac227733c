use super::*;

fn field(kind: Gvk<'_>, path: &[&str]) -> &'static Field {
    let mut found = None;
    let mut current = Type::of_kind(kind).unwrap();
    for name in path {
        let field = current.field(name).unwrap_or_else(|| panic!("no {name} in {}", current.name));
        current = field.element().unwrap_or(current);
        found = Some(field);
    }
    found.unwrap()
}

const POD: Gvk<'static> = Gvk::new("", "v1", "Pod");
const DEPLOYMENT: Gvk<'static> = Gvk::new("apps", "v1", "Deployment");

#[test]
fn a_pods_containers_are_merged_by_name() {
    let containers = field(POD, &["spec", "containers"]);
    assert_eq!(containers.list, ListType::Map(&["name"]));
    assert_eq!(containers.merge_key, Some("name"));
    assert!(containers.patch.merge && containers.required);
    assert_eq!(containers.shape.go_type(), "[]v1.Container");
}

#[test]
fn a_volume_has_the_fields_of_its_source() {
    let volumes = field(POD, &["spec", "volumes"]);
    assert!(volumes.patch.merge && volumes.patch.retain_keys);
    assert_eq!(field(POD, &["spec", "volumes", "hostPath", "path"]).shape, Shape::String);
}

#[test]
fn zero_replicas_differ_from_none() {
    assert!(field(DEPLOYMENT, &["spec", "replicas"]).pointer);
    assert!(!field(DEPLOYMENT, &["spec", "minReadySeconds"]).pointer);
    assert!(field(DEPLOYMENT, &["spec", "strategy"]).patch.retain_keys);
}

#[test]
fn every_stable_group_has_its_kinds() {
    for (group, kind) in [
        ("", "Pod"),
        ("", "PodList"),
        ("", "Binding"),
        ("apps", "StatefulSet"),
        ("batch", "CronJob"),
        ("autoscaling", "Scale"),
        ("policy", "Eviction"),
        ("authentication.k8s.io", "TokenRequest"),
        ("authorization.k8s.io", "SelfSubjectAccessReview"),
        ("networking.k8s.io", "Ingress"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("storage.k8s.io", "StorageClass"),
        ("coordination.k8s.io", "Lease"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("events.k8s.io", "Event"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("resource.k8s.io", "ResourceClaim"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("apiregistration.k8s.io", "APIService"),
        ("certificates.k8s.io", "CertificateSigningRequest"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("node.k8s.io", "RuntimeClass"),
    ] {
        assert!(Type::of_kind(Gvk::new(group, "v1", kind)).is_some(), "{group} {kind}");
    }
    assert!(Type::of_kind(Gvk::new("autoscaling", "v2", "HorizontalPodAutoscaler")).is_some());
    assert!(Type::of_kind(Gvk::new("apps", "v1", "Nothing")).is_none());
    assert!(Type::named(DELETE_OPTIONS).is_some() && Type::named(STATUS).is_some());
}

#[test]
fn tags_and_names_are_unique_in_each_type() {
    for kind in Type::all() {
        let mut tags: Vec<u32> = kind.own_fields().iter().map(|f| f.tag).collect();
        tags.extend(kind.inlined.iter().map(|(tag, _)| *tag));
        let count = tags.len();
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), count, "{}", kind.name);
    }
}
