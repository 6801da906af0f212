//! As much of DER (X.690) as it takes to find out until when something signed is good.
//!
//! What is read here was checked, or will be, by whoever uses it: this only finds moments in it. Whatever it can't follow
//! is `None`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const INTEGER: u8 = 0x02;
pub const OCTETS: u8 = 0x04;
pub const OBJECT: u8 = 0x06;
pub const ENUMERATED: u8 = 0x0a;
pub const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Elements one after the other.
#[derive(Clone, Copy)]
pub struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    pub fn new(bytes: &'d [u8]) -> Self {
        Der(bytes)
    }

    /// The tag and the content of the next element.
    pub fn next(&mut self) -> Option<(u8, &'d [u8])> {
        let [tag, length, rest @ ..] = self.0 else { return None };
        // Tags of several bytes are in nothing that is read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next element, if it has this tag.
    pub fn expect(&mut self, wanted: u8) -> Option<&'d [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    /// What is in the next element, if it has this tag.
    pub fn enter(&mut self, wanted: u8) -> Option<Der<'d>> {
        self.expect(wanted).map(Der)
    }

    /// Goes past the next element if it has this tag.
    pub fn skip(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }

    /// A `Time` of either kind (RFC 5280 §4.1.2.5).
    pub fn time(&mut self) -> Option<SystemTime> {
        match self.next()? {
            (UTC_TIME, text) => {
                let year = digits(text.get(..2)?)?;
                moment(if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
            }
            (GENERALIZED_TIME, text) => moment(digits(text.get(..4)?)?, text.get(4..)?),
            _ => None,
        }
    }
}

/// From when until when a certificate (RFC 5280 §4.1) is good.
pub fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let mut signed = Der::new(certificate).enter(SEQUENCE)?.enter(SEQUENCE)?;
    signed.skip(0xa0); // version
    signed.expect(INTEGER)?; // serialNumber
    signed.expect(SEQUENCE)?; // signature
    signed.expect(SEQUENCE)?; // issuer
    let mut validity = signed.enter(SEQUENCE)?;
    Some((validity.time()?, validity.time()?))
}

/// When a revocation list (RFC 5280 §5.1) is to be replaced by the next one.
pub fn next_update(list: &[u8]) -> Option<SystemTime> {
    let mut signed = Der::new(list).enter(SEQUENCE)?.enter(SEQUENCE)?;
    signed.skip(INTEGER); // version
    signed.expect(SEQUENCE)?; // signature
    signed.expect(SEQUENCE)?; // issuer
    signed.time()?; // thisUpdate
    signed.time()
}

/// `MMDDhhmmssZ`, perhaps with a fraction.
fn moment(year: u64, rest: &[u8]) -> Option<SystemTime> {
    let [month, day, hour, minute, second] =
        [0, 2, 4, 6, 8].map(|at| rest.get(at..at + 2).and_then(digits)).map(|part| part.unwrap_or(u64::MAX));
    let right =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !right || year < 1970 || rest.last() != Some(&b'Z') {
        return None;
    }
    // Years that begin with March: the day that a leap year has more is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    /// From the 1st of March of year 0 to the beginning of 1970.
    const BEFORE_1970: u64 = 719_468;
    let seconds = days.checked_sub(BEFORE_1970)? * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn digits(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tag: u8, text: &str) -> Option<u64> {
        let element = [&[tag, text.len() as u8], text.as_bytes()].concat();
        Der::new(&element).time().map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "20000301000000Z", Some(951_868_800)),
            (GENERALIZED_TIME, "21000228235959Z", Some(4_107_542_399)),
            (GENERALIZED_TIME, "20260101000000.5Z", Some(1_767_225_600)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "501231235959Z", None),
            (UTC_TIME, "241301000000Z", None),
            (UTC_TIME, "240100000000Z", None),
            (UTC_TIME, "24010100000Z", None),
            (UTC_TIME, "2401010000", None),
            (UTC_TIME, "240101000000+0100", None),
            (UTC_TIME, "", None),
            (INTEGER, "240101000000Z", None),
        ] {
            assert_eq!(seconds(tag, text), expected, "{text}");
        }
    }

    #[test]
    fn certificates_and_lists_tell_until_when_they_are_good() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(2055, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let expected =
            [1_582_934_400, 2_713_824_000].map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        let der = certificate.der();
        assert_eq!(validity(der), Some((expected[0], expected[1])));
        for end in 0..der.len() {
            // However much of it is missing, nothing panics.
            let _ = (validity(&der[..end]), next_update(&der[..end]));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = (validity(&bytes), next_update(&bytes), Der::new(&bytes).time());
        }
    }
}
