//! What is counted, under Kubernetes' names.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Class;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    flow_schema: String,
    priority_level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reasons {
    flow_schema: String,
    priority_level: String,
    reason: &'static str,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    dispatched: Family<Labels, Counter>,
    rejected: Family<Reasons, Counter>,
    waiting: Family<Labels, Gauge>,
}

/// Counts down when the wait is over, however it ends.
pub(super) struct Waits(Gauge);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Figures {
    /// Has them told with the others.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Requests that had a turn",
            Family::clone(&self.dispatched),
        );
        registry.register(
            "apiserver_flowcontrol_rejected_requests",
            "Requests that were refused",
            Family::clone(&self.rejected),
        );
        registry.register(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests that wait for a turn",
            Family::clone(&self.waiting),
        );
    }

    pub(super) fn waits(&self, class: &Class) -> Waits {
        let gauge = self.waiting.get_or_create_owned(&labels(class));
        gauge.inc();
        Waits(gauge)
    }

    pub(super) fn dispatched(&self, class: &Class) {
        self.dispatched.get_or_create(&labels(class)).inc();
    }

    pub(super) fn rejected(&self, class: &Class, reason: &'static str) {
        let Labels { flow_schema, priority_level } = labels(class);
        self.rejected.get_or_create(&Reasons { flow_schema, priority_level, reason }).inc();
    }
}

fn labels(class: &Class) -> Labels {
    Labels { flow_schema: class.schema.to_string(), priority_level: class.level.to_string() }
}
