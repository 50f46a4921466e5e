//! The context of a caller's trace, as W3C Trace Context defines it: the headers
//! `traceparent` and `tracestate`.
//!
//! What comes from outside is checked and bounded; what is not well formed is as if it had
//! not come, as the standard asks.

use std::fmt;

/// Longest `tracestate` that is carried: what the standard asks to carry at least.
const MOST_STATE: usize = 512;

/// Most members of a `tracestate`.
const MOST_MEMBERS: usize = 32;

/// The caller's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    /// From the values of the two headers. `None` when `traceparent` is not well formed;
    /// a `tracestate` that is not is left out.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        // 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        let bytes = parent.as_bytes();
        if !parent.is_ascii() || bytes.len() < 55 {
            return None;
        }
        let (known, more) = parent.split_at(55);
        let mut parts = known.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = hexadecimal(version, 2)? as u8;
        // A later version may say more behind a dash; this one says nothing more.
        let ends = more.is_empty() || (version != 0 && more.starts_with('-'));
        if parts.next().is_some() || version == 0xff || !ends {
            return None;
        }
        let context = Self {
            trace_id: hexadecimal(trace, 32)?,
            span_id: hexadecimal(span, 16)? as u64,
            flags: hexadecimal(flags, 2)? as u8,
            state: state.and_then(tracestate),
        };
        (context.trace_id != 0 && context.span_id != 0).then_some(context)
    }

    /// The trace, never 0.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The caller's span, never 0.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// The flags; bit 0 says that the caller records its span.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the caller records its span.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// What tracing systems tell each other, as it came.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// As a `traceparent` of version 0.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
            ..
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// So many digits; upper case is not allowed.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(lower) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

/// The list if it is one: members `key=value` of printable characters.
fn tracestate(text: &str) -> Option<String> {
    let text = text.trim_matches([' ', '\t']);
    let printable = |byte: u8| matches!(byte, b' '..=b'~' | b'\t');
    if text.is_empty() || text.len() > MOST_STATE || !text.bytes().all(printable) {
        return None;
    }
    let mut members = 0;
    for member in text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
    {
        if member.is_empty() {
            continue;
        }
        members += 1;
        let (key, value) = member.split_once('=')?;
        let fits =
            |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
        if key.is_empty() || !key.bytes().all(fits) || value.contains('=') {
            return None;
        }
    }
    (1..=MOST_MEMBERS)
        .contains(&members)
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written_again() {
        let context = TraceContext::parse(PARENT, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
        let context = context.unwrap();
        assert_eq!(
            context.trace_id(),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(context.span_id(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled());
        assert_eq!(
            context.state(),
            Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
        );
        assert_eq!(context.to_string(), PARENT);
        // A later version may say more.
        let later = format!("cc{}-more", &PARENT[2..]);
        assert!(TraceContext::parse(&later, None).is_some());
    }

    #[test]
    fn what_is_not_well_formed_is_none() {
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-more"),
            &format!("{PARENT}0"),
            &format!("ff{}", &PARENT[2..]),
            &format!("cc{}x", &PARENT[2..]),
            &PARENT.to_uppercase(),
            &PARENT.replace('4', "g"),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace("-01", "_01"),
            &format!("00-{}", "é".repeat(30)),
            &"-".repeat(55),
        ] {
            assert_eq!(TraceContext::parse(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_state_that_is_none_is_left_out_and_the_parent_stays() {
        let long = format!("a={}", "x".repeat(600));
        let many = vec!["a=1"; 33].join(",");
        for bad in [
            "", " ", "a", "A=1", "a=1=2", "a=\u{7f}", "=1", "a=ü", &long, &many,
        ] {
            let context = TraceContext::parse(PARENT, Some(bad)).unwrap();
            assert_eq!(context.state(), None, "{bad}");
        }
        let context = TraceContext::parse(PARENT, Some(" a=1,, b@c=2 ")).unwrap();
        assert_eq!(context.state(), Some("a=1,, b@c=2"));
    }
}
