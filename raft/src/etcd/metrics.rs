//! `GET /metrics`: what etcd's dashboards ask for, under etcd's names, where we have the same. In the
//! text format of Prometheus.

use std::fmt::Write as _;

use kontiki_storage::engine::timing::{BOUNDS_S, Counted as Took};

use crate::node::Node;
use crate::status::{NodeStatus, Role};

/// A page being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).and_then(|()| self.0.write_char('\n')).expect("a string must grow");
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.line(format_args!("{name} {value}"));
    }

    fn histogram(&mut self, name: &str, help: &str, took: Took) {
        self.head(name, "histogram", help);
        for (bound, within) in BOUNDS_S.iter().zip(took.within) {
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {within}"));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {}", took.count));
        self.line(format_args!("{name}_sum {}", took.sum_s));
        self.line(format_args!("{name}_count {}", took.count));
    }
}

/// The page of a member. It reads the sizes of files: it blocks.
pub(super) fn page(node: &Node) -> String {
    let (status, mut page) = (node.status(), Page::default());
    server(&mut page, node, &status);
    store(&mut page, node, &status);
    page.0
}

fn server(page: &mut Page, node: &Node, status: &NodeStatus) {
    let me = status.members.iter().find(|member| member.id == status.id);
    let is_learner = me.is_some_and(|member| member.role == Role::Learner);
    let counted = node.counted();
    page.gauge(
        "etcd_server_has_leader",
        "Whether a leader is known: 1 or 0.",
        status.leader.is_some().into(),
    );
    let leads = status.leader == Some(status.id);
    page.gauge("etcd_server_is_leader", "Whether this member leads: 1 or 0.", leads.into());
    let help = "Whether this member has no vote: 1 or 0.";
    page.gauge("etcd_server_is_learner", help, is_learner.into());
    let help = "How often another member was seen to lead.";
    page.counter("etcd_server_leader_changes_seen_total", help, counted.leader_changes);
    let help = "The last log entry that is known to be committed.";
    page.gauge("etcd_server_proposals_committed_total", help, status.committed_index);
    let help = "The last log entry that is applied.";
    page.gauge("etcd_server_proposals_applied_total", help, status.applied_index);
    let help = "Proposals of this member that await their outcome.";
    page.gauge("etcd_server_proposals_pending", help, counted.proposals_pending);
    let help = "Proposals of this member without a known outcome.";
    page.counter("etcd_server_proposals_failed_total", help, counted.proposals_failed);
    page.head("etcd_server_version", "gauge", "The version whose API is served.");
    page.line(format_args!("etcd_server_version{{server_version=\"{}\"}} 1", super::API_VERSION));
    page.head("etcd_server_id", "gauge", "This member's number, in hexadecimal.");
    page.line(format_args!("etcd_server_id{{server_id=\"{:x}\"}} 1", status.id));
}

fn store(page: &mut Page, node: &Node, status: &NodeStatus) {
    let live = node.store().live_bytes();
    // A size that cannot be read is no reason to tell nothing.
    let size = node.store().engine().size_bytes().unwrap_or(0).max(live);
    let help = "The bytes of the disk that the store takes.";
    page.gauge("etcd_mvcc_db_total_size_in_bytes", help, size);
    let help = "The bytes of what the store holds.";
    page.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, live);
    let help = "The revision of the store.";
    page.gauge("etcd_debugging_mvcc_current_revision", help, status.revision.get());
    let help = "History before this revision is forgotten.";
    page.gauge("etcd_debugging_mvcc_compact_revision", help, status.compacted.get());
    if let Some(timings) = node.store().engine().timings() {
        let help = "How long it takes to append to the journal and to sync it.";
        page.histogram("etcd_disk_wal_fsync_duration_seconds", help, timings.append.counted());
        let help = "How long it takes to bring what was appended into sled and to sync it.";
        page.histogram("etcd_disk_backend_commit_duration_seconds", help, timings.step.counted());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kontiki_storage::engine::timing::Histogram;

    use super::*;

    #[test]
    fn a_histogram_is_written_as_prometheus_reads_it() {
        let (histogram, mut page) = (Histogram::default(), Page::default());
        histogram.observe(Duration::from_millis(3));
        page.histogram("t_seconds", "Time.", histogram.counted());
        let lines: Vec<&str> = page.0.lines().collect();
        assert_eq!(lines[..2], ["# HELP t_seconds Time.", "# TYPE t_seconds histogram"]);
        assert_eq!(lines[3], "t_seconds_bucket{le=\"0.002\"} 0");
        assert_eq!(lines[4], "t_seconds_bucket{le=\"0.004\"} 1");
        assert_eq!(
            lines[16..],
            ["t_seconds_bucket{le=\"+Inf\"} 1", "t_seconds_sum 0.003", "t_seconds_count 1"]
        );
    }
}
