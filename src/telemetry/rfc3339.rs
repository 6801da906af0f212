//! Moments as RFC 3339 text in UTC, for log lines and status documents.
//!
//! Always four digits of year: moments outside 1970 to 9999 are moved to the nearer end.

use std::time::{SystemTime, UNIX_EPOCH};

const LAST_SECOND: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z
const SECONDS_A_DAY: u64 = 86_400;

/// `2026-11-21T08:31:00Z`.
pub fn rfc3339(time: SystemTime) -> String {
    let mut text = String::from_utf8_lossy(&seconds_text(since_epoch(time).0)).into_owned();
    text.push('Z');
    text
}

/// `2026-11-21T08:31:00.123Z`.
pub fn rfc3339_milliseconds(time: SystemTime) -> String {
    let mut text = Vec::with_capacity(24);
    MillisecondStamp::new().write(time, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Writes `2026-11-21T08:31:00.123Z`. Neighbouring log lines mostly fall into the same second, so
/// the text of the last one is kept.
pub(super) struct MillisecondStamp {
    second: u64,
    text: [u8; 19],
}

impl MillisecondStamp {
    pub(super) fn new() -> Self {
        MillisecondStamp { second: 0, text: seconds_text(0) }
    }

    pub(super) fn write(&mut self, time: SystemTime, out: &mut Vec<u8>) {
        let (second, millis) = since_epoch(time);
        if second != self.second {
            self.second = second;
            self.text = seconds_text(second);
        }
        out.extend_from_slice(&self.text);
        let digit = |n: u32| b'0' + (n % 10) as u8;
        out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }
}

fn since_epoch(time: SystemTime) -> (u64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(age) if age.as_secs() > LAST_SECOND => (LAST_SECOND, 999),
        Ok(age) => (age.as_secs(), age.subsec_millis()),
        Err(_) => (0, 0),
    }
}

/// `second` is at most [`LAST_SECOND`].
fn seconds_text(second: u64) -> [u8; 19] {
    let (year, month, day) = date(second / SECONDS_A_DAY);
    let in_day = second % SECONDS_A_DAY;
    let mut text = *b"0000-00-00T00:00:00";
    two_digits(&mut text[0..2], year / 100);
    two_digits(&mut text[2..4], year % 100);
    two_digits(&mut text[5..7], month);
    two_digits(&mut text[8..10], day);
    two_digits(&mut text[11..13], in_day / 3600);
    two_digits(&mut text[14..16], in_day / 60 % 60);
    two_digits(&mut text[17..19], in_day % 60);
    text
}

fn two_digits(place: &mut [u8], number: u64) {
    place[0] = b'0' + (number / 10 % 10) as u8;
    place[1] = b'0' + (number % 10) as u8;
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so that the
/// leap day is the last of its year and months have a regular length of 30.6 days.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // since 0000-03-01
    let era = days / 146_097; // 400 years
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> String {
        rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn known_moments() {
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_249_860), "2026-11-21T08:31:00Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(LAST_SECOND), "9999-12-31T23:59:59Z");
        assert_eq!(at(LAST_SECOND + 1), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut expected = (1970, 1, 1);
        for day in 0..=LAST_SECOND / SECONDS_A_DAY {
            assert_eq!(date(day), expected);
            let (year, month, day) = expected;
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (day == length, month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }

    #[test]
    fn the_kept_second_is_only_used_within_it() {
        let mut stamp = MillisecondStamp::new();
        let mut out = Vec::new();
        for millis in [7, 999, 1000, 60_042, 5] {
            stamp.write(UNIX_EPOCH + Duration::from_millis(millis), &mut out);
            out.push(b' ');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.007Z 1970-01-01T00:00:00.999Z 1970-01-01T00:00:01.000Z \
             1970-01-01T00:01:00.042Z 1970-01-01T00:00:00.005Z "
        );
    }
}
