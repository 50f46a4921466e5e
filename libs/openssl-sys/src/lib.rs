//! TLS for librdkafka.
//!
//! librdkafka speaks TLS through OpenSSL's interface. The registry's `openssl-sys` wants an
//! OpenSSL of the machine, with its headers, or builds one, which takes Perl and three
//! times as long. This crate stands in its place (see `[patch.crates-io]` of the workspace)
//! and provides AWS-LC, which has the same interface: `aws-lc-sys` compiles its
//! libcrypto from C, and `build.rs` here compiles its libssl, which `aws-lc-sys` by itself
//! does with `CMake` only.
//!
//! What librdkafka includes comes from here, so its waits are mended here as well: see
//! `include/threads.h`.
//!
//! There is nothing to call from Rust.

// Without a use the linker would not be told of the library.
extern crate aws_lc_sys as _;
