//! Access lists of the broker that `tests/run` starts with TLS and SASL.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "every test uses a part of it; a panic is a failed test"
)]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

const DEADLINE: Duration = Duration::from_mins(1);

// Numbers of Kafka's protocol.
pub(crate) const TOPIC: i8 = 2;
pub(crate) const GROUP: i8 = 3;
pub(crate) const ALL: i8 = 2;
pub(crate) const READ: i8 = 3;
pub(crate) const WRITE: i8 = 4;
pub(crate) const DESCRIBE: i8 = 8;
pub(crate) const DENY: i8 = 2;
pub(crate) const ALLOW: i8 = 3;
const ANY: i8 = 1;
const LITERAL: i8 = 3;

/// Adds an entry to an access list: `CreateAcls`, for which the client has no call.
pub(crate) fn acl(resource: i8, name: &str, principal: &str, operation: i8, permission: i8) {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.push(resource as u8);
    string(&mut body, name);
    body.push(LITERAL as u8);
    string(&mut body, principal);
    string(&mut body, "*");
    body.extend([operation as u8, permission as u8]);
    ask(30, &body);
}

/// Empties an access list: `DeleteAcls`.
pub(crate) fn no_acl(resource: i8, name: &str) {
    let mut body = 1_i32.to_be_bytes().to_vec();
    body.push(resource as u8);
    string(&mut body, name);
    body.push(LITERAL as u8);
    // Of anybody, from anywhere.
    body.extend([0xff; 4]);
    body.extend([ANY as u8; 2]);
    ask(31, &body);
}

fn string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as i16).to_be_bytes());
    to.extend(text.bytes());
}

/// Sends a request of version 1, as the administrator: whoever comes unencrypted.
fn ask(key: i16, body: &[u8]) {
    let mut request = [key.to_be_bytes(), 1_i16.to_be_bytes()].concat();
    request.extend(7_i32.to_be_bytes());
    string(&mut request, "acl");
    request.extend(body);
    let home = std::env::var("TRACER_TEST_SECURE_KAFKA").unwrap();
    let address = std::fs::read_to_string(Path::new(&home).join("plaintext")).unwrap();
    let mut stream = TcpStream::connect(address.trim()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = (request.len() as i32).to_be_bytes();
    stream.write_all(&[&length[..], &request].concat()).unwrap();
    // The length, the correlation, the throttle time, one result, and its error.
    let mut answer = [0; 18];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(
        answer[12..],
        [0, 0, 0, 1, 0, 0],
        "request {key}: {answer:?}"
    );
}
