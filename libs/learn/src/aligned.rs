//! Numbers that begin at a cache line.
//!
//! The sparse products read whole padded rows from anywhere: unless rows begin at
//! cache lines, every vector touches two.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;
const SPARE: usize = LINE / size_of::<f32>() - 1;

/// A vector of f32 that begins at a cache line.
pub(crate) struct Aligned {
    data: Vec<f32>,
    offset: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn zeros(len: usize) -> Self {
        let data = vec![0.0; len + SPARE];
        let offset = data.as_ptr().align_offset(LINE).min(SPARE);
        Self { data, offset, len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.offset..self.offset + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.offset..self.offset + self.len]
    }
}
