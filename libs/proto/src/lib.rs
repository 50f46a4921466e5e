//! The public wire contract, generated from `proto/tracer/v1` at build time.
//!
//! Nothing here is written by hand but the module tree: what a field means is
//! said once, in the `.proto` files.

/// `tracer.v1`: traces and routing.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("tracer.v1");
}

/// The encoded `FileDescriptorSet` of everything in [`v1`], for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tracer.v1.bin"));
