//! The etcd API as generated from `proto/etcd.proto`, client and server.

#![allow(missing_docs, clippy::pedantic, reason = "generated code")]

/// etcd's package of key-value messages.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// etcd's package of requests.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// etcd's package of users and permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// etcd's package of its lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// etcd's package of its election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The descriptors of all of them, encoded.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.bin"));

pub use etcdserverpb::*;
pub use mvccpb::{Event, KeyValue};
