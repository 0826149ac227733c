//! Kubernetes quantities (`250m`, `64Mi`, `1e3`) as whole numbers, and back.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths, rounded up: CPU.
pub(crate) fn milli(quantity: &Quantity) -> Option<i64> {
    parse(&quantity.0, 1000)
}

/// Whole units, rounded up: bytes and counts.
pub(crate) fn whole(quantity: &Quantity) -> Option<i64> {
    parse(&quantity.0, 1)
}

/// Bytes as Kubernetes writes them: `5028Ki`; what is less than a KiB, as a count.
pub(crate) fn binary(bytes: i64) -> String {
    if bytes.unsigned_abs() < 1024 {
        return decimal(bytes);
    }
    scaled(bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// A count as Kubernetes writes it: `25k`.
pub(crate) fn decimal(count: i64) -> String {
    scaled(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// With the largest suffix that leaves a whole number.
fn scaled(mut number: i64, step: i64, suffixes: &[&str]) -> String {
    let mut suffixes = suffixes.iter();
    let mut suffix = suffixes.next();
    while number != 0
        && number % step == 0
        && let Some(next) = suffixes.next()
    {
        number /= step;
        suffix = Some(next);
    }
    format!("{number}{}", suffix.copied().unwrap_or_default())
}

/// The value times `scale`, rounded up; none if it is no quantity or does not fit.
fn parse(text: &str, scale: i128) -> Option<i64> {
    let text = text.trim();
    let end = text
        .char_indices()
        .find(|(at, c)| {
            !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '-' || *c == '+')))
        })
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at(end);
    let (multiplier, divisor) = suffix_factor(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits = format!("{}{fraction}", whole.trim_start_matches(['-', '+']));
    let mantissa: i128 = digits.parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    let numerator = mantissa.checked_mul(multiplier)?.checked_mul(scale)?;
    let denominator = divisor.checked_mul(10_i128.checked_pow(places)?)?;
    let rounded = numerator.checked_add(denominator - 1)? / denominator;
    i64::try_from(if negative { -(numerator / denominator) } else { rounded }).ok()
}

/// What a suffix multiplies and divides by.
fn suffix_factor(suffix: &str) -> Option<(i128, i128)> {
    let factor = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    };
    Some(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_every_form_are_read() {
        let cases = [
            ("1", 1, Some(1)),
            ("250m", 1000, Some(250)),
            ("0.5", 1000, Some(500)),
            ("1500u", 1000, Some(2)),
            ("64Mi", 1, Some(64 << 20)),
            ("1.5Gi", 1, Some(3 << 29)),
            ("1e3", 1, Some(1000)),
            ("100k", 1, Some(100_000)),
            ("2E", 1, Some(2_000_000_000_000_000_000)),
            ("", 1, None),
            ("abc", 1, None),
            ("1Q", 1, None),
            ("9999999E", 1, None),
        ];
        for (text, scale, want) in cases {
            assert_eq!(parse(text, scale), want, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_written_as_upstream_does() {
        for (bytes, text) in [
            (0, "0"),
            (1000, "1k"),
            (1023, "1023"),
            (1024, "1Ki"),
            (5028 << 10, "5028Ki"),
            (100 << 20, "100Mi"),
            (1_000_000, "1000000"),
            (1 << 62, "4Ei"),
        ] {
            assert_eq!(binary(bytes), text);
        }
        assert_eq!((decimal(25_000), decimal(25_600)), ("25k".to_owned(), "25600".to_owned()));
    }
}
