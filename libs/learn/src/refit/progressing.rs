//! Progress from several threads.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::Progress;

/// Counts steps and tells a listener.
pub(crate) struct Progressing<'a> {
    done: AtomicUsize,
    total: AtomicUsize,
    listener: Mutex<&'a mut (dyn FnMut(Progress) + Send)>,
}

impl<'a> Progressing<'a> {
    pub(crate) fn new(total: usize, listener: &'a mut (dyn FnMut(Progress) + Send)) -> Self {
        Self {
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(total),
            listener: Mutex::new(listener),
        }
    }

    /// More steps have turned out to be ahead.
    pub(crate) fn expect(&self, steps: usize) {
        self.total.fetch_add(steps, Ordering::Relaxed);
    }

    /// A step is done.
    pub(crate) fn done(&self, stage: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(mut listener) = self.listener.lock() {
            (*listener)(Progress {
                stage: stage.to_owned(),
                done,
                total: self.total.load(Ordering::Relaxed).max(done),
            });
        }
    }
}
