//! Which shards are compacted together.

use std::{ops::Range, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tracer_trace::OffsetRange;

use super::before;
use crate::shard::WrittenSpan;

/// What is compacted, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// A compacted shard has at most so many rows.
    pub max_rows: u64,
    /// The shards it replaces have at most so many bytes together, before compression: all
    /// their rows are in memory at the same time.
    pub max_bytes: u64,
    /// At least so many shards become one: fewer are not worth it. Two at least.
    pub min_shards: usize,
    /// The last so many shards of a partition are left alone. One at least.
    pub keep_shards: usize,
    /// A shard is left alone until it is so old.
    pub min_age: Duration,
    /// The shards that become one were written within this time, so that they expire
    /// at about the same time.
    pub max_span: Option<Duration>,
}

/// What the plan must know of a shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) range: OffsetRange,
    pub(super) rows: u64,
    pub(super) unpacked: u64,
    pub(super) written: WrittenSpan,
}

/// The runs of shards that are to become one each.
///
/// Positions are cut into two halves, each into two halves, and so on. A run is all
/// shards that start in one such window, where the window is complete: it ends where
/// the shards that may be touched end, or before. The largest windows whose shards fit
/// are taken. So the ranges of two compactions, by whomever and whenever, are apart or
/// one holds the other; and a shard takes part in few compactions, because every one
/// of them is of a window at least twice as large.
pub(super) fn plan(
    chain: &[Candidate],
    rules: &Compaction,
    now: DateTime<Utc>,
) -> Vec<Range<usize>> {
    let young = before(now, rules.min_age);
    let most = chain.len().saturating_sub(rules.keep_shards.max(1));
    let eligible = chain[..most]
        .iter()
        .take_while(|shard| shard.written.last <= young)
        .count();
    let mut runs = Vec::new();
    if let Some(last) = chain[..eligible].last() {
        let plan = Plan {
            chain,
            rules,
            limit: u128::from(last.range.end.get()),
        };
        plan.split(0..eligible, 0, u64::BITS, &mut runs);
    }
    runs
}

struct Plan<'a> {
    chain: &'a [Candidate],
    rules: &'a Compaction,
    limit: u128,
}

impl Plan<'_> {
    /// Plans for the shards that start in the window of `2^level` positions from `start`.
    fn split(&self, shards: Range<usize>, start: u128, level: u32, runs: &mut Vec<Range<usize>>) {
        if shards.len() < self.rules.min_shards.max(2) {
            return;
        }
        if start + (1 << level) <= self.limit && self.fit(&self.chain[shards.clone()]) {
            runs.push(shards);
            return;
        }
        let Some(level) = level.checked_sub(1) else {
            return;
        };
        let half = start + (1 << level);
        let below = self.chain[shards.clone()]
            .partition_point(|shard| u128::from(shard.range.start.get()) < half);
        let middle = shards.start + below;
        self.split(shards.start..middle, start, level, runs);
        self.split(middle..shards.end, half, level, runs);
    }

    fn fit(&self, shards: &[Candidate]) -> bool {
        let sum = |of: fn(&Candidate) -> u64| {
            shards
                .iter()
                .fold(0, |sum: u64, shard| sum.saturating_add(of(shard)))
        };
        let written = shards
            .iter()
            .map(|shard| shard.written)
            .reduce(WrittenSpan::and);
        let span = written.map_or(TimeDelta::zero(), |span| span.last - span.first);
        sum(|shard| shard.rows) <= self.rules.max_rows
            && sum(|shard| shard.unpacked) <= self.rules.max_bytes
            && self
                .rules
                .max_span
                .is_none_or(|most| span.to_std().is_ok_and(|span| span <= most))
    }
}

#[cfg(test)]
mod tests {
    use tracer_trace::Offset;

    use super::*;

    fn at(minute: u64) -> DateTime<Utc> {
        DateTime::from_timestamp(60 * minute as i64, 0).unwrap()
    }

    /// Shards that end at these positions, of a row for each, written at these minutes.
    fn chain(ends: &[u64], minutes: impl Fn(u64) -> u64) -> Vec<Candidate> {
        let mut start = 0;
        ends.iter()
            .map(|end| {
                let range = OffsetRange {
                    start: Offset(start),
                    end: Offset(*end),
                };
                let time = at(minutes(start));
                let rows = end - start;
                start = *end;
                Candidate {
                    range,
                    rows,
                    unpacked: 10 * rows,
                    written: WrittenSpan {
                        first: time,
                        last: time,
                    },
                }
            })
            .collect()
    }

    const RULES: Compaction = Compaction {
        max_rows: 16,
        max_bytes: 1000,
        min_shards: 2,
        keep_shards: 1,
        min_age: Duration::ZERO,
        max_span: None,
    };

    fn ranges(chain: &[Candidate], rules: &Compaction, now: u64) -> Vec<(u64, u64)> {
        plan(chain, rules, at(now))
            .into_iter()
            .map(|run| {
                let shards = &chain[run];
                (
                    shards[0].range.start.get(),
                    shards[shards.len() - 1].range.end.get(),
                )
            })
            .collect()
    }

    #[test]
    fn complete_windows_whose_shards_fit_become_one() {
        let even = chain(&(1..=20).map(|n| 2 * n).collect::<Vec<_>>(), |_| 0);
        // The last shard is kept, and the window from 32 on is not complete.
        assert_eq!(ranges(&even, &RULES, 0), [(0, 16), (16, 32), (32, 36)]);
        let few = Compaction {
            min_shards: 4,
            ..RULES
        };
        assert_eq!(ranges(&even, &few, 0), [(0, 16), (16, 32)]);
        let small = Compaction {
            max_bytes: 80,
            ..RULES
        };
        assert_eq!(ranges(&even, &small, 0)[..2], [(0, 8), (8, 16)]);
        // Kept ones count from the end.
        let kept = Compaction {
            keep_shards: 13,
            ..RULES
        };
        assert_eq!(ranges(&even, &kept, 0), [(0, 8), (8, 12)]);
        let none = Compaction {
            keep_shards: 19,
            ..RULES
        };
        assert!(ranges(&even, &none, 0).is_empty());
        assert!(ranges(&[], &RULES, 0).is_empty());
        // A shard may end behind the window in which it starts.
        let uneven = chain(&[3, 9, 17, 18, 40], |_| 0);
        assert_eq!(ranges(&uneven, &RULES, 0), [(0, 9)]);
    }

    #[test]
    fn young_shards_are_left_alone_and_long_times_not_joined() {
        let times = chain(&(1..=20).map(|n| 2 * n).collect::<Vec<_>>(), |start| start);
        let old = Compaction {
            min_age: Duration::from_mins(10),
            ..RULES
        };
        // At minute 24 those that start up to 14 are old: the last of them ends at 16.
        assert_eq!(ranges(&times, &old, 24), [(0, 16)]);
        assert_eq!(ranges(&times, &old, 23), [(0, 8), (8, 12)]);
        let near = Compaction {
            max_span: Some(Duration::from_mins(6)),
            ..RULES
        };
        assert_eq!(ranges(&times, &near, 99)[..2], [(0, 8), (8, 16)]);
    }

    /// Whatever is planned from whatever state under whatever rules: two ranges are
    /// apart, or one holds the other.
    #[test]
    fn ranges_never_cross() {
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..200 {
            let mut end = 0;
            let ends: Vec<u64> = (0..60)
                .map(|_| {
                    end += 1 + random(9);
                    end
                })
                .collect();
            let original = chain(&ends, |_| 0);
            let mut all = Vec::<(u64, u64)>::new();
            for _ in 0..6 {
                // Some see a log that others have compacted already.
                let mut seen = original[..20 + random(40) as usize].to_vec();
                for _ in 0..random(4) {
                    let rules = Compaction {
                        max_rows: 1 + random(150),
                        min_shards: 2 + random(4) as usize,
                        keep_shards: 1 + random(5) as usize,
                        ..RULES
                    };
                    let runs = plan(&seen, &rules, at(0));
                    for run in runs.into_iter().rev() {
                        let (first, last) = (seen[run.start], seen[run.end - 1]);
                        let range = OffsetRange {
                            start: first.range.start,
                            end: last.range.end,
                        };
                        all.push((range.start.get(), range.end.get()));
                        let rows = seen[run.clone()].iter().map(|shard| shard.rows).sum();
                        let joined = Candidate {
                            range,
                            rows,
                            ..first
                        };
                        seen.splice(run, [joined]);
                    }
                }
            }
            for a in &all {
                for b in &all {
                    let apart = a.1 <= b.0 || b.1 <= a.0;
                    let holds = (a.0 <= b.0 && b.1 <= a.1) || (b.0 <= a.0 && a.1 <= b.1);
                    assert!(apart || holds, "{a:?} and {b:?} cross");
                }
            }
        }
    }
}
