//! What limits may say, and how buckets empty and fill.

use std::time::Duration;

use serde_json::json;

use super::*;

fn configuration(limits: &Value) -> Value {
    json!({ "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration",
        "limits": limits })
}

#[test]
fn limits_are_read_and_what_is_wrong_with_them_is_said() {
    let limits = json!([
        { "type": "Server", "qps": 50, "burst": 100, "cacheSize": -1 },
        { "type": "Namespace", "qps": 5, "burst": 10 },
        { "type": "SourceAndObject", "qps": 1, "burst": 2, "cacheSize": 7 },
    ]);
    let read = EventRateLimit::new(&configuration(&limits)).expect("limits");
    let sizes: Vec<usize> = read.limits.iter().map(|limit| limit.config.buckets_max()).collect();
    assert_eq!(sizes, [1, 4096, 7]);
    for (limits, why) in [
        (json!([]), "limits: Invalid value: []: must not be empty"),
        (json!([{ "type": "Pod", "qps": 1, "burst": 1 }]), "unknown variant `Pod`"),
        (
            json!([{ "type": "User", "burst": 1 }]),
            "limits[0].qps: Invalid value: 0: must be positive",
        ),
        (json!([{ "type": "User", "qps": 1, "burst": -1 }]), "limits[0].burst: Invalid value: -1"),
        (json!([{ "type": "User", "qps": 1, "burst": 1, "size": 1 }]), "unknown field `size`"),
        (
            json!([{ "type": "User", "qps": 1, "burst": 1, "cacheSize": -1 }]),
            "limits[0].cacheSize: Invalid value: -1: must not be negative",
        ),
    ] {
        let refused = EventRateLimit::new(&configuration(&limits)).err().expect(why);
        assert!(refused.contains(why), "{refused}");
    }
    let other = EventRateLimit::new(&json!({ "apiVersion": "v1", "kind": "Pod" }));
    assert!(other.err().expect("a pod").starts_with("expected a Configuration"));
}

#[test]
fn a_bucket_empties_and_fills_with_time_up_to_its_burst() {
    let start = Instant::now();
    let after = |ms: u64| start + Duration::from_millis(ms);
    let mut bucket = Bucket { tokens: 2.0, filled: start };
    let mut take = |at: Instant| bucket.take(10.0, 2.0, at);
    assert_eq!([take(start), take(start), take(start)], [true, true, false]);
    assert!(!take(after(50)), "half a token");
    assert!(take(after(100)) && !take(after(100)));
    let later = after(10_000);
    assert_eq!(
        [take(later), take(later), take(later)],
        [true, true, false],
        "no more than a burst"
    );
    assert!(!take(start), "a clock that went back brings nothing");
}

#[test]
fn each_key_has_a_bucket_and_the_oldest_is_forgotten() {
    let limits = json!([{ "type": "User", "qps": 1, "burst": 1, "cacheSize": 2 }]);
    let read = EventRateLimit::new(&configuration(&limits)).expect("limits");
    let (limit, now) = (&read.limits[0], Instant::now());
    let take = |key: &str| limit.take(&key.to_owned(), now);
    assert!(take("a") && take("b"));
    assert!(!take("a") && !take("b"));
    assert!(take("c"), "a third one, for which the first is forgotten");
    assert!(take("a") && !take("c"));
}

#[test]
fn an_events_source_and_object_tell_it_from_others() {
    let event = |host: &str| {
        Object::new(json!({
            "source": { "component": "kubelet", "host": host },
            "involvedObject": { "kind": "Pod", "namespace": "n", "name": "p", "uid": "1",
                "apiVersion": "v1" },
        }))
        .expect("an object")
    };
    assert_eq!(source_and_object(&event("a")), "kubeletaPodnp1v1");
    assert_ne!(source_and_object(&event("a")), source_and_object(&event("b")));
}
