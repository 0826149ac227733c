//! Compiles the Container Runtime Interface with a compiler written in Rust: a fresh machine has
//! no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/cri.proto");
    let descriptors = protox::compile(["proto/cri.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        .disable_comments(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
