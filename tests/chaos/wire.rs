//! The two requests of Kafka's protocol that its client library has no call for:
//! another order of the replicas, and the election of the preferred leader.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

const ELECT_LEADERS: i16 = 43;
const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sets the order of the replicas of partitions. The first is the preferred leader.
pub(crate) fn reassign(broker: &str, topic: &str, replicas: &[Vec<i32>]) -> Result<(), String> {
    let mut body = Vec::new();
    int32(&mut body, TIMEOUT.as_millis() as i32);
    compact_length(&mut body, 1);
    compact_length(&mut body, topic.len());
    body.extend(topic.bytes());
    compact_length(&mut body, replicas.len());
    for (partition, replicas) in replicas.iter().enumerate() {
        int32(&mut body, partition as i32);
        compact_length(&mut body, replicas.len());
        for replica in replicas {
            int32(&mut body, *replica);
        }
        no_tags(&mut body);
    }
    no_tags(&mut body);
    no_tags(&mut body);
    let answer = ask(broker, ALTER_PARTITION_REASSIGNMENTS, 0, true, &body)?;
    // No tags in the header, the throttle time, and then the error.
    error_of(&answer, 1 + 4)
}

/// Elects the preferred leaders of partitions. One that leads already is left alone.
pub(crate) fn elect_preferred(broker: &str, topic: &str, partitions: i32) -> Result<(), String> {
    let mut body = vec![0];
    int32(&mut body, 1);
    body.extend((topic.len() as i16).to_be_bytes());
    body.extend(topic.bytes());
    int32(&mut body, partitions);
    for partition in 0..partitions {
        int32(&mut body, partition);
    }
    int32(&mut body, TIMEOUT.as_millis() as i32);
    let answer = ask(broker, ELECT_LEADERS, 1, false, &body)?;
    error_of(&answer, 4)
}

/// Sends a request and returns what follows the correlation id of the answer.
fn ask(
    broker: &str,
    key: i16,
    version: i16,
    flexible: bool,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    int32(&mut request, 7);
    // No client id.
    request.extend((-1_i16).to_be_bytes());
    if flexible {
        no_tags(&mut request);
    }
    request.extend(body);
    let exchange = || {
        let mut stream = TcpStream::connect(broker)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(&(request.len() as i32).to_be_bytes())?;
        stream.write_all(&request)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error: std::io::Error| format!("{broker}: {error}"))?;
    answer
        .get(4..)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| format!("{broker}: a short answer"))
}

fn error_of(answer: &[u8], at: usize) -> Result<(), String> {
    match answer.get(at..at + 2) {
        Some([0, 0]) => Ok(()),
        Some(code) => Err(format!("error {}", i16::from_be_bytes([code[0], code[1]]))),
        None => Err("a short answer".to_owned()),
    }
}

fn int32(to: &mut Vec<u8>, value: i32) {
    to.extend(value.to_be_bytes());
}

/// A length of the compact kind: one more than it is, seven bits a byte.
fn compact_length(to: &mut Vec<u8>, length: usize) {
    let mut rest = length + 1;
    while rest >= 0x80 {
        to.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

fn no_tags(to: &mut Vec<u8>) {
    to.push(0);
}
