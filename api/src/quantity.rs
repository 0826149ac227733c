//! [`Quantity`]: amounts of a resource as Kubernetes writes them: `100m`, `1Gi`, `1e3`.
//!
//! A value is kept exactly, in billionths, together with the family of suffixes it was written in;
//! [`Quantity`]'s `Display` is the canonical form: the largest suffix that leaves a whole number.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

use thiserror::Error;

/// The family of suffixes in which a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Powers of 1000: `n u m k M G T P E`.
    #[default]
    DecimalSi,
    /// Powers of 1024: `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// An amount, exact to a billionth.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity. The texts are Kubernetes'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// Not of the form at all.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The number is not one.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is not one.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANOS: i128 = 1_000_000_000;
/// The greatest amount: larger ones are cut to it, as Kubernetes does.
const MAX_NANOS: i128 = i64::MAX as i128 * NANOS;
const MILLI_NANOS: i128 = 1_000_000;
/// A decimal exponent beyond this is beyond every amount that can be told apart.
const MAX_EXPONENT: i32 = 64;
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// None of it.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number.
    pub fn whole(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANOS, format: Format::DecimalSi }
    }

    /// Thousandths: the unit of CPU requests.
    pub fn milli(value: i64) -> Self {
        Self { nanos: i128::from(value) * MILLI_NANOS, format: Format::DecimalSi }
    }

    /// Billionths: the unit in which the use of processors is measured.
    pub fn nano(value: i64) -> Self {
        Self { nanos: i128::from(value), format: Format::DecimalSi }
    }

    /// Whole bytes, written with powers of 1024.
    pub fn bytes(value: i64) -> Self {
        Self { nanos: i128::from(value) * NANOS, format: Format::BinarySi }
    }

    /// The amount in whole units, rounded up (away from zero).
    pub fn value(self) -> i64 {
        clamp_i64(div_up(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded up (away from zero).
    pub fn milli_value(self) -> i64 {
        clamp_i64(div_up(self.nanos, MILLI_NANOS))
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Rounded up to thousandths, as every amount in a resource list is.
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self { nanos: div_up(self.nanos, MILLI_NANOS) * MILLI_NANOS, ..self }
    }

    fn write_decimal(self, out: &mut fmt::Formatter<'_>, exponent_form: bool) -> fmt::Result {
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        while exponent % 3 != 0 {
            mantissa *= 10;
            exponent -= 1;
        }
        if exponent_form {
            return if exponent == 0 {
                write!(out, "{mantissa}")
            } else {
                write!(out, "{mantissa}e{exponent}")
            };
        }
        match DECIMAL.iter().find(|(_, power)| *power == exponent) {
            Some((suffix, _)) => write!(out, "{mantissa}{suffix}"),
            None => write!(out, "{mantissa}e{exponent}"),
        }
    }

    fn write_binary(self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut step) = (self.nanos / NANOS, 0);
        while mantissa % 1024 == 0 && step + 1 < BINARY.len() {
            mantissa /= 1024;
            step += 1;
        }
        write!(out, "{mantissa}{}", BINARY[step])
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANOS;
        match self.format {
            _ if self.nanos == 0 => out.write_str("0"),
            // Written in decimal where a power of 1024 would lose something.
            Format::BinarySi if !small && self.is_whole() => self.write_binary(out),
            Format::DecimalExponent => self.write_decimal(out, true),
            Format::BinarySi | Format::DecimalSi => self.write_decimal(out, false),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (sign, rest) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (-1, &text[1..]),
            Some(b'+') => (1, &text[1..]),
            Some(_) => (1, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        if number.is_empty() || !suffix_shape(suffix) {
            return Err(QuantityError::Format);
        }
        let (scale, format) = parse_suffix(suffix)?;
        let nanos = match scale {
            Scale::Ten(exponent) => scaled(number, exponent, 1)?,
            Scale::Two(step) => scaled(number, 0, 1_i128 << (10 * step))?,
        };
        Ok(Self { nanos: sign * nanos, format })
    }
}

enum Scale {
    Ten(i32),
    Two(u32),
}

/// The second group of the regular expression in [`QuantityError::Format`].
fn suffix_shape(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Scale::Ten(*exponent), Format::DecimalSi));
    }
    if let Some(step) =
        (1_u32..).zip(&BINARY[1..]).find_map(|(n, name)| (*name == suffix).then_some(n))
    {
        return Ok((Scale::Two(step), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Scale::Ten(exponent), Format::DecimalExponent))
}

/// `number` times ten to the `exponent` times `factor`, in billionths: rounded up, cut at the greatest.
fn scaled(number: &str, exponent: i32, factor: i128) -> Result<i128, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Numeric);
    }
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    let first = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len());
    if first == digits.len() {
        return Ok(0);
    }
    let fraction_digits = i32::try_from(fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let mut power = exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT) + 9 - fraction_digits;
    let mut mantissa: i128 = 0;
    let mut lost = false;
    for digit in &digits[first..] {
        // Nineteen digits fill the largest amount; what follows them only rounds up or scales.
        if mantissa < 10_i128.pow(19) {
            mantissa = mantissa * 10 + i128::from(*digit);
        } else {
            lost |= *digit != 0;
            power += 1;
        }
    }
    Ok(apply_power(mantissa, power, factor, lost))
}

fn apply_power(mantissa: i128, power: i32, factor: i128, lost: bool) -> i128 {
    let mut value = mantissa.saturating_mul(factor);
    let mut lost = lost;
    for _ in 0..power.unsigned_abs() {
        if power > 0 {
            if value > MAX_NANOS {
                return MAX_NANOS;
            }
            value *= 10;
        } else {
            lost |= value % 10 != 0;
            value /= 10;
        }
    }
    (value + i128::from(lost)).min(MAX_NANOS)
}

fn div_up(value: i128, unit: i128) -> i128 {
    let (quotient, rest) = (value / unit, value % unit);
    quotient + rest.signum()
}

fn clamp_i64(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    /// By amount: `1Gi` and `1024Mi` are equal, and so are `0.1` and `100m`.
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, in the format of the first term unless that is nothing.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX_NANOS, MAX_NANOS), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, in the format of the first term unless that is nothing.
    fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos - other.nanos).clamp(-MAX_NANOS, MAX_NANOS), format }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().map_or_else(|error| error.to_string(), |q| q.to_string())
    }

    #[test]
    fn a_quantity_is_written_with_the_largest_suffix_that_leaves_a_whole_number() {
        for (written, expected) in [
            ("0", "0"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("100", "100"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1e-1", "100e-3"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Mi", "512Ki"),
            ("0.5Ki", "512"),
            ("1023Ki", "1023Ki"),
            ("1Ki", "1Ki"),
            ("1.1Ki", "1126400m"),
            ("0.0001Ki", "102400u"),
            ("5E", "5E"),
            ("2Ei", "2Ei"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+3", "3"),
            (".5", "500m"),
            ("5.", "5"),
            ("0Mi", "0"),
            ("123456789", "123456789"),
            ("100000000000000000000", "9223372036854775807"),
            ("1e30", "9223372036854775807"),
        ] {
            let expected = expected.to_owned();
            assert_eq!(canonical(written), expected, "{written}");
            assert_eq!(canonical(&expected), expected, "{written} twice");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_kubernetes_words() {
        for text in ["", "abc", "1 Gi", " 1", "1Gi ", "--1", "1x"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Format), "{text}");
        }
        for text in ["1Kii", "1mm", "1K", "1e", "1i"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Suffix), "{text}");
        }
        for text in ["1.1.1", "."] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Numeric), "{text}");
        }
    }

    #[test]
    fn amounts_compare_and_add_whatever_their_suffix() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(parse("1Gi"), parse("1024Mi"));
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!((parse("1Gi") + parse("1Gi")).to_string(), "2Gi");
        assert_eq!((Quantity::ZERO + parse("512Mi")).to_string(), "512Mi");
        assert_eq!((parse("1") - parse("250m")).to_string(), "750m");
        assert_eq!(parse("1500m").value(), 2);
        assert_eq!(parse("0.1").milli_value(), 100);
        assert_eq!(parse("1u").rounded_to_milli().to_string(), "1m");
    }
}
