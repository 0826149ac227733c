//! The protocol of clouds as generated from `cloud.proto`: the client for us, the server for clouds
//! that are written in Rust.

#![allow(missing_docs, clippy::pedantic, reason = "generated code")]

tonic::include_proto!("kontiki.cloud.v1");
