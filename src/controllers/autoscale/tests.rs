use k8s_openapi::api::autoscaling::v2::MetricStatus;
use serde_json::json;

use super::evaluate::{Evaluated, Failed};
use super::*;

#[expect(clippy::unnecessary_wraps, reason = "it stands beside `failed`")]
fn found(replicas: i32, name: &str) -> Result<Evaluated, Failed> {
    Ok(Evaluated { replicas, name: name.to_owned(), status: MetricStatus::default() })
}

fn failed(message: &str) -> Result<Evaluated, Failed> {
    Err(Failed {
        reason: "FailedGetPodsMetric",
        message: message.to_owned(),
        prefix: "failed to get pods metric value".to_owned(),
    })
}

fn asked(results: Vec<Result<Evaluated, Failed>>, current: i32) -> (Asked, String) {
    let mut conditions =
        Conditions::of(&HorizontalPodAutoscalerStatus::default(), Timestamp::UNIX_EPOCH);
    let asked = together(results, current, &mut conditions);
    let list = conditions.into_list().unwrap();
    (asked, list[0].reason.clone().unwrap())
}

#[test]
fn the_greatest_number_counts() {
    let (asked, reason) = asked(vec![found(3, "a"), found(5, "b"), found(5, "c")], 2);
    assert_eq!(asked.replicas, Some((5, "b".to_owned())));
    assert_eq!((asked.error, reason.as_str()), (None, "ValidMetricFound"));
}

#[test]
fn a_metric_that_cannot_be_measured_keeps_a_scale_from_shrinking_but_not_from_growing() {
    let (grown, reason) = asked(vec![failed("gone"), found(5, "b")], 4);
    assert_eq!(grown.replicas, Some((5, "b".to_owned())));
    assert_eq!(reason, "ValidMetricFound");
    let error = grown.error.unwrap();
    assert_eq!(
        error,
        "invalid metrics (1 invalid out of 2), first error is: failed to get pods metric value: gone"
    );
    let (shrunk, reason) = asked(vec![failed("gone"), found(3, "b")], 4);
    assert_eq!((shrunk.replicas, reason.as_str()), (None, "FailedGetPodsMetric"));
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let second = |second| Timestamp::from_second(second).unwrap();
    let mut status = HorizontalPodAutoscalerStatus::default();
    let mut set = |second: Timestamp, act: fn(&mut Conditions)| {
        let mut conditions = Conditions::of(&status, second);
        act(&mut conditions);
        status.conditions = conditions.into_list();
        let only = status.conditions.as_ref().unwrap()[0].clone();
        (only.last_transition_time.unwrap().0, only.reason.unwrap())
    };
    assert_eq!(set(second(1), |c| c.able("A", "")), (second(1), "A".to_owned()));
    assert_eq!(set(second(2), |c| c.able("B", "")), (second(1), "B".to_owned()));
    assert_eq!(set(second(3), |c| c.unable("C", "")), (second(3), "C".to_owned()));
}

#[test]
fn an_autoscalers_own_tolerance_goes_before_the_usual_one() {
    let rules =
        |value| serde_json::from_value::<HPAScalingRules>(json!({ "tolerance": value })).unwrap();
    let near = |found: f64, wanted: f64| (found - wanted).abs() < 1e-9;
    assert!(near(tolerance(Some(&rules("0.05"))), 0.05));
    assert!(near(tolerance(Some(&rules("50m"))), 0.05));
    assert!(near(tolerance(None), 0.1));
}
