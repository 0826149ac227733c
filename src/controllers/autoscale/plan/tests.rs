use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn decide(
    current: i32,
    desired: i32,
    behavior: &Value,
    history: &mut History,
    second: i64,
) -> (i32, &'static str, &'static str) {
    let behavior: Option<HorizontalPodAutoscalerBehavior> =
        serde_json::from_value(behavior.clone()).unwrap();
    let rules = Rules { least: 2, most: 100, behavior: behavior.as_ref() };
    let decision = plan(current, desired, &rules, history, at(second));
    (decision.replicas, decision.stabilized.0, decision.limited.unwrap_or(decision.within).0)
}

fn history(recommendations: &[(i32, i64)], steps: &[(i32, i64)]) -> History {
    History {
        recommendations: recommendations
            .iter()
            .map(|(replicas, second)| Recommendation { replicas: *replicas, at: at(*second) })
            .collect(),
        steps: steps
            .iter()
            .map(|(change, second)| Step { change: *change, at: at(*second) })
            .collect(),
    }
}

#[test]
fn without_a_behaviour_a_scale_doubles_at_most_and_stays_within_its_bounds() {
    let none = Value::Null;
    for (current, desired, expected) in [
        (3, 5, (5, "ReadyForNewScale", "DesiredWithinRange")),
        (3, 9, (6, "ReadyForNewScale", "ScaleUpLimit")),
        (1, 9, (4, "ReadyForNewScale", "ScaleUpLimit")),
        (60, 300, (100, "ReadyForNewScale", "TooManyReplicas")),
        (3, 1, (2, "ReadyForNewScale", "TooFewReplicas")),
    ] {
        assert_eq!(decide(current, desired, &none, &mut History::default(), 0), expected);
    }
}

#[test]
fn the_highest_recommendation_of_five_minutes_holds_a_scale_up() {
    let none = Value::Null;
    let mut seen = history(&[(9, 0)], &[]);
    assert_eq!(
        decide(10, 4, &none, &mut seen, 200),
        (9, "ScaleDownStabilized", "DesiredWithinRange")
    );
    assert_eq!(decide(9, 4, &none, &mut seen, 301), (4, "ReadyForNewScale", "DesiredWithinRange"));
}

#[test]
fn a_new_leader_does_not_scale_down_before_it_has_seen_a_window() {
    let mut seen = History::default();
    seen.begin(10, at(0));
    seen.begin(3, at(1));
    assert_eq!(decide(10, 4, &Value::Null, &mut seen, 15).0, 10);
    assert_eq!(decide(10, 4, &Value::Null, &mut seen, 301).0, 4);
}

#[test]
fn windows_of_a_behaviour_hold_the_way_up_and_down() {
    let behavior = json!({
        "scaleUp": { "stabilizationWindowSeconds": 60, "selectPolicy": "Max",
            "policies": [{ "type": "Percent", "value": 1000, "periodSeconds": 15 }] },
        "scaleDown": { "stabilizationWindowSeconds": 30, "selectPolicy": "Max",
            "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 15 }] },
    });
    let mut seen = history(&[(6, 0)], &[]);
    assert_eq!(decide(5, 20, &behavior, &mut seen, 30).0, 6);
    assert_eq!(decide(5, 20, &behavior, &mut history(&[(6, 0)], &[]), 61).0, 20);
    let mut seen = history(&[(9, 0)], &[]);
    assert_eq!(decide(10, 4, &behavior, &mut seen, 20).1, "ScaleDownStabilized");
    assert_eq!(decide(10, 4, &behavior, &mut history(&[(9, 0)], &[]), 31).0, 4);
}

#[test]
fn policies_count_what_was_changed_within_their_period() {
    let behavior = |select: &str| {
        let policies = json!([
            { "type": "Pods", "value": 4, "periodSeconds": 60 },
            { "type": "Percent", "value": 50, "periodSeconds": 60 },
        ]);
        let rules = json!({
            "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": policies,
        });
        json!({ "scaleUp": rules, "scaleDown": rules })
    };
    let up = |select: &str, steps: &[(i32, i64)]| {
        decide(10, 50, &behavior(select), &mut history(&[], steps), 30).0
    };
    assert_eq!((up("Max", &[]), up("Min", &[]), up("Disabled", &[])), (15, 14, 10));
    // Of the 4 that one policy allows 3 are used up; the other reckons from the 7 there were.
    assert_eq!((up("Max", &[(3, 0)]), up("Min", &[(3, 0)])), (11, 11));
    assert_eq!(up("Max", &[(3, -31)]), 15);
    // What was added beyond what the policies allow now is not taken back.
    assert_eq!(up("Max", &[(8, 0)]), 10);
    let down = |select: &str| decide(10, 2, &behavior(select), &mut History::default(), 30);
    assert_eq!(down("Max"), (5, "ReadyForNewScale", "ScaleDownLimit"));
    assert_eq!((down("Min").0, down("Disabled").0), (6, 10));
}

#[test]
fn percents_are_rounded_towards_the_greater_change_upwards_and_down() {
    assert_eq!(part(3, 150, Rounding::Up), 5);
    assert_eq!(part(3, 50, Rounding::Down), 1);
    assert_eq!(part(5, 0, Rounding::Down), 0);
}

#[test]
fn what_no_window_reaches_is_forgotten() {
    let mut seen = history(&[(9, 0), (8, 100)], &[(1, 0), (1, 100)]);
    decide(10, 4, &Value::Null, &mut seen, 350);
    assert_eq!(seen, history(&[(8, 100), (4, 350)], &[(1, 100)]));
}
