//! The peers' protocol as generated from `proto/raft.proto`, and its conversion to openraft's types.

#![allow(missing_docs, clippy::pedantic, reason = "generated code")]

tonic::include_proto!("kontiki.raft.v1");
