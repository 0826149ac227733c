//! The test harness: clusters of real processes and real clients, one binary per tier.
//!
//! ```text
//! tests/tidy.rs         the house keeps its rules
//! tests/simulation.rs   a whole cluster in virtual time, one module per invariant
//! tests/conformance.rs  what kubectl expects, from the API server alone
//! tests/cluster.rs      real processes on real disks: killed, paused, started again
//! tests/etcd.rs        the etcd API, answer by answer beside a real etcd
//! tests/faults.rs       damaged, full, foreign, doubly used: each refused in so many words
//! tests/clients.rs      Helm, the Python and the JavaScript library, unmodified
//! tests/e2e.rs          kubectl, containerd, and all of it at once
//! ```
//!
//! A test starts what a user starts: the `kontiki` binary with the README's commands. It reads what
//! a user reads: `cluster.json`, `kubeconfig`, the last line of `kontiki up`.

pub use kontiki_conformance::image;
pub mod kubectl;
pub mod ports;
pub mod requirements;
pub mod server;
pub mod up;
pub mod wait;
