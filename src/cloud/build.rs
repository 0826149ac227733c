//! Compiles `cloud.proto` with a compiler written in Rust: a fresh machine has no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/cloud/cloud.proto");
    let descriptors = protox::compile(["src/cloud/cloud.proto"], ["src/cloud"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
