//! `kontiki bench`: how fast a cluster is, as its clients see it.
//!
//! Every load is a closed loop: so many clients, each with one request under way. What is counted is
//! what was answered; latencies go from the request to its answer.

pub mod api;
pub mod compare;
pub mod disk;
pub mod etcd;
pub mod etcd_watch;
pub mod failover;
pub mod leases;
pub mod load;
pub mod report;
pub mod schedule;
pub mod usage;
pub mod watch;
