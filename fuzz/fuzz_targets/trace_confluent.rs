#![no_main]

include!("target.rs.in");

fuzz!("trace_confluent");
