//! What becomes of a pod on a hollow node: decided from what is seen of it, and always the same for
//! the same pod.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

/// How pods live.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// How long a pod takes until it runs.
    pub start_delay: Duration,
    /// How long it takes to end.
    pub stop_delay: Duration,
    /// How long a pod runs that is to come to its end.
    pub run_time: Duration,
    /// Which part of the pods fails instead of starting.
    pub fail_rate: f64,
    /// By which part of itself each delay may be longer or shorter.
    pub jitter: f64,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            start_delay: Duration::ZERO,
            stop_delay: Duration::ZERO,
            run_time: Duration::from_secs(10),
            fail_rate: 0.0,
            jitter: 0.0,
        }
    }
}

/// As much of a pod as matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Who it is.
    pub metadata: Meta,
    /// What it wants.
    pub spec: Spec,
    /// What was reported of it.
    pub status: Status,
}

/// Who a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// Since when it is being deleted.
    pub deletion_timestamp: Option<String>,
}

/// What a pod wants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Its node.
    pub node_name: String,
    /// Whether it comes to an end.
    pub restart_policy: String,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
}

/// What was reported of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Where it is in its life.
    pub phase: String,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Report that it runs.
    Run,
    /// Report that it has come to its end.
    Succeed,
    /// Report that it failed.
    Fail,
    /// Let it go.
    Remove,
}

/// Decides what is done about a pod next, and after how long.
pub fn plan(pod: &Seen, life: &Life) -> Option<(Act, Duration)> {
    let jittered = |delay: Duration, salt: u8| {
        let share = lot(&pod.metadata.uid, salt);
        delay.mul_f64((1.0 + life.jitter * (2.0 * share - 1.0)).max(0.0))
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return Some((Act::Remove, jittered(life.stop_delay, 1)));
    }
    match pod.status.phase.as_str() {
        "" | "Pending" => {
            let fails = lot(&pod.metadata.uid, 2) < life.fail_rate;
            let act = if fails { Act::Fail } else { Act::Run };
            Some((act, jittered(life.start_delay, 3)))
        }
        "Running" if matches!(pod.spec.restart_policy.as_str(), "Never" | "OnFailure") => {
            Some((Act::Succeed, jittered(life.run_time, 4)))
        }
        _ => None,
    }
}

/// A number from 0 to 1 that is the pod's own.
fn lot(uid: &str, salt: u8) -> f64 {
    let hash = uid.bytes().chain([salt]).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The upper bits are the better mixed ones.
    let mixed = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32;
    f64::from(u32::try_from(mixed).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

/// The status that an act reports.
pub fn status(pod: &Seen, act: Act, now: Timestamp) -> Value {
    let now = format!("{now:.0}");
    let (phase, ready) = match act {
        Act::Run => ("Running", "True"),
        Act::Succeed => ("Succeeded", "False"),
        Act::Fail | Act::Remove => ("Failed", "False"),
    };
    let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "lastTransitionTime": now });
    let ended = |code: i32, reason: &str| {
        json!({ "terminated": {
            "exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now,
        } })
    };
    let containers = pod.spec.containers.iter().map(|container| {
        let state = match act {
            Act::Run => json!({ "running": { "startedAt": now } }),
            Act::Succeed => ended(0, "Completed"),
            Act::Fail | Act::Remove => ended(1, "Error"),
        };
        json!({
            "name": container.name,
            "image": container.image,
            "imageID": container.image,
            "containerID": format!("hollow://{}/{}", pod.metadata.uid, container.name),
            "ready": act == Act::Run,
            "started": act == Act::Run,
            "restartCount": 0,
            "state": state,
        })
    });
    let mut status = json!({
        "phase": phase,
        "conditions": [
            condition("Initialized", "True"),
            condition("Ready", ready),
            condition("ContainersReady", ready),
            condition("PodScheduled", "True"),
        ],
        "containerStatuses": containers.collect::<Vec<_>>(),
    });
    if act == Act::Run {
        let ip = address(&pod.metadata.uid);
        status["startTime"] = now.into();
        status["podIP"] = ip.clone().into();
        status["podIPs"] = json!([{ "ip": ip }]);
    }
    // A pod that was made anew meanwhile is another one.
    json!({ "metadata": { "uid": pod.metadata.uid }, "status": status })
}

/// An address that nobody is at.
fn address(uid: &str) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 255")]
    let part = |salt: u8| (lot(uid, salt) * 255.0) as u8;
    format!("10.{}.{}.{}", 128 | part(5), part(6), part(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, phase: &str, policy: &str) -> Seen {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "default", "uid": uid },
            "spec": { "nodeName": "hollow-00000", "restartPolicy": policy,
                "containers": [{ "name": "c", "image": "i" }] },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    fn life() -> Life {
        Life {
            start_delay: Duration::from_secs(2),
            stop_delay: Duration::from_secs(3),
            ..Life::default()
        }
    }

    #[test]
    fn a_pod_starts_ends_and_goes() {
        let seconds = Duration::from_secs;
        for (phase, policy, expected) in [
            ("Pending", "Always", Some((Act::Run, seconds(2)))),
            ("", "Always", Some((Act::Run, seconds(2)))),
            ("Running", "Always", None),
            ("Running", "Never", Some((Act::Succeed, seconds(10)))),
            ("Succeeded", "Never", None),
        ] {
            assert_eq!(plan(&pod("u", phase, policy), &life()), expected, "{phase} {policy}");
        }
        let mut going = pod("u", "Running", "Always");
        going.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        assert_eq!(plan(&going, &life()), Some((Act::Remove, seconds(3))));
    }

    #[test]
    fn as_many_pods_fail_as_shall_and_always_the_same() {
        let life = Life { fail_rate: 0.25, jitter: 0.5, ..life() };
        let all: Vec<_> =
            (0..1000).map(|n| plan(&pod(&format!("u-{n}"), "Pending", ""), &life)).collect();
        let failed = all.iter().flatten().filter(|(act, _)| *act == Act::Fail).count();
        assert!((150..350).contains(&failed), "{failed}");
        let range = Duration::from_secs(1)..=Duration::from_secs(3);
        assert!(all.iter().flatten().all(|(_, delay)| range.contains(delay)));
        assert_eq!(plan(&pod("u-7", "Pending", ""), &life), all[7]);
    }

    #[test]
    fn what_runs_has_an_address_and_what_ended_says_how() {
        let now = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let running = status(&pod("u", "", ""), Act::Run, now);
        assert_eq!(running["status"]["phase"], "Running");
        assert_eq!(running["status"]["podIP"], running["status"]["podIPs"][0]["ip"]);
        let failed = status(&pod("u", "", ""), Act::Fail, now);
        let state = &failed["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&state["exitCode"], &state["reason"]), (&json!(1), &json!("Error")));
    }
}
