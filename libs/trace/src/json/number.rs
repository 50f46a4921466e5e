//! Numbers of JSON as 64-bit floats, nearest to what is written.
//!
//! Decimals of up to 15 digits and a small exponent, which is all that an embedding
//! holds, are the quotient or the product of two numbers that are exact in 64 bits, so a
//! single rounding makes them (W. D. Clinger, "How to read floating point numbers
//! accurately", 1990). The standard library reads the others.

/// The powers of ten that are exact.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Digits that certainly fit into 64 bits.
const DIGITS: usize = 19;

/// Exponents of more digits are left to the standard library.
const EXPONENT_DIGITS: usize = 4;

/// Reads the number that a text begins with: the number, and its bytes. `None` where
/// there is none by JSON's grammar, or where it is too large for 64 bits.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Option<(f64, usize)> {
    let negative = bytes.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut mantissa = 0;
    let whole = few_digits(bytes, &mut at, &mut mantissa);
    if whole == 0 || (whole > 1 && bytes[at - whole] == b'0') {
        return None;
    }
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        fraction = digits(bytes, &mut at, &mut mantissa);
        if fraction == 0 {
            return None;
        }
    }
    let mut exponent = 0;
    let mut short = whole + fraction <= DIGITS;
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        let sign = bytes.get(at).copied();
        at += usize::from(matches!(sign, Some(b'+' | b'-')));
        let mut value = 0;
        let count = digits(bytes, &mut at, &mut value);
        if count == 0 {
            return None;
        }
        short &= count <= EXPONENT_DIGITS;
        exponent = value as i64;
        if sign == Some(b'-') {
            // Of as many digits as that only the general way makes anything.
            exponent = exponent.wrapping_neg();
        }
    }
    let value = if short {
        exact(mantissa, exponent - fraction as i64)
    } else {
        None
    };
    let value = match value {
        Some(value) if negative => -value,
        Some(value) => value,
        None => std::str::from_utf8(&bytes[..at]).ok()?.parse().ok()?,
    };
    value.is_finite().then_some((value, at))
}

/// `mantissa` times ten to the `exponent`, where one rounding makes it.
fn exact(mantissa: u64, exponent: i64) -> Option<f64> {
    if mantissa > 1 << f64::MANTISSA_DIGITS {
        return None;
    }
    let ten = *TENS.get(usize::try_from(exponent.unsigned_abs()).ok()?)?;
    let mantissa = mantissa as f64;
    Some(if exponent < 0 {
        mantissa / ten
    } else {
        mantissa * ten
    })
}

/// Passes decimal digits and appends them to a number, which wraps around when there are
/// too many of them. Answers how many there were.
#[inline]
pub(super) fn digits(bytes: &[u8], at: &mut usize, value: &mut u64) -> usize {
    let start = *at;
    while let Some(eight) = eight_digits(bytes, *at) {
        *value = value.wrapping_mul(100_000_000).wrapping_add(eight);
        *at += 8;
    }
    few_digits(bytes, at, value);
    *at - start
}

/// [`digits`], where only few are expected.
#[inline]
fn few_digits(bytes: &[u8], at: &mut usize, value: &mut u64) -> usize {
    let start = *at;
    while let Some(digit) = bytes.get(*at).map(|byte| byte.wrapping_sub(b'0'))
        && digit < 10
    {
        *value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        *at += 1;
    }
    *at - start
}

/// Eight digits at once, added up in pairs, fours and eights within one register.
#[inline]
fn eight_digits(bytes: &[u8], at: usize) -> Option<u64> {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let word = u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?);
    // A digit is 0x30 to 0x39: 3 in the upper half, also of it plus 6.
    let above = word.wrapping_add(0x0606_0606_0606_0606);
    if (word & HIGH) | ((above & HIGH) >> 4) != 0x3333_3333_3333_3333 {
        return None;
    }
    let ones = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(low.wrapping_add(high) >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `serde_json` makes of it, which reads correctly rounded.
    fn oracle(text: &str) -> Option<f64> {
        serde_json::from_str::<serde_json::Value>(text)
            .ok()?
            .as_f64()
    }

    fn same(text: &str) {
        let whole = read(text.as_bytes()).filter(|(_, bytes)| *bytes == text.len());
        assert_eq!(
            whole.map(|(value, _)| value.to_bits()),
            oracle(text).map(f64::to_bits),
            "{text}"
        );
    }

    #[test]
    fn numbers_of_all_forms() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "0.0",
            "1",
            "-1",
            "10",
            "01",
            "00",
            "-",
            "+1",
            ".5",
            "5.",
            "1e5",
            "1E+5",
            "1e-5",
            "1e",
            "1e+",
            "0e0",
            "-0e-0",
            "1.0e1",
            "12345678",
            "123456789",
            "0.12345678",
            "0.123456789",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993e22",
            "9007199254740992e22",
            "9007199254740992e23",
            "18446744073709551615",
            "18446744073709551616",
            "9999999999999999999",
            "99999999999999999999",
            "1e22",
            "1e23",
            "1e-22",
            "1e-23",
            "1e308",
            "1e309",
            "-1e309",
            "1e-400",
            "4.9e-324",
            "2.2250738585072011e-308",
            "1.7976931348623157e308",
            "1e00000000000000000001",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            "1e-99999999999999999999",
            "0.000000000000000000000000000000000000000000001",
            "NaN",
            "inf",
            "Infinity",
            "1_0",
            "0x1",
            "",
            "1.2.3",
            "--1",
            "1e1.5",
            "٣",
        ] {
            same(text);
        }
    }

    #[test]
    fn what_follows_a_number_is_left() {
        assert_eq!(read(b"1,2"), Some((1.0, 1)));
        assert_eq!(read(b"-12.5]"), Some((-12.5, 5)));
        assert_eq!(read(b"123456781234567x"), Some((123_456_781_234_567.0, 15)));
    }

    proptest! {
        #[test]
        fn floats_as_they_are_printed(value: f32, double: f64) {
            for text in [value.to_string(), format!("{value:e}"), double.to_string(), format!("{double:e}")] {
                same(&text);
            }
        }

        #[test]
        fn any_text_of_the_characters_of_numbers(text in "-?[0-9]{0,25}(\\.[0-9]{0,25})?([eE][+-]?[0-9]{0,4})?") {
            same(&text);
        }

        #[test]
        fn any_mix_of_the_characters_of_numbers(text in "[-+.eE0-9]{0,12}") {
            same(&text);
        }
    }
}
