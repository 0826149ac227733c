//! The behaviours that Kubernetes conformance names, each a test of its own against a running
//! cluster, whoever made it.
//!
//! ```text
//!  behaviours.txt   all names ──┐
//!  cases/*.rs       name → test ┴─▶ run: a namespace each, in turns ──▶ report: pass, fail, not run
//! ```
//!
//! A case is written from what its behaviour says, not from upstream's test. It speaks to the API as
//! plain JSON ([`api::Api`]), so that what is tested is what goes over the wire; what needs pods runs
//! a small image of its own ([`image`]). What the cluster must call is served by the runner ([`serve`]).

pub mod api;
pub mod cases;
pub mod image;
pub mod kubeconfig;
pub mod leftovers;
pub mod lifecycle;
pub mod pods;
pub mod report;
pub mod run;
pub mod serve;
pub mod udp;
pub mod up;
pub mod watch;
pub mod world;
