//! Rules for numbers, percentages and quantities.

use serde_json::Value;

use super::at::At;
use super::errors::Errors;
use super::names;
use crate::quantity::Quantity;

/// What Kubernetes says of a number below zero.
pub const NEGATIVE: &str = "must be greater than or equal to 0";

/// The field, where set, must not be negative.
pub fn non_negative(errors: &mut Errors, at: &At<'_>) {
    if at.int().is_some_and(|value| value < 0) {
        errors.invalid(at, NEGATIVE);
    }
}

/// The field must be a port's number, or a port's name.
pub fn port_number_or_name(errors: &mut Errors, at: &At<'_>) {
    let port = at.int_or_zero();
    if let Value::String(name) = at.value() {
        errors.invalid_each(at, names::port_name(name));
    } else if let Some(problem) = names::port_number(port) {
        errors.invalid_value(at, port, problem);
    }
}

/// A whole number or a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntOrPercent {
    /// `3`.
    Int(i64),
    /// `25%`.
    Percent(i64),
}

impl IntOrPercent {
    /// Reads one; `None` where there is none or it is malformed.
    pub fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Int),
            Value::String(text) => text.strip_suffix('%')?.parse().ok().map(Self::Percent),
            _ => None,
        }
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Int(0) | Self::Percent(0))
    }
}

/// The field must be a number that is not negative, or a percentage.
pub fn non_negative_int_or_percent(errors: &mut Errors, at: &At<'_>) {
    match at.value() {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                errors.invalid(
                    at,
                    names::regex_error(
                        "a valid percent string must be a numeric string followed by an ending '%'",
                        "[0-9]+%",
                        &["1%", "93%"],
                    ),
                );
            }
        }
        Value::Number(_) => non_negative(errors, at),
        _ => {}
    }
}

/// The field, where it is a percentage, must not be above 100 %.
pub fn not_more_than_all(errors: &mut Errors, at: &At<'_>) {
    if let Some(IntOrPercent::Percent(percent)) = IntOrPercent::parse(at.value())
        && percent > 100
    {
        errors.invalid(at, "must not be greater than 100%");
    }
}

/// The quantity there; `None` where there is none. One that cannot be read is reported.
pub fn quantity(errors: &mut Errors, at: &At<'_>) -> Option<Quantity> {
    let text = match at.value() {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    text.parse()
        .inspect_err(|problem: &crate::quantity::QuantityError| {
            errors.invalid(at, problem.to_string());
        })
        .ok()
}

/// The quantity there must not be negative.
pub fn non_negative_quantity(errors: &mut Errors, at: &At<'_>) -> Option<Quantity> {
    let amount = quantity(errors, at)?;
    if amount.is_negative() {
        errors.invalid_value(at, amount.to_string(), NEGATIVE);
    }
    Some(amount)
}
