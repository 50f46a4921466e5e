//! Compiles `proto/` with protox: no system `protoc` is needed.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked for when it runs: a cached build may have been compiled in another folder.
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let files = [
        root.join("tracer/v1/trace.proto"),
        root.join("tracer/v1/router.proto"),
    ];
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
    }
    println!("cargo:rerun-if-changed=build.rs");

    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("tracer.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".tracer.v1.Input", "crate::input::Input")
        .compile_fds(descriptors)?;
    Ok(())
}
