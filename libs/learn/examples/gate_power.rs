//! Power of the bounds.
use tracer_learn::{betting_lower, clopper_pearson_lower};

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

/// Maurer-Pontil empirical Bernstein for the largest alpha with mean of w(a-alpha) > 0.
fn bernstein(rows: &[(f64, bool)], cap: f64, delta: f64) -> f64 {
    let n = rows.len() as f64;
    let l = (2.0 / delta).ln();
    let (mut lo, mut hi) = (0.0, 1.0);
    for _ in 0..30 {
        let a = 0.5 * (lo + hi);
        let z: Vec<f64> = rows
            .iter()
            .map(|&(w, g)| w * (f64::from(u8::from(g)) - a))
            .collect();
        let m = z.iter().sum::<f64>() / n;
        let v = z.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n - 1.0);
        if m - (2.0 * v * l / n).sqrt() - 7.0 * cap * l / (3.0 * (n - 1.0)) > 0.0 {
            lo = a
        } else {
            hi = a
        }
    }
    lo
}

/// WSR's fixed-n plug-in bets.
fn wsr(rows: &[(f64, bool)], cap: f64, delta: f64) -> f64 {
    let n = rows.len() as f64;
    let (mut lo, mut hi) = (0.0, 1.0);
    for _ in 0..25 {
        let a = 0.5 * (lo + hi);
        let (mut s, mut q, mut t) = (0.0, 0.25 * cap * cap, 1.0);
        let mut mean = 0.0;
        let mut wealth = 1.0_f64;
        let mut win = false;
        for &(w, g) in rows {
            let z = w * (f64::from(u8::from(g)) - a);
            let lambda = (2.0 * (1.0 / delta).ln() / (n * (q / t)))
                .sqrt()
                .min(0.75 / (cap * a));
            wealth *= 1.0 + lambda * z;
            win |= wealth >= 1.0 / delta;
            s += z;
            t += 1.0;
            mean = s / t;
            q += (z - mean).powi(2);
        }
        let _ = mean;
        if win { lo = a } else { hi = a }
    }
    lo
}

fn main() {
    let mut r = Random(1);
    let delta = 0.05;
    println!(
        "{:>5} {:>6} {:>5} {:>10} | {:>8} {:>8} {:>8} {:>8} {:>8}",
        "n", "TA", "cap", "weights", "CP", "betting", "WSR", "EB", "normal"
    );
    for n in [50, 100, 400, 1600] {
        for ta in [0.95, 0.97] {
            for (cap, kind) in [(1.0, 0), (4.6, 1), (4.6, 2), (4.6, 3), (50.0, 4)] {
                let reps = 100;
                let mut out = vec![Vec::new(); 5];
                for _ in 0..reps {
                    let rows: Vec<(f64, bool)> = (0..n)
                        .map(|_| {
                            // disagreement independent of the weight
                            let w = match kind {
                                0 => 1.0,
                                1 => {
                                    if r.uniform() < 0.8 {
                                        4.6
                                    } else {
                                        1.0
                                    }
                                }
                                2 => {
                                    if r.uniform() < 0.3 {
                                        4.6
                                    } else {
                                        1.0
                                    }
                                }
                                3 => {
                                    if r.uniform() < 0.7 {
                                        4.5
                                    } else {
                                        1.0 + 3.5 * r.uniform()
                                    }
                                }
                                _ => {
                                    if r.uniform() < 0.3 {
                                        48.0
                                    } else {
                                        1.0
                                    }
                                }
                            };
                            (w, r.uniform() < ta)
                        })
                        .collect();
                    let right = rows.iter().filter(|x| x.1).count() as u64;
                    out[0].push(clopper_pearson_lower(right, n as u64, delta));
                    out[1].push(betting_lower(&rows, cap, delta));
                    out[2].push(wsr(&rows, cap, delta));
                    out[3].push(bernstein(&rows, cap, delta));
                    let sw: f64 = rows.iter().map(|x| x.0).sum();
                    let m = rows
                        .iter()
                        .map(|x| if x.1 { x.0 } else { 0.0 })
                        .sum::<f64>()
                        / sw;
                    let v = rows
                        .iter()
                        .map(|x| (x.0 * (f64::from(u8::from(x.1)) - m)).powi(2))
                        .sum::<f64>()
                        .sqrt()
                        / sw;
                    out[4].push(m - 1.645 * v);
                }
                let mean = |v: &Vec<f64>| v.iter().sum::<f64>() / v.len() as f64;
                println!(
                    "{n:>5} {ta:>6} {cap:>5} {kind:>10} | {:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>8.4}",
                    mean(&out[0]),
                    mean(&out[1]),
                    mean(&out[2]),
                    mean(&out[3]),
                    mean(&out[4])
                );
            }
        }
    }
}
