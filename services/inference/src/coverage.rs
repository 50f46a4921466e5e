//! Coverage over the latest routes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The share of handled routes among the latest ones, without a lock.
///
/// Routes are counted in blocks; the share is taken over the current block and
/// the one before it, hence over one to two blocks of routes. A count packs two
/// 32-bit numbers into one word, all routes above, handled ones below, so that a
/// route is one addition. Two threads that end a block at once may put a route
/// into the next one, which a share does not feel.
#[derive(Debug)]
pub(crate) struct Coverage {
    block: u64,
    current: AtomicU64,
    previous: AtomicU64,
}

const ONE: u64 = 1 << 32;
const HANDLED: u64 = ONE - 1;

impl Coverage {
    /// Measures over the latest `window` routes, at least.
    pub(crate) fn new(window: u32) -> Self {
        Self {
            block: u64::from(window.clamp(1, 1 << 30)),
            current: AtomicU64::new(0),
            previous: AtomicU64::new(0),
        }
    }

    /// Counts `total` routes, `handled` of them handled, and answers the share
    /// over the window.
    pub(crate) fn count(&self, total: u32, handled: u32) -> f64 {
        let added = u64::from(total) * ONE + u64::from(handled);
        let current = self.current.fetch_add(added, Relaxed).wrapping_add(added);
        let previous = self.previous.load(Relaxed);
        if current / ONE >= self.block
            && self
                .current
                .compare_exchange(current, 0, Relaxed, Relaxed)
                .is_ok()
        {
            self.previous.store(current, Relaxed);
        }
        let all = current / ONE + previous / ONE;
        let handled = (current & HANDLED) + (previous & HANDLED);
        handled as f64 / all.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_latest_routes_only() {
        let coverage = Coverage::new(100);
        for _ in 0..1000 {
            coverage.count(1, 1);
        }
        let mut share = 1.0;
        for _ in 0..100 {
            share = coverage.count(1, 0);
        }
        assert!((0.4..=0.6).contains(&share), "{share}");
        for _ in 0..100 {
            share = coverage.count(1, 0);
        }
        assert_eq!(share, 0.0);
    }

    #[test]
    fn counts_batches() {
        let coverage = Coverage::new(1000);
        assert_eq!(coverage.count(4, 1), 0.25);
        assert_eq!(coverage.count(4, 3), 0.5);
    }
}
