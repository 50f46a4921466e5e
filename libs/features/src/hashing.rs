//! The stable byte hash behind feature hashing and splits: FNV-1a with a
//! finaliser, because FNV's low bits alone spread short strings badly.

pub(crate) const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Takes in one byte.
#[inline]
pub(crate) const fn update(state: u64, byte: u8) -> u64 {
    (state ^ byte as u64).wrapping_mul(PRIME)
}

/// Mixes the state so that every bit depends on every input byte
/// (the 64-bit finaliser of `MurmurHash3`).
#[inline]
pub(crate) const fn finish(state: u64) -> u64 {
    let mut h = state;
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}
