#![no_main]

include!("target.rs.in");

fuzz!("log_entry");
