//! The few special functions the bounds stand on, in double precision.

use std::f64::consts::{PI, SQRT_2};

/// ln Γ(x) for x > 0: Stirling's series, after shifting x above 10.
/// The relative error is below 1e-14 away from the zeros at 1 and 2.
pub(super) fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 1.0);
    while x < 10.0 {
        shift *= x;
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square
                        * (1.0 / 1260.0
                            - square
                                * (1.0 / 1680.0
                                    - square * (1.0 / 1188.0 - square * 691.0 / 360_360.0)))));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series - shift.ln()
}

/// The regularised incomplete beta function with the constant of one (a, b)
/// computed once, for many x.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beta {
    a: f64,
    b: f64,
    ln_constant: f64,
}

impl Beta {
    /// `a` and `b` are positive.
    pub(super) fn new(a: f64, b: f64) -> Self {
        Self {
            a,
            b,
            ln_constant: ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b),
        }
    }

    /// The density of the beta distribution at 0 < x < 1.
    pub(super) fn density(&self, x: f64) -> f64 {
        ((self.a - 1.0) * x.ln() + (self.b - 1.0) * (-x).ln_1p() - self.ln_constant).exp()
    }

    /// `I_x(a, b)`, the distribution function.
    pub(super) fn regularized(&self, x: f64) -> f64 {
        self.to(1e-15, x)
    }

    /// `I_x(a, b)` to a relative error of some 1e-5.
    pub(super) fn roughly(&self, x: f64) -> f64 {
        self.to(1e-5, x)
    }

    fn to(&self, tolerance: f64, x: f64) -> f64 {
        let (a, b) = (self.a, self.b);
        if x <= 0.0 {
            return 0.0;
        }
        if x >= 1.0 {
            return 1.0;
        }
        let front = (a * x.ln() + b * (-x).ln_1p() - self.ln_constant).exp();
        // The fraction converges fast on this side of the mean only.
        if x < (a + 1.0) / (a + b + 2.0) {
            front * fraction(a, b, x, tolerance) / a
        } else {
            1.0 - front * fraction(b, a, 1.0 - x, tolerance) / b
        }
    }
}

/// Lentz's evaluation of the continued fraction of the incomplete beta function.
/// It takes some √max(a, b) steps; the limit serves counts up to 10¹⁰.
fn fraction(a: f64, b: f64, x: f64, tolerance: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for m in 1..200_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = d * c;
        value *= step;
        if (step - 1.0).abs() < tolerance || step.is_nan() {
            break;
        }
    }
    value
}

/// The density of the standard normal distribution.
pub(super) fn normal_density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The distribution function of the standard normal distribution.
pub(crate) fn normal_distribution(z: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(-z / SQRT_2)
}

/// Its inverse, for 0 < p < 1: algorithm AS 241 (Wichura, Applied Statistics 37,
/// 1988), relative error 1e-7 (its single-precision variant, which suffices to
/// choose bets and orders by).
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q
            * (((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9)
            / (((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0);
    }
    let r = (-p.min(1.0 - p).ln()).sqrt();
    let value = if r <= 5.0 {
        let r = r - 1.6;
        (((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_39) * r + 1.423_437_277_7)
            / ((0.120_211_329_75 * r + 0.737_001_642_5) * r + 1.0)
    } else {
        let r = r - 5.0;
        (((0.017_337_203_997 * r + 0.428_682_943_37) * r + 3.081_226_386) * r + 6.657_905_115)
            / ((0.012_258_202_635 * r + 0.241_978_942_25) * r + 1.0)
    };
    if q < 0.0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_gamma_at_known_points() {
        let mut factorial = 0.0_f64;
        for n in 1..60 {
            factorial += f64::from(n).ln();
            let value = ln_gamma(f64::from(n) + 1.0);
            assert!(
                (value - factorial).abs() < 1e-13 * factorial.max(1.0),
                "{n}"
            );
        }
        assert!((ln_gamma(0.5) - 0.5 * PI.ln()).abs() < 1e-14);
    }

    #[test]
    fn the_incomplete_beta_function_agrees_with_closed_forms() {
        // I_x(a, 1) = x^a and I_x(1, b) = 1 - (1-x)^b.
        for x in [1e-6, 0.2, 0.5, 0.95, 0.999_999] {
            for k in [1.0, 2.5, 40.0, 3e5] {
                assert!((Beta::new(k, 1.0).regularized(x) - f64::powf(x, k)).abs() < 1e-10);
                let other = -(k * (-x).ln_1p()).exp_m1();
                assert!((Beta::new(1.0, k).regularized(x) - other).abs() < 1e-10);
            }
            // The recurrence and the symmetry, at sizes where fixed iteration limits fail.
            for (a, b) in [(3.0, 4.0), (120.0, 7.0), (9.5e5, 5e4)] {
                let whole = Beta::new(a, b).regularized(x);
                let split = x * Beta::new(a - 1.0, b).regularized(x)
                    + (1.0 - x) * Beta::new(a, b - 1.0).regularized(x);
                assert!((whole - split).abs() < 1e-8, "{a} {b} {x}: {whole} {split}");
                let mirrored = 1.0 - Beta::new(b, a).regularized(1.0 - x);
                assert!((whole - mirrored).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn the_normal_quantile_inverts_the_distribution() {
        for p in [1e-12, 1e-4, 0.05, 0.3, 0.5, 0.8, 0.975, 1.0 - 1e-9] {
            let back = normal_distribution(normal_quantile(p));
            assert!((back - p).abs() < 1e-5 * p.min(1.0 - p), "{p}: {back}");
        }
    }
}
