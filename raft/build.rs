//! Compiles the protocols in `proto/` without needing `protoc`. The descriptors of etcd's are kept
//! beside the code: reflection tells them, and the JSON gateway reads messages by them.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message as _;

/// etcd's own protocols.
const ETCD: [&str; 5] = [
    "proto/auth.proto",
    "proto/kv.proto",
    "proto/etcd.proto",
    "proto/lock.proto",
    "proto/election.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let build = || tonic_prost_build::configure().bytes(".");
    build().compile_fds(protox::compile(["proto/raft.proto"], ["proto"])?)?;
    let etcd = protox::compile(ETCD, ["proto"])?;
    let kept = PathBuf::from(std::env::var("OUT_DIR")?).join("etcd.bin");
    std::fs::write(kept, etcd.encode_to_vec())?;
    build().compile_fds(etcd)?;
    Ok(())
}
