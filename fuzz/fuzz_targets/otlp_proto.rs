#![no_main]

include!("target.rs.in");

fuzz!("otlp_proto");
