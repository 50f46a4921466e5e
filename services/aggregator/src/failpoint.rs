//! Places where tests make the aggregator fail: before and after each durable step.
//!
//! With the cargo feature `failpoints`, which no release has, a place is armed by a
//! file. `TRACER_FAILPOINTS` names a directory; whoever reaches the place `put_before`
//! while there is a file of that name takes it away and does once what it says:
//!
//! - `abort`: the process ends on the spot, as by a crash;
//! - `error`: the step fails, or, at the place after it, its success is not noticed;
//! - `pause 3000`: this thread stands still for so many milliseconds.
//!
//! Files, because the chaos test arms places of processes that run already.
//! Without the feature a place is nothing at all.

/// Reaches a place. The places, each with what its step is:
///
/// - `put_before`, `put_after`: a shard is put into the store;
/// - `letters_before`, `letters_after`: dead letters are written;
/// - `commit_before`, `commit_after`: the group's offset is committed, a hint;
/// - `assign_before`, `assign_after`: the store has told where to go on reading, and
///   the source starts there;
/// - `release_before`, `release_after`: revoked partitions are flushed and are let go.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(place: &'static str) -> Result<(), Injected> {
    let Some(directory) = std::env::var_os("TRACER_FAILPOINTS") else {
        return Ok(());
    };
    let armed = std::path::Path::new(&directory).join(place);
    let Ok(action) = std::fs::read_to_string(&armed) else {
        return Ok(());
    };
    // Of several that come at the same time one takes it.
    if std::fs::remove_file(&armed).is_err() {
        return Ok(());
    }
    tracing::warn!(place, action, "failpoint");
    let mut words = action.split_whitespace();
    match (words.next(), words.next().and_then(|ms| ms.parse().ok())) {
        (Some("abort"), _) => std::process::abort(),
        (Some("pause"), Some(milliseconds)) => {
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
            Ok(())
        }
        _ => Err(Injected(place)),
    }
}

/// The error that a test asked for.
#[cfg(feature = "failpoints")]
#[derive(Debug, thiserror::Error)]
#[error("failpoint {0}")]
pub(crate) struct Injected(&'static str);

#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(crate) fn reach(_: &'static str) -> Result<(), std::convert::Infallible> {
    Ok(())
}
