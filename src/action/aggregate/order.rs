//! The order of elements by one of their values: numbers by what they are worth, with all their digits, then texts by
//! their characters, then what has no such value.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::json::{Json, Kind};

pub enum Rank<'b> {
    Number(Decimal<'b>),
    Text(Cow<'b, str>),
    None,
}

impl<'b> Rank<'b> {
    pub fn of(value: Option<Json<'b>>) -> Self {
        let Some(value) = value else { return Rank::None };
        match (value.kind(), value.text()) {
            (Kind::Number, Some(Cow::Borrowed(text))) => Rank::Number(Decimal::of(text)),
            (Kind::String, Some(text)) => Rank::Text(text),
            _ => Rank::None,
        }
    }

    /// What has no value is last either way.
    pub fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let order = match (self, other) {
            (Rank::None, Rank::None) => return Ordering::Equal,
            (Rank::None, _) => return Ordering::Greater,
            (_, Rank::None) => return Ordering::Less,
            (Rank::Number(one), Rank::Number(other)) => one.compare(other),
            (Rank::Text(one), Rank::Text(other)) => one.cmp(other),
            (Rank::Number(_), Rank::Text(_)) => Ordering::Less,
            (Rank::Text(_), Rank::Number(_)) => Ordering::Greater,
        };
        if descending { order.reverse() } else { order }
    }
}

/// A number of JSON: its digits without zeros at either end, and where the point stands before the first of them.
pub struct Decimal<'b> {
    negative: bool,
    whole: &'b str,
    fraction: &'b str,
    /// The power of ten of the first digit that is not zero.
    magnitude: i64,
}

impl<'b> Decimal<'b> {
    fn of(text: &'b str) -> Self {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let negative = mantissa.starts_with('-');
        let (whole, fraction) = mantissa
            .trim_start_matches('-')
            .split_once('.')
            .unwrap_or((mantissa.trim_start_matches('-'), ""));
        let exponent = exponent.strip_prefix('+').unwrap_or(exponent);
        let most = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse::<i64>().unwrap_or(most).clamp(i64::MIN / 2, i64::MAX / 2);
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let lead = if whole.is_empty() {
            -((fraction.len() - fraction.trim_start_matches('0').len()) as i64)
        } else {
            whole.len() as i64
        };
        let fraction = if whole.is_empty() { fraction.trim_start_matches('0') } else { fraction };
        let whole = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
        Decimal { negative, whole, fraction, magnitude: exponent + lead }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return if other.negative { Ordering::Greater } else { Ordering::Less },
            (false, true) => return if self.negative { Ordering::Less } else { Ordering::Greater },
            (false, false) => {}
        }
        if self.negative != other.negative {
            return if self.negative { Ordering::Less } else { Ordering::Greater };
        }
        // Neither ends with a zero, so that the longer of two that begin alike is the larger: as many digits are looked at as the
        // shorter has.
        let size = self.magnitude.cmp(&other.magnitude).then_with(|| self.digits().cmp(other.digits()));
        if self.negative { size.reverse() } else { size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_their_worth() {
        let ordered = [
            "-1e400",
            "-12345678901234567891",
            "-12345678901234567890",
            "-1.5",
            "-1",
            "-1e-400",
            "0",
            "1e-400",
            "0.05",
            "0.5",
            "1",
            "1.5",
            "2",
            "10",
            "100",
            "100.5",
            "101",
            "1000",
            "1000.000000000000000000000000000001",
            "1001",
            "12345678901234567890",
            "12345678901234567891",
            "1e400",
            "1e99999999999999999999",
        ];
        for (n, one) in ordered.iter().enumerate() {
            for (m, other) in ordered.iter().enumerate() {
                assert_eq!(Decimal::of(one).compare(&Decimal::of(other)), n.cmp(&m), "{one} {other}");
            }
        }
        for (one, other) in [
            ("1", "1.0"),
            ("1e2", "100"),
            ("-1000", "-10.00e2"),
            ("0.1200e3", "120"),
            ("0", "0e9"),
            ("0", "-0.00e7"),
            ("12.50", "1.25E+1"),
            ("0.001", "1e-3"),
        ] {
            assert_eq!(Decimal::of(one).compare(&Decimal::of(other)), Ordering::Equal, "{one} {other}");
        }
    }

    #[test]
    fn what_has_no_value_is_last() {
        let rank = |text: &'static str| Rank::of(Some(Json::of(text.as_bytes())));
        for descending in [false, true] {
            assert_eq!(rank("1").compare(&rank("null"), descending), Ordering::Less);
            assert_eq!(Rank::None.compare(&rank("\"a\""), descending), Ordering::Greater);
            assert_eq!(rank("{}").compare(&rank("[]"), descending), Ordering::Equal);
        }
        assert_eq!(rank("9").compare(&rank("\"1\""), false), Ordering::Less);
        assert_eq!(rank("\"b\"").compare(&rank("\"\\u0061\""), true), Ordering::Less);
    }
}
