use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

/// A pod that has been running and ready for an hour, with a request of 1000m.
fn pod(index: usize, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": format!("p{index}") },
        "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
        "status": {
            "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
            "conditions": [{
                "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z",
            }],
        },
    });
    change(&mut pod);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods(count: usize) -> Vec<Arc<Pod>> {
    (0..count).map(|index| pod(index, |_| {})).collect()
}

fn samples(values: &[i64]) -> Samples {
    let sample = |value| Sample { value, at: now(), window: SignedDuration::from_secs(10) };
    values.iter().enumerate().map(|(index, value)| (format!("p{index}"), sample(*value))).collect()
}

const USUAL: Tolerances = Tolerances { up: 0.1, down: 0.1 };

fn basis(pods: &[Arc<Pod>]) -> Basis<'_> {
    let current = i32::try_from(pods.len()).unwrap();
    Basis { current, pods, tolerances: USUAL, now: now() }
}

fn wanted(pods: &[Arc<Pod>], values: &[i64], target: i32) -> Result<i32, String> {
    let found = for_utilization(&basis(pods), samples(values), target, "cpu", None);
    found.map(|proposal| proposal.replicas)
}

#[test]
fn use_above_and_below_the_target_scales_and_use_near_it_does_not() {
    for (values, target, expected) in [
        (&[300, 500, 700][..], 30, 5),
        (&[100, 100, 100], 50, 1),
        (&[320, 320, 320], 30, 3),
        (&[280, 280, 280], 30, 3),
        (&[900, 900, 900], 30, 9),
    ] {
        assert_eq!(wanted(&pods(3), values, target), Ok(expected), "{values:?} {target}");
    }
    let found = for_utilization(&basis(&pods(2)), samples(&[300, 500]), 50, "cpu", None).unwrap();
    assert_eq!((found.utilization, found.value), (Some(40), 400));
}

#[test]
fn tolerances_of_an_autoscaler_go_before_the_usual_ones() {
    let pods = pods(3);
    let with = |tolerances| {
        let basis = Basis { tolerances, ..basis(&pods) };
        for_utilization(&basis, samples(&[320, 320, 320]), 30, "cpu", None).unwrap().replicas
    };
    assert_eq!(with(Tolerances { up: 0.05, down: 0.1 }), 4);
    assert_eq!(with(Tolerances { up: 0.07, down: 0.0 }), 3);
}

#[test]
fn pods_without_figures_hold_the_scale_back_in_either_direction() {
    // Upwards the missing one is held for idle.
    assert_eq!(wanted(&pods(3), &[900, 900], 50), Ok(4));
    // Downwards for one that uses all it asked for.
    assert_eq!(wanted(&pods(3), &[100, 100], 50), Ok(3));
    // Where that would turn the direction nothing happens.
    assert_eq!(wanted(&pods(4), &[400], 30), Ok(4));
}

#[test]
fn pods_that_are_not_ready_count_for_nothing_on_the_way_up_and_not_at_all_downwards() {
    let unready = |index| {
        pod(index, |pod| {
            pod["status"]["startTime"] = json!("2026-01-01T00:59:00Z");
            pod["status"]["conditions"][0] = json!({
                "type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:59:00Z",
            });
        })
    };
    let mut some = pods(2);
    some.push(unready(2));
    assert_eq!(wanted(&some, &[900, 900, 900], 60), Ok(3));
    assert_eq!(wanted(&some, &[1500, 1500, 9], 60), Ok(5));
    assert_eq!(wanted(&some, &[100, 100, 9000], 50), Ok(1));
    let none: Vec<_> = (0..2).map(unready).collect();
    let why = "did not receive metrics for targeted pods (pods might be unready)";
    assert_eq!(wanted(&none, &[900, 900], 50), Err(why.to_owned()));
}

#[test]
fn a_sample_from_before_a_pod_was_ready_does_not_count_while_it_is_young() {
    let young = pod(0, |pod| {
        pod["status"]["startTime"] = json!("2026-01-01T00:58:00Z");
        pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:59:55Z");
    });
    let sample = samples(&[1])["p0"];
    assert!(!counts(&young, &sample, now()));
    let later = Sample { at: now() + SignedDuration::from_secs(5), ..sample };
    assert!(counts(&young, &later, now()));
    // An older pod that was ready once works, though it is not ready now.
    let older = pod(0, |pod| {
        pod["status"]["conditions"][0]["status"] = json!("False");
        pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:40:00Z");
    });
    assert!(counts(&older, &sample, now()));
    let never = pod(0, |pod| {
        pod["status"]["conditions"][0]["status"] = json!("False");
        pod["status"]["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:00:10Z");
    });
    assert!(!counts(&never, &sample, now()));
}

#[test]
fn failed_and_terminating_pods_are_left_out() {
    let mut all = pods(2);
    all.push(pod(2, |pod| pod["status"]["phase"] = json!("Failed")));
    all.push(pod(3, |pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:00Z");
    }));
    assert_eq!(wanted(&all, &[1000, 1000, 0, 0], 50), Ok(4));
}

#[test]
fn a_container_without_a_request_is_named() {
    let all = vec![pod(0, |pod| pod["spec"]["containers"][0]["resources"] = json!({}))];
    let why = "missing request for cpu in container c of Pod p0";
    assert_eq!(wanted(&all, &[5], 50), Err(why.to_owned()));
    assert_eq!(request(&pods(1)[0], "cpu", Some("c")), Ok(1000));
    assert_eq!(request(&pods(1)[0], "cpu", Some("other")), Ok(0));
}

#[test]
fn sidecars_count_among_the_requests_and_a_pods_own_request_goes_before_them() {
    let init = |policy: Value| {
        pod(0, |pod| {
            pod["spec"]["initContainers"] = json!([{
                "name": "i", "restartPolicy": policy, "resources": { "requests": { "cpu": "500m" } },
            }]);
        })
    };
    assert_eq!(request(&init(json!("Always")), "cpu", None), Ok(1500));
    assert_eq!(request(&init(Value::Null), "cpu", None), Ok(1000));
    let whole = pod(0, |pod| pod["spec"]["resources"] = json!({ "requests": { "cpu": "3" } }));
    assert_eq!(request(&whole, "cpu", None), Ok(3000));
}

#[test]
fn averages_values_and_shares_ask_for_replicas() {
    let pods = pods(3);
    let average = for_average(&basis(&pods), samples(&[10_000, 20_000, 30_000]), 10_000, "");
    assert_eq!(average.map(|found| (found.replicas, found.value)), Ok((6, 20_000)));
    let value = |value, target| for_value(&basis(&pods), value, target).map(|found| found.replicas);
    assert_eq!(value(20_000, 10_000), Ok(6));
    assert_eq!(value(10_500, 10_000), Ok(3));
    let empty = Basis { current: 0, ..basis(&pods) };
    assert_eq!(for_value(&empty, 25_000, 10_000).map(|found| found.replicas), Ok(3));
    let share = |value, target| for_share(&basis(&pods), 3, value, target);
    assert_eq!(share(100_000, 20_000).replicas, 5);
    assert_eq!(share(61_000, 20_000).replicas, 3);
}
