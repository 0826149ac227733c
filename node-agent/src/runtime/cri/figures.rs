//! The runtime's statistics in the agent's words.

use jiff::Timestamp;

use super::proto;
use crate::runtime::{ContainerFigures, SandboxFigures, labels};
use crate::stats::{Interface, Memory, Usage};

/// A container's; none where the runtime does not say whose.
pub(super) fn container(stats: proto::ContainerStats) -> Option<ContainerFigures> {
    let attributes = stats.attributes?;
    let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
    let cpu = stats.cpu.unwrap_or_default();
    let layer = stats.writable_layer.unwrap_or_default();
    Some(ContainerFigures {
        name: attributes.metadata.map(|metadata| metadata.name).unwrap_or_default(),
        pod_uid: label(labels::POD_UID),
        pod_name: label(labels::POD_NAME),
        pod_namespace: label(labels::POD_NAMESPACE),
        id: attributes.id,
        usage: Usage {
            at: time(cpu.timestamp)?,
            cpu_ns: value(cpu.usage_core_nano_seconds),
            nano_cores: None,
            memory: memory(stats.memory.unwrap_or_default()),
        },
        disk_bytes: value(layer.used_bytes),
        inodes: value(layer.inodes_used),
    })
}

/// A sandbox's.
pub(super) fn sandbox(stats: proto::PodSandboxStats) -> Option<SandboxFigures> {
    let labels = stats.attributes?.labels;
    let network = stats.linux?.network.unwrap_or_default();
    let all = network.default_interface.into_iter().chain(network.interfaces);
    Some(SandboxFigures {
        pod_uid: labels.get(labels::POD_UID).cloned()?,
        interfaces: all.map(interface).collect(),
    })
}

fn interface(usage: proto::NetworkInterfaceUsage) -> Interface {
    Interface {
        name: usage.name,
        rx_bytes: value(usage.rx_bytes).unwrap_or(0),
        rx_errors: value(usage.rx_errors).unwrap_or(0),
        tx_bytes: value(usage.tx_bytes).unwrap_or(0),
        tx_errors: value(usage.tx_errors).unwrap_or(0),
    }
}

fn memory(usage: proto::MemoryUsage) -> Memory {
    let working_set_bytes = value(usage.working_set_bytes);
    // What is left below the bound; runtimes leave it out or at 0 where there is none.
    let available = value(usage.available_bytes).filter(|bytes| *bytes > 0);
    Memory {
        usage_bytes: value(usage.usage_bytes),
        working_set_bytes,
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        limit_bytes: available.zip(working_set_bytes).map(|(left, used)| left.saturating_add(used)),
    }
}

fn value(wrapped: Option<proto::UInt64Value>) -> Option<u64> {
    wrapped.map(|wrapped| wrapped.value)
}

fn time(nanos: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(nanos)).ok().filter(|_| nanos > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(value: u64) -> proto::UInt64Value {
        proto::UInt64Value { value }
    }

    #[test]
    fn statistics_of_a_container_keep_their_time_and_their_pod() {
        let attributes = proto::ContainerAttributes {
            id: "c1".into(),
            metadata: Some(proto::ContainerMetadata { name: "app".into(), attempt: 0 }),
            labels: [(labels::POD_UID.to_owned(), "u".to_owned())].into(),
            ..Default::default()
        };
        let stats = proto::ContainerStats {
            attributes: Some(attributes),
            cpu: Some(proto::CpuUsage {
                timestamp: 1_000_000_000,
                usage_core_nano_seconds: Some(wrapped(5)),
                usage_nano_cores: None,
            }),
            memory: Some(proto::MemoryUsage {
                working_set_bytes: Some(wrapped(10)),
                available_bytes: Some(wrapped(90)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let found = container(stats.clone()).expect("it says whose");
        assert_eq!((found.name.as_str(), found.pod_uid.as_str()), ("app", "u"));
        assert_eq!((found.usage.at.as_second(), found.usage.cpu_ns), (1, Some(5)));
        assert_eq!(found.usage.memory.limit_bytes, Some(100));
        // A reading without a time can make no rate.
        assert_eq!(container(proto::ContainerStats { cpu: None, ..stats }), None);
    }
}
