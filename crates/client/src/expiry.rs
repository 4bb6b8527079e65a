//! When certificates expire.
//!
//! Source: RFC 5280, section 4.1 (the fields of a certificate before its validity) and 4.1.2.5 (the two forms of a time).

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Tags of DER.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// When the first of the certificates in a PEM file expires, in seconds of Unix time. `None` if there is none that can be
/// read.
pub fn expiry(pem: &[u8]) -> Option<u64> {
    let found = CertificateDer::pem_slice_iter(pem).map_while(Result::ok);
    found.filter_map(|one| not_after(&one)).min()
}

/// The end of a certificate's validity.
fn not_after(der: &[u8]) -> Option<u64> {
    let mut certificate = Der(Der(der).take(SEQUENCE)?);
    let mut fields = Der(certificate.take(SEQUENCE)?);
    // The first version says nothing of it.
    let _ = fields.take(VERSION);
    fields.take(INTEGER)?;
    // The signature's algorithm, and who signed.
    fields.take(SEQUENCE)?;
    fields.take(SEQUENCE)?;
    let mut validity = Der(fields.take(SEQUENCE)?);
    validity.next()?;
    match validity.next()? {
        (UTC_TIME, text) => {
            let year = number(text, 0, 2)?;
            seconds(if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        (GENERALIZED_TIME, text) => seconds(number(text, 0, 4)?, text.get(4..)?),
        _ => None,
    }
}

/// Elements of DER, one after the other.
struct Der<'a>(&'a [u8]);

// === impl Der ===

impl<'a> Der<'a> {
    /// Tag and content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, short], rest) = self.0.split_first_chunk()?;
        let (len, rest) = match short {
            0..=0x7f => (usize::from(short), rest),
            0x81..=0x84 => {
                let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
                (long.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, if it has this tag; else it stays the next.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut after = Der(self.0);
        let (_, content) = after.next().filter(|(found, _)| *found == tag)?;
        *self = after;
        Some(content)
    }
}

/// The decimal digits there.
fn number(text: &[u8], at: usize, len: usize) -> Option<u64> {
    let digits = text.get(at..at + len)?;
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Unix time of `MMDDhhmmssZ` in a year from 1970 on.
fn seconds(year: u64, rest: &[u8]) -> Option<u64> {
    let at = |place: usize| number(rest, 2 * place, 2);
    let (month, day, hour, minute, second) = (at(0)?, at(1)?, at(2)?, at(3)?, at(4)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || rest.get(10) != Some(&b'Z') {
        return None;
    }
    // Years begin in March, so that a leap day is the last one of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some(((days.checked_sub(719_468)? * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(year: i32, month: u8, day: u8) -> String {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_either_form_and_in_leap_years() {
        for (year, month, day, expected) in [
            (1976, 2, 29, 194_400_000),
            (2026, 11, 26, 1_795_651_200),
            (2049, 12, 31, 2_524_521_600),
            (2050, 1, 1, 2_524_608_000),
            (2100, 3, 1, 4_107_542_400),
        ] {
            assert_eq!(expiry(made(year, month, day).as_bytes()), Some(expected), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn of_several_certificates_the_first_that_expires_counts() {
        let chain = [made(2050, 1, 1), made(2026, 11, 26), made(2049, 12, 31)].concat();
        assert_eq!(expiry(chain.as_bytes()), Some(1_795_651_200));
        assert_eq!(expiry(b"nothing"), None);
    }

    proptest! {
        #[test]
        fn a_certificate_with_wrong_bytes_is_read_to_an_end(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut der = CertificateDer::from_pem_slice(made(2050, 1, 1).as_bytes()).unwrap().to_vec();
            for (at, byte) in changes {
                let at = at.index(der.len());
                der[at] = byte;
            }
            let _ = not_after(&der);
            let _ = not_after(&der[..cut.index(der.len())]);
        }
    }
}
