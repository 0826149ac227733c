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

pub use etcdserverpb::*;
pub use mvccpb::KeyValue;
