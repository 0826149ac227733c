//! Writes `api/src/schema/fields.txt`: `cargo run -p kontiki-api --example generate_schema`.
//!
//! The facts come from two crates: k8s-pb's messages give protobuf tags, wire types and Go markers,
//! k8s-openapi's schemas give JSON names, JSON types and what is required. A test
//! (`tests/schema_is_current.rs`) fails when the file differs from what this program would write.

mod source;

fn main() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/schema/fields.txt");
    let text = source::generate();
    std::fs::write(path, &text).expect("fields.txt must be writable");
    println!("{path}: {} lines", text.lines().count());
}
