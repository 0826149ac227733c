//! The test harness: clusters of real processes, real clients, and one binary per tier.
//!
//! ```text
//! tests/tidy.rs         the house keeps its rules
//! tests/simulation.rs   a whole cluster in virtual time, one module per invariant
//! tests/cluster.rs      real processes on real disks: killed, paused, partitioned, filled
//! tests/e2e.rs          kubectl, containerd, and all of it at once
//! ```
