//! What a certificate's issuer says about it (RFC 6960), to be sent along in the handshake.
//!
//! The client checks the signature. Here it is made sure that what is sent is about the certificate, says that it is
//! good, and is not out of date.

use std::time::{Duration, SystemTime};

use super::der::{Der, ENUMERATED, INTEGER, OBJECT, OCTETS, SEQUENCE};

/// How long an answer counts that doesn't say until when it does.
const WITHOUT_NEXT_UPDATE: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Good { until: SystemTime },
    Revoked,
    Unknown,
}

/// What the answer says of the certificate with this serial number. `None` when it is no answer, or one about others.
pub fn status(answer: &[u8], serial: &[u8]) -> Option<Status> {
    let mut response = Der::new(answer).enter(SEQUENCE)?;
    if response.expect(ENUMERATED)? != [0] {
        return None; // The issuer's server could not say anything.
    }
    let mut bytes = response.enter(0xa0)?.enter(SEQUENCE)?;
    bytes.expect(OBJECT)?;
    let mut data = bytes.enter(OCTETS)?.enter(SEQUENCE)?.enter(SEQUENCE)?;
    data.skip(0xa0); // version
    data.next()?; // responderID
    data.next()?; // producedAt
    let mut answers = data.enter(SEQUENCE)?;
    while let Some(one) = answers.enter(SEQUENCE) {
        if let Some(status) = about(one, serial) {
            return Some(status);
        }
    }
    None
}

fn about(mut answer: Der<'_>, serial: &[u8]) -> Option<Status> {
    let mut certificate = answer.enter(SEQUENCE)?;
    certificate.expect(SEQUENCE)?; // hashAlgorithm
    certificate.expect(OCTETS)?; // issuerNameHash
    certificate.expect(OCTETS)?; // issuerKeyHash
    // Numbers may begin with a zero, so as not to be taken for negative ones.
    let bare = |number: &[u8]| number.iter().position(|byte| *byte != 0).map_or(number.len(), |at| at);
    let named = certificate.expect(INTEGER)?;
    if named[bare(named)..] != serial[bare(serial)..] {
        return None;
    }
    let (status, _) = answer.next()?;
    let this_update = answer.time()?;
    let next_update = answer.enter(0xa0).and_then(|mut next| next.time());
    Some(match status {
        0x80 => Status::Good { until: next_update.unwrap_or(this_update + WITHOUT_NEXT_UPDATE) },
        0xa1 => Status::Revoked,
        _ => Status::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = match content.len() {
            short @ 0..=0x7f => vec![short as u8],
            long => vec![0x82, (long >> 8) as u8, long as u8],
        };
        [&[tag][..], &length, &content].concat()
    }

    /// An answer without a signature that would hold.
    fn answer(serial: &[u8], status: &[u8], next_update: Option<&str>) -> Vec<u8> {
        let id = element(
            SEQUENCE,
            &[
                &element(SEQUENCE, &[]),
                &element(OCTETS, &[&[1; 20]]),
                &element(OCTETS, &[&[2; 20]]),
                &element(INTEGER, &[serial]),
            ],
        );
        let time = |text: &str| element(0x18, &[text.as_bytes()]);
        let next = next_update.map_or_else(Vec::new, |next| element(0xa0, &[&time(next)]));
        let one = element(SEQUENCE, &[&id, status, &time("20260101000000Z"), &next]);
        let data = element(
            SEQUENCE,
            &[
                &element(0xa2, &[&element(OCTETS, &[&[3; 20]])]),
                &time("20260101000000Z"),
                &element(SEQUENCE, &[&one]),
            ],
        );
        let basic = element(SEQUENCE, &[&data, &element(SEQUENCE, &[]), &element(0x03, &[&[0; 8]])]);
        let bytes = element(SEQUENCE, &[&element(OBJECT, &[&[0x2b]]), &element(OCTETS, &[&basic])]);
        element(SEQUENCE, &[&element(ENUMERATED, &[&[0]]), &element(0xa0, &[&bytes])])
    }

    const GOOD: &[u8] = &[0x80, 0];

    #[test]
    fn an_answer_is_about_one_certificate() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let good = answer(&[0, 0xab, 1], GOOD, Some("20260108000000Z"));
        assert_eq!(status(&good, &[0xab, 1]), Some(Status::Good { until: at(1_767_830_400) }));
        assert_eq!(status(&good, &[0xab, 2]), None);
        let unlimited = answer(&[5], GOOD, None);
        assert_eq!(status(&unlimited, &[5]), Some(Status::Good { until: at(1_767_312_000) }));
        let revoked = element(0xa1, &[&element(0x18, &[b"20251231000000Z"])]);
        assert_eq!(status(&answer(&[5], &revoked, None), &[5]), Some(Status::Revoked));
        assert_eq!(status(&answer(&[5], &[0x82, 0], None), &[5]), Some(Status::Unknown));
    }

    #[test]
    fn an_answer_as_openssl_writes_it() {
        let answer = include_bytes!("../../../certs/localhost.ocsp");
        let pem = include_bytes!("../../../certs/localhost.crt");
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        let certificate = webpki::EndEntityCert::try_from(&der).unwrap();
        let until = match status(answer, certificate.serial()) {
            Some(Status::Good { until }) => until.duration_since(UNIX_EPOCH).unwrap(),
            other => panic!("{other:?}"),
        };
        // Ten years from 2026 on.
        assert!((2_000_000_000..3_000_000_000).contains(&until.as_secs()), "{until:?}");
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let good = answer(&[5], GOOD, None);
        for end in 0..good.len() {
            assert_eq!(status(&good[..end], &[5]), None);
        }
        // `tryLater` has no answer in it.
        assert_eq!(status(&element(SEQUENCE, &[&element(ENUMERATED, &[&[3]])]), &[5]), None);
        assert_eq!(status(b"-----BEGIN", &[5]), None);
    }
}
