#![no_main]

include!("target.rs.in");

fuzz!("reset");
