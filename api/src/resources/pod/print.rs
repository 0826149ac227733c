//! How `kubectl get pods` sums up a pod.

use jiff::Timestamp;
use serde_json::Value;

use crate::object::Object;
use crate::registry::strategy::Column;
use crate::table::{self, AGE, NAME, NONE, or_none};

/// The columns of pods.
pub static COLUMNS: [Column; 9] = [
    NAME,
    table::text("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    table::text("Status", "The aggregate status of the containers in this pod."),
    table::text(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last \
         container in this pod has restarted.",
    ),
    AGE,
    table::wide("IP", "The address of the pod."),
    table::wide("Node", "The node that runs it."),
    table::wide("Nominated Node", "The node that makes room for it."),
    table::wide("Readiness Gates", "How many of its readiness gates are open."),
];

/// The row of a pod.
pub fn row(pod: &Object, now: Timestamp) -> Vec<Value> {
    let summary = Summary::of(pod);
    vec![
        pod.name().into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        summary.restarts.text(now).into(),
        table::age(pod, now),
        or_none(pod_ips(pod).first().copied().unwrap_or_default()),
        or_none(pod.str_at("/spec/nodeName")),
        or_none(pod.str_at("/status/nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

/// The addresses of a pod.
pub fn pod_ips(pod: &Object) -> Vec<&str> {
    let list = array(pod, "/status/podIPs");
    let ips: Vec<&str> = list.iter().filter_map(|entry| entry.get("ip")?.as_str()).collect();
    match (ips.is_empty(), pod.str_at("/status/podIP")) {
        (true, "") => Vec::new(),
        (true, ip) => vec![ip],
        (false, _) => ips,
    }
}

/// How often containers began again, and when the last of them had ended.
#[derive(Debug, Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += container.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        let finished = container.pointer("/lastState/terminated/finishedAt");
        let finished = finished.and_then(Value::as_str).and_then(|text| text.parse().ok());
        self.last = self.last.max(finished);
    }

    fn text(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                let ago = table::human_duration(table::seconds_between(last, now));
                format!("{} ({ago} ago)", self.count)
            }
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Object) -> Self {
        let init = array(pod, "/spec/initContainers");
        let sidecars = init.iter().filter(|container| is_sidecar(container)).count();
        let mut summary = Self {
            ready: 0,
            total: array(pod, "/spec/containers").len() + sidecars,
            reason: own_reason(pod),
            restarts: Restarts::default(),
        };
        let (initializing, of_sidecars) = summary.take_init(pod, init);
        if !initializing || condition(pod, "Initialized") {
            summary.restarts = of_sidecars;
            summary.take_containers(pod);
        }
        let ended = matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed");
        if pod.is_terminating() && pod.str_at("/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if pod.is_terminating() && !ended {
            "Terminating".clone_into(&mut summary.reason);
        }
        summary
    }

    /// Walks the init containers up to the one that runs; says whether one does, and how often the
    /// sidecars among them began again.
    fn take_init(&mut self, pod: &Object, specs: &[Value]) -> (bool, Restarts) {
        let mut of_sidecars = Restarts::default();
        for (index, status) in array(pod, "/status/initContainerStatuses").iter().enumerate() {
            let sidecar =
                specs.iter().any(|spec| spec["name"] == status["name"] && is_sidecar(spec));
            self.restarts.add(status);
            if sidecar {
                of_sidecars.add(status);
            }
            let reason = match (state(status, "terminated"), waiting_reason(status)) {
                (Some(ended), _) if ended["exitCode"] == 0 => continue,
                _ if sidecar && status["started"] == true => {
                    self.ready += usize::from(status["ready"] == true);
                    continue;
                }
                (Some(ended), _) => ended_reason(ended),
                (None, "" | "PodInitializing") => format!("{index}/{}", specs.len()),
                (None, reason) => reason.to_owned(),
            };
            self.reason = format!("Init:{reason}");
            return (true, of_sidecars);
        }
        (false, of_sidecars)
    }

    fn take_containers(&mut self, pod: &Object) {
        let mut running = false;
        for status in array(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            match (waiting_reason(status), state(status, "terminated")) {
                ("", Some(ended)) => self.reason = ended_reason(ended),
                ("", None) if status["ready"] == true && state(status, "running").is_some() => {
                    running = true;
                    self.ready += 1;
                }
                ("", None) => {}
                (reason, _) => reason.clone_into(&mut self.reason),
            }
        }
        // One that has ended does not speak for those that still run.
        if self.reason == "Completed" && running {
            let ready = condition(pod, "Ready");
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.reason);
        }
    }
}

fn state<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status.get("state")?.get(name).filter(|state| !state.is_null())
}

fn waiting_reason(status: &Value) -> &str {
    state(status, "waiting").and_then(|waiting| waiting.get("reason")?.as_str()).unwrap_or_default()
}

fn own_reason(pod: &Object) -> String {
    let gated = array(pod, "/status/conditions").iter().any(|condition| {
        condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated"
    });
    match (gated, pod.str_at("/status/reason")) {
        (true, _) => "SchedulingGated".to_owned(),
        (false, "") => pod.str_at("/status/phase").to_owned(),
        (false, reason) => reason.to_owned(),
    }
}

fn ended_reason(ended: &Value) -> String {
    let number = |field: &str| ended.get(field).and_then(Value::as_i64).unwrap_or(0);
    match ended.get("reason").and_then(Value::as_str).unwrap_or_default() {
        "" if number("signal") != 0 => format!("Signal:{}", number("signal")),
        "" => format!("ExitCode:{}", number("exitCode")),
        reason => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn condition(pod: &Object, kind: &str) -> bool {
    array(pod, "/status/conditions")
        .iter()
        .any(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn readiness_gates(pod: &Object) -> String {
    let gates = array(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, gate["conditionType"].as_str().unwrap_or_default()))
        .count();
    format!("{open}/{}", gates.len())
}

fn array<'a>(pod: &'a Object, pointer: &str) -> &'a [Value] {
    pod.at(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
