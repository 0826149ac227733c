use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Pod, PodCondition, PodSpec, PodStatus, Service, ServicePort,
    ServiceSpec,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Change, ENDPOINTS_MAX, is_ours, plan, wanted};
use crate::controllers::endpoints::subsets;

fn service(target: IntOrString) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("web-uid".to_owned()),
            labels: Some(BTreeMap::from([("team".to_owned(), "shop".to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: 80,
                protocol: Some("TCP".to_owned()),
                target_port: Some(target),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn pod(number: usize, ready: bool, named_port: i32) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("web-{number}")),
            namespace: Some("default".to_owned()),
            uid: Some(format!("uid-{number}")),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: Some("node-1".to_owned()),
            containers: vec![Container {
                ports: Some(vec![ContainerPort {
                    name: Some("http".to_owned()),
                    container_port: named_port,
                    ..ContainerPort::default()
                }]),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            pod_ip: Some(format!("10.244.{}.{}", number / 250, number % 250)),
            conditions: Some(vec![PodCondition {
                type_: "Ready".to_owned(),
                status: if ready { "True" } else { "False" }.to_owned(),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        }),
    }
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|number| Arc::new(pod(number, true, 8080))).collect()
}

/// Does the changes, as the API would.
fn apply(existing: &mut Vec<Arc<EndpointSlice>>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Create(mut slice) => {
                slice.metadata.name = Some(format!("web-{}", existing.len()));
                existing.push(Arc::new(*slice));
            }
            Change::Update(slice) => {
                let old = existing
                    .iter_mut()
                    .find(|old| old.metadata.name == slice.metadata.name)
                    .unwrap();
                *old = Arc::new(*slice);
            }
            Change::Delete(name) => {
                existing.retain(|slice| slice.metadata.name.as_deref() != Some(&name));
            }
        }
    }
}

fn steps(service: &Service, members: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Vec<Change> {
    plan(service, wanted(service, members, &|_| Some("zone-a".to_owned())), existing)
}

#[test]
fn a_slice_shows_where_the_pods_are_and_whose_it_is() {
    let service = service(IntOrString::Int(8080));
    let mut existing = vec![];
    let changes = steps(&service, &[Arc::new(pod(1, true, 0)), Arc::new(pod(2, false, 0))], &[]);
    apply(&mut existing, changes);
    let [slice] = existing.as_slice() else { panic!("{existing:?}") };
    assert!(is_ours(slice, "web"));
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(slice.metadata.labels.as_ref().unwrap()["team"], "shop");
    assert_eq!(slice.metadata.owner_references.as_ref().unwrap()[0].uid, "web-uid");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("http"), Some(8080)));
    let ready: Vec<_> = slice
        .endpoints
        .iter()
        .map(|endpoint| endpoint.conditions.as_ref().unwrap().ready.unwrap())
        .collect();
    assert_eq!(ready, [true, false]);
    assert_eq!(slice.endpoints[0].zone.as_deref(), Some("zone-a"));
    assert_eq!(slice.endpoints[0].node_name.as_deref(), Some("node-1"));
}

#[test]
fn a_terminating_pod_serves_but_is_not_ready() {
    let service = service(IntOrString::Int(8080));
    let mut leaving = pod(1, true, 0);
    leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let groups = wanted(&service, &[Arc::new(leaving.clone())], &|_| None);
    let conditions = groups.values().next().unwrap()[0].conditions.clone().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
    let mut done = pod(2, true, 0);
    done.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    let groups = wanted(&service, &[Arc::new(done)], &|_| None);
    assert!(groups.values().all(Vec::is_empty), "a pod at its end is no endpoint");
}

#[test]
fn not_ready_addresses_are_ready_where_the_service_publishes_them() {
    let mut service = service(IntOrString::Int(8080));
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    let groups = wanted(&service, &[Arc::new(pod(1, false, 0))], &|_| None);
    let conditions = groups.values().next().unwrap()[0].conditions.clone().unwrap();
    assert_eq!((conditions.ready, conditions.serving), (Some(true), Some(false)));
}

#[test]
fn slices_hold_a_hundred_and_a_second_run_changes_nothing() {
    let service = service(IntOrString::Int(8080));
    let mut existing = vec![];
    apply(&mut existing, steps(&service, &pods(250), &[]));
    let sizes: Vec<usize> = existing.iter().map(|slice| slice.endpoints.len()).collect();
    assert_eq!(sizes, [ENDPOINTS_MAX, ENDPOINTS_MAX, 50]);
    assert_eq!(steps(&service, &pods(250), &existing), []);
}

#[test]
fn one_pod_more_or_less_changes_one_slice() {
    let service = service(IntOrString::Int(8080));
    let mut existing = vec![];
    apply(&mut existing, steps(&service, &pods(150), &[]));
    let more = steps(&service, &pods(151), &existing);
    assert!(matches!(more.as_slice(), [Change::Update(_)]), "{}", more.len());
    let fewer: Vec<Arc<Pod>> = pods(150).into_iter().skip(1).collect();
    assert!(matches!(steps(&service, &fewer, &existing).as_slice(), [Change::Update(_)]));
    let none = steps(&service, &[], &existing);
    apply(&mut existing, none);
    assert_eq!(existing.len(), 1, "one empty slice stays as the answer: nobody");
}

#[test]
fn pods_that_know_a_port_name_by_other_numbers_have_slices_of_their_own() {
    let service = service(IntOrString::String("http".to_owned()));
    let members = [Arc::new(pod(1, true, 8080)), Arc::new(pod(2, true, 9090))];
    let mut existing = vec![];
    apply(&mut existing, steps(&service, &members, &[]));
    let mut numbers: Vec<i32> =
        existing.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [8080, 9090]);
    let changes = steps(&service, &members[..1], &existing);
    assert!(matches!(changes.as_slice(), [Change::Delete(_)]));
}

#[test]
fn endpoints_keep_ready_and_not_ready_addresses_apart() {
    let service = service(IntOrString::Int(8080));
    let mut leaving = pod(3, true, 0);
    leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    let members = [Arc::new(pod(1, true, 0)), Arc::new(pod(2, false, 0)), Arc::new(leaving)];
    let endpoints = subsets::plan(&service, &members, None).unwrap();
    let [subset] = endpoints.subsets.as_deref().unwrap() else { panic!() };
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 1);
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 1);
    assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
    assert_eq!(subsets::plan(&service, &members, Some(&endpoints)), None, "nothing changed");
    let empty = subsets::plan(&service, &[], Some(&endpoints)).unwrap();
    assert_eq!(empty.subsets, None);
}
