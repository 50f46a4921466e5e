//! Power of the bounds on weighted rows: mean lower bound over seeded repetitions.
//!
//!     cargo run -p tracer-learn --example gate_power
//!
//! `exact` is Clopper–Pearson on the outcomes alone (what rows of equal weight would
//! give), `betting` the gate's, `plug-in` betting with the fixed-n plug-in bets of
//! Waudby-Smith and Ramdas, `bernstein` the empirical Bernstein bound of Maurer and
//! Pontil, `normal` the approximation that holds only asymptotically.
#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use tracer_learn::{betting_lower, clopper_pearson_lower};

type Rows = [(f64, bool)];

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The largest α that `refutes` refutes.
fn largest(refutes: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..20 {
        let middle = 0.5 * (low + high);
        if refutes(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn value(&(weight, agrees): &(f64, bool), alpha: f64) -> f64 {
    weight * (f64::from(u8::from(agrees)) - alpha)
}

fn bernstein(rows: &Rows, cap: f64, delta: f64) -> f64 {
    let n = rows.len() as f64;
    let log = (2.0 / delta).ln();
    largest(|alpha| {
        let mean = rows.iter().map(|r| value(r, alpha)).sum::<f64>() / n;
        let square = |r| (value(r, alpha) - mean).powi(2);
        let variance = rows.iter().map(square).sum::<f64>() / (n - 1.0);
        mean > (2.0 * variance * log / n).sqrt() + 7.0 * cap * log / (3.0 * (n - 1.0))
    })
}

fn plug_in(rows: &Rows, cap: f64, delta: f64) -> f64 {
    let n = rows.len() as f64;
    largest(|alpha| {
        let (mut sum, mut squares, mut count) = (0.0, 0.25 * cap * cap, 1.0);
        let mut wealth = 1.0_f64;
        rows.iter().any(|row| {
            let z = value(row, alpha);
            let bet = (2.0 * (1.0 / delta).ln() / (n * squares / count)).sqrt();
            wealth *= 1.0 + bet.min(0.75 / (cap * alpha)) * z;
            sum += z;
            count += 1.0;
            squares += (z - sum / count).powi(2);
            wealth >= 1.0 / delta
        })
    })
}

fn normal(rows: &Rows) -> f64 {
    let sum: f64 = rows.iter().map(|r| r.0).sum();
    let mean = rows.iter().map(|r| value(r, 0.0)).sum::<f64>() / sum;
    let square = |r| value(r, mean).powi(2);
    mean - 1.645 * rows.iter().map(square).sum::<f64>().sqrt() / sum
}

fn main() {
    let (delta, repetitions) = (0.05, 100);
    let mut random = Random(1);
    println!("    n    TA   cap  weights          exact betting plug-in bernstein normal");
    for n in [50_u64, 100, 400, 1600] {
        for (cap, other, share) in [
            (1.0, 1.0, 1.0),
            (4.6, 1.0, 0.8),
            (4.6, 1.0, 0.3),
            (50.0, 1.0, 0.3),
        ] {
            let ta = 0.97;
            let mut sums = [0.0; 5];
            for _ in 0..repetitions {
                let rows: Vec<(f64, bool)> = (0..n)
                    .map(|_| {
                        let weight = if random.uniform() < share { cap } else { other };
                        (weight, random.uniform() < ta)
                    })
                    .collect();
                let right = rows.iter().filter(|r| r.1).count() as u64;
                let bounds = [
                    clopper_pearson_lower(right, n, delta),
                    betting_lower(&rows, cap, delta),
                    plug_in(&rows, cap, delta),
                    bernstein(&rows, cap, delta),
                    normal(&rows),
                ];
                for (sum, bound) in sums.iter_mut().zip(bounds) {
                    *sum += bound / f64::from(repetitions);
                }
            }
            let [exact, betting, plug_in, bernstein, normal] = sums;
            println!(
                "{n:>5} {ta:>5} {cap:>5}  {share:.1} of {cap:<4} {:.1} of {other} {exact:.4}  {betting:.4}  {plug_in:.4}    {bernstein:.4} {normal:.4}",
                1.0 - share
            );
        }
    }
}
