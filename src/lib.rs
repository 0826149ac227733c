//! The binary's chapter: the command line, and how the parts become processes.
//!
//! ```text
//!  kontiki up ──starts and supervises──▶ kontiki server ×3      kontiki agent ×1
//!   │  balancer (kubeconfig's address)     │                      └ kontiki-node-agent
//!   └  cluster.json, logs                  ├ engine, store        (kontiki-storage)
//!                                          ├ Raft node, etcd API  (kontiki-raft)
//!                                          ├ Kubernetes API       (kontiki-api)
//!                                          └ leader-only tasks: scheduler, controllers,
//!                                          │   what they ask of a cloud
//! ```
//!
//! A verb of the command line is one file in [`cli`]. Flags are parsed by clap, laid over the
//! environment and one TOML file by [`config`], then validated into a second type that the rest of
//! the code takes. What runs until it is told to stop hangs on one tree of cancellation tokens
//! ([`shutdown`]), stops in the reverse order of its start, and is joined.

pub mod cli;
pub mod config;
pub mod shutdown;
pub mod telemetry;

pub mod picture;
pub mod pki;
pub mod token;

pub mod enroll;
pub mod live;
pub mod member;
pub mod members;
pub mod server;

pub mod compaction;
pub mod threads;

pub mod snapshot;

pub mod leader;
pub mod leader_context;

pub mod cloud;
pub mod controllers;
pub mod scheduler;

pub mod client;
pub mod cluster_cidr;
pub mod cluster_file;
pub mod cluster_status;
pub mod dir_lock;
pub mod kubeconfig;
pub mod process;

pub mod balancer;
pub mod up;

pub mod bench;
pub mod chaos;
pub mod check;
pub mod hollow;
