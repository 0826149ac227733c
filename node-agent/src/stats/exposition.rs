//! What Prometheus reads of the agent: `/metrics/resource`, `/metrics/cadvisor`, `/metrics`, under
//! the names that dashboards know from the kubelet.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{ContainerUsage, Interface, PodUsage, Sample, Usage, host};

/// The type of the answers.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Processor time is counted in nanoseconds here, in seconds there.
const NS_PER_SECOND: f64 = 1e9;

/// Families of figures being written, each with its head once.
#[derive(Default)]
struct Text(String);

/// Names and values in braces.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// A family: its name, `counter` or `gauge`, and what it says.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all");
    }

    /// A figure of the family; with the time where it was not taken just now.
    fn figure(&mut self, name: &str, labels: Labels<'_>, value: f64, at: Option<Timestamp>) {
        self.0.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(self.0, "{before}{label}=\"{}\"", escaped(value)).expect("a string takes all");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        write!(self.0, "{end} {value}").expect("a string takes all");
        if let Some(at) = at {
            write!(self.0, " {}", at.as_millisecond()).expect("a string takes all");
        }
        self.0.push('\n');
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
fn float(value: u64) -> f64 {
    value as f64
}

fn seconds(ns: u64) -> f64 {
    float(ns) / NS_PER_SECOND
}

fn unix_seconds(at: Timestamp) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a time to a millisecond fits")]
    let millis = at.as_millisecond() as f64;
    millis / 1e3
}

/// `/metrics/resource`: what autoscaling and scheduling go by.
pub fn resource(sample: &Sample) -> String {
    let mut text = Text::default();
    let cpu = |usage: &Usage| usage.cpu_ns.map(seconds);
    let memory = |usage: &Usage| usage.memory.working_set_bytes.map(float);
    containers(
        &mut text,
        sample,
        "container_cpu_usage_seconds_total",
        "counter",
        |c| cpu(&c.usage),
    );
    containers(&mut text, sample, "container_memory_working_set_bytes", "gauge", |c| {
        memory(&c.usage)
    });
    let started = "container_start_time_seconds";
    text.family(started, "gauge", "When the container started, in seconds since 1970.");
    for (pod, container) in all_containers(sample) {
        if let Some(at) = container.started_at {
            text.figure(started, &of_container(pod, container), unix_seconds(at), None);
        }
    }
    for (name, kind, value) in [
        ("node_cpu_usage_seconds_total", "counter", cpu(&sample.node)),
        ("node_memory_working_set_bytes", "gauge", memory(&sample.node)),
    ] {
        text.family(name, kind, help(name));
        if let Some(value) = value {
            text.figure(name, &[], value, Some(sample.node.at));
        }
    }
    pods(&mut text, sample, "pod_cpu_usage_seconds_total", "counter", |pod| cpu(&pod.usage));
    pods(&mut text, sample, "pod_memory_working_set_bytes", "gauge", |pod| memory(&pod.usage));
    // The second is the older name of the first.
    for name in ["resource_scrape_error", "scrape_error"] {
        text.family(name, "gauge", "1 where the figures of containers could not be had.");
        text.figure(name, &[], f64::from(u8::from(sample.error.is_some())), None);
    }
    text.0
}

fn help(name: &str) -> &'static str {
    match name {
        name if name.contains("_cpu_") => "Processor time used so far, in seconds.",
        _ => "Memory that cannot be given back at once, in bytes.",
    }
}

fn all_containers(sample: &Sample) -> impl Iterator<Item = (&PodUsage, &ContainerUsage)> {
    sample.pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)))
}

fn of_container<'a>(pod: &'a PodUsage, container: &'a ContainerUsage) -> [(&'a str, &'a str); 3] {
    [("container", &container.name), ("namespace", &pod.namespace), ("pod", &pod.name)]
}

fn containers(
    text: &mut Text,
    sample: &Sample,
    name: &str,
    kind: &str,
    value: impl Fn(&ContainerUsage) -> Option<f64>,
) {
    text.family(name, kind, help(name));
    for (pod, container) in all_containers(sample) {
        if let Some(value) = value(container) {
            text.figure(name, &of_container(pod, container), value, Some(container.usage.at));
        }
    }
}

fn pods(
    text: &mut Text,
    sample: &Sample,
    name: &str,
    kind: &str,
    value: impl Fn(&PodUsage) -> Option<f64>,
) {
    text.family(name, kind, help(name));
    for pod in &sample.pods {
        if let Some(value) = value(pod) {
            let labels = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
            text.figure(name, &labels, value, Some(pod.usage.at));
        }
    }
}

/// A family of cAdvisor's: name, type, meaning, value.
type Family = (&'static str, &'static str, &'static str, fn(&ContainerUsage) -> Option<f64>);

/// What cAdvisor tells of every container.
const FAMILIES: [Family; 11] = [
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time used so far, in seconds.",
        |c| c.usage.cpu_ns.map(seconds),
    ),
    ("container_cpu_cfs_periods_total", "counter", "Periods in which it wanted to run.", |c| {
        c.throttling.map(|t| float(t.periods))
    }),
    (
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        "Periods in which it was held back.",
        |c| c.throttling.map(|t| float(t.throttled)),
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Seconds for which it was held back.",
        |c| c.throttling.map(|t| seconds(t.throttled_ns)),
    ),
    ("container_memory_usage_bytes", "gauge", "Memory in use with caches, in bytes.", |c| {
        c.usage.memory.usage_bytes.map(float)
    }),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Memory that cannot be given back at once, in bytes.",
        |c| c.usage.memory.working_set_bytes.map(float),
    ),
    ("container_memory_rss", "gauge", "Memory that no file stands behind, in bytes.", |c| {
        c.usage.memory.rss_bytes.map(float)
    }),
    (
        "container_spec_memory_limit_bytes",
        "gauge",
        "Memory it may use, in bytes; 0 without a bound.",
        |c| Some(float(c.usage.memory.limit_bytes.unwrap_or(0))),
    ),
    ("container_fs_usage_bytes", "gauge", "Bytes written to its own layer.", |c| {
        c.disk_bytes.map(float)
    }),
    ("container_start_time_seconds", "gauge", "When it started, in seconds since 1970.", |c| {
        c.started_at.map(unix_seconds)
    }),
    ("container_last_seen", "gauge", "When it was seen last, in seconds since 1970.", |c| {
        Some(unix_seconds(c.usage.at))
    }),
];

/// `/metrics/cadvisor`: what dashboards draw. A pod's own cgroup has an empty `container`, the
/// machine's is `/`.
pub fn cadvisor(sample: &Sample, processors: usize, memory_bytes: u64) -> String {
    let mut text = Text::default();
    let node = ContainerUsage {
        cgroup: "/".into(),
        usage: sample.node.clone(),
        started_at: host::boot_time(),
        ..ContainerUsage::default()
    };
    for (name, kind, help, value) in FAMILIES {
        text.family(name, kind, help);
        let mut write = |pod: Option<&PodUsage>, container: &ContainerUsage| {
            let Some(value) = value(container) else { return };
            let all = labels(name, pod, container);
            text.figure(name, &all, value, Some(container.usage.at));
        };
        write(None, &node);
        for pod in &sample.pods {
            let own = ContainerUsage {
                cgroup: pod.cgroup.clone(),
                usage: pod.usage.clone(),
                started_at: pod.started_at,
                ..ContainerUsage::default()
            };
            write(Some(pod), &own);
            pod.containers.iter().for_each(|container| write(Some(pod), container));
        }
    }
    networks(&mut text, sample);
    text.family("machine_cpu_cores", "gauge", "Processors of the machine.");
    text.figure("machine_cpu_cores", &[], float(processors as u64), None);
    text.family("machine_memory_bytes", "gauge", "Memory of the machine, in bytes.");
    text.figure("machine_memory_bytes", &[], float(memory_bytes), None);
    text.0
}

fn labels<'a>(
    family: &str,
    pod: Option<&'a PodUsage>,
    container: &'a ContainerUsage,
) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![("container", container.name.as_str())];
    if family == "container_cpu_usage_seconds_total" {
        labels.push(("cpu", "total"));
    }
    labels.extend([
        ("id", container.cgroup.as_str()),
        ("image", &container.image),
        ("name", &container.id),
        ("namespace", pod.map_or("", |pod| &pod.namespace)),
        ("pod", pod.map_or("", |pod| &pod.name)),
    ]);
    labels
}

/// What cAdvisor tells of the interfaces of pods and of the machine.
fn networks(text: &mut Text, sample: &Sample) {
    type Figure = (&'static str, &'static str, fn(&Interface) -> u64);
    const FIGURES: [Figure; 4] = [
        ("container_network_receive_bytes_total", "Bytes received.", |i| i.rx_bytes),
        ("container_network_receive_errors_total", "Errors while receiving.", |i| i.rx_errors),
        ("container_network_transmit_bytes_total", "Bytes sent.", |i| i.tx_bytes),
        ("container_network_transmit_errors_total", "Errors while sending.", |i| i.tx_errors),
    ];
    let machine = host::interfaces();
    for (name, help, value) in FIGURES {
        text.family(name, "counter", help);
        let mut write = |pod: Option<&PodUsage>, cgroup: &str, at, interface: &Interface| {
            let labels = [
                ("container", ""),
                ("id", cgroup),
                ("image", ""),
                ("interface", interface.name.as_str()),
                ("name", ""),
                ("namespace", pod.map_or("", |pod| &pod.namespace)),
                ("pod", pod.map_or("", |pod| &pod.name)),
            ];
            text.figure(name, &labels, float(value(interface)), Some(at));
        };
        for interface in &machine {
            write(None, "/", sample.node.at, interface);
        }
        for pod in &sample.pods {
            for interface in &pod.network {
                write(Some(pod), &pod.cgroup, pod.usage.at, interface);
            }
        }
    }
}

/// `/metrics`: the agent itself.
pub fn own(node: &str, pods: usize, containers: usize) -> String {
    let mut text = Text::default();
    let process = host::process();
    let mut one = |name: &str, kind: &str, help: &str, labels: Labels<'_>, value: f64| {
        text.family(name, kind, help);
        text.figure(name, labels, value, None);
    };
    one(
        "kubelet_node_name",
        "gauge",
        "The node's name. The count is always 1.",
        &[("node", node)],
        1.0,
    );
    one(
        "kubelet_running_pods",
        "gauge",
        "Pods of the node with a running container.",
        &[],
        float(pods as u64),
    );
    one(
        "kubelet_running_containers",
        "gauge",
        "Containers of the node by state.",
        &[("container_state", "running")],
        float(containers as u64),
    );
    one(
        "process_cpu_seconds_total",
        "counter",
        "Processor time of the agent, in seconds.",
        &[],
        process.cpu_seconds,
    );
    one(
        "process_resident_memory_bytes",
        "gauge",
        "Memory of the agent, in bytes.",
        &[],
        float(process.resident_bytes),
    );
    one(
        "process_open_fds",
        "gauge",
        "Open files of the agent.",
        &[],
        float(process.open_files as u64),
    );
    text.0
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn resources_are_told_under_the_names_of_the_kubelet() {
        let text = resource(&sample());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            r#"container_cpu_usage_seconds_total{container="app",namespace="ns",pod="web"} 4 1767225610000"#,
            r#"container_memory_working_set_bytes{container="app",namespace="ns",pod="web"} 1048576 1767225610000"#,
            r#"container_start_time_seconds{container="app",namespace="ns",pod="web"} 1767225600"#,
            "node_cpu_usage_seconds_total 100 1767225610000",
            r#"pod_cpu_usage_seconds_total{namespace="ns",pod="web"} 5 1767225610000"#,
            "resource_scrape_error 0",
            "scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let broken = Sample { error: Some("down".into()), ..Sample::default() };
        assert!(resource(&broken).contains("\nscrape_error 1\n"));
    }

    #[test]
    fn containers_pods_and_the_machine_are_told_apart_as_cadvisor_does() {
        let text = cadvisor(&sample(), 2, 4096);
        for line in [
            r#"container_cpu_usage_seconds_total{container="app",cpu="total",id="/kubepods/podu/c1",image="img",name="c1",namespace="ns",pod="web"} 4 1767225610000"#,
            r#"container_cpu_usage_seconds_total{container="",cpu="total",id="/kubepods/podu",image="",name="",namespace="ns",pod="web"} 5 1767225610000"#,
            r#"container_network_receive_bytes_total{container="",id="/kubepods/podu",image="",interface="eth0",name="",namespace="ns",pod="web"} 10 1767225610000"#,
            "machine_cpu_cores 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn label_values_cannot_break_out() {
        assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
    }
}
