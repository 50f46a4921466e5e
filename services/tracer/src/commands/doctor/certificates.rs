//! How long certificates hold.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tracer_source::SourceConfig;

use super::finding::{Finding, Report};
use crate::{config::Config, host::Roles};

/// Who gets a new certificate by hand needs so long.
const SOON: TimeDelta = TimeDelta::days(30);

/// Looks at every certificate that these services show or check others by.
pub(super) fn examine(report: &mut Report, config: &Config, roles: Roles) {
    let mut files = Vec::new();
    if roles.inference {
        let security = &config.security;
        files.push(("security.tls_cert", security.tls_cert.clone()));
        files.push(("security.client_ca", security.client_ca.clone()));
    }
    if let SourceConfig::Kafka(kafka) = &config.source
        && (roles.aggregator || roles.inference)
        && let Some(tls) = &kafka.security.tls
    {
        for (key, file) in [
            ("source.tls.ca", &tls.ca),
            ("source.tls.certificate", &tls.certificate),
        ] {
            files.extend(file.as_ref().map(|file| (key, file.display().to_string())));
        }
    }
    for (key, file) in files.into_iter().filter(|(_, file)| !file.is_empty()) {
        report.add(of_file(key, &file, Utc::now()));
    }
}

fn of_file(key: &str, file: &str, now: DateTime<Utc>) -> Finding {
    let check = format!("certificates: {key}");
    let bad = |found: String| {
        let remedy = format!(
            "correct {key}: it must name a file of certificates in PEM format that this process may read"
        );
        Finding::failed(&check, format!("{file}: {found}"), remedy)
    };
    let pem = match std::fs::read(file) {
        Ok(pem) => pem,
        Err(error) => return bad(error.to_string()),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.unwrap_or_default();
    let spans: Option<Vec<_>> = certificates.iter().map(|der| validity(der)).collect();
    // The whole chain ends with the first of it.
    let Some((from, until)) = spans.and_then(|spans| {
        let from = spans.iter().map(|span| span.0).max()?;
        Some((from, spans.iter().map(|span| span.1).min()?))
    }) else {
        return bad("holds no certificate in PEM format".to_owned());
    };
    let found = format!("{file}: valid until {}", until.format("%Y-%m-%d %H:%M UTC"));
    let renew = format!(
        "put a new certificate into {file}; it is read again while the server runs where the key is one of [security], and at a restart for [source]"
    );
    if now > until {
        return Finding::failed(check, format!("{found}: expired"), renew);
    }
    if now < from {
        let found = format!(
            "{file}: not valid before {}",
            from.format("%Y-%m-%d %H:%M UTC")
        );
        let remedy = "synchronise this machine's clock, or wait";
        return Finding::failed(check, found, remedy);
    }
    if until - now < SOON {
        return Finding::warning(check, found, renew);
    }
    Finding::ok(check, found)
}

/// From when until when a certificate is valid (RFC 5280, 4.1): the fifth part of what is
/// signed, or the fourth where there is no version.
fn validity(der: &[u8]) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (certificate, _) = part(der, SEQUENCE)?;
    let (mut signed, _) = part(certificate, SEQUENCE)?;
    if *signed.first()? == VERSION {
        signed = part(signed, VERSION)?.1;
    }
    // The number, the algorithm and the issuer.
    for tag in [0x02, SEQUENCE, SEQUENCE] {
        signed = part(signed, tag)?.1;
    }
    let (validity, _) = part(signed, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    Some((from, time(rest)?.0))
}

/// The content of the first value of DER, if it has this tag, and what follows it.
fn part(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length has as many bytes.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time, and what follows it.
fn time(der: &[u8]) -> Option<(DateTime<Utc>, &[u8])> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let tag = *der.first()?;
    let (text, rest) = part(der, tag)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match (tag, text.get(..2)?) {
        // Of this century up to the year 49.
        (UTC_TIME, year) if year < "50" => format!("20{text}"),
        (UTC_TIME, _) => format!("19{text}"),
        (GENERALIZED_TIME, _) => text.to_owned(),
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some((time.and_utc(), rest))
}

#[cfg(test)]
mod tests {
    use chrono::Datelike as _;
    use rcgen::{CertificateParams, KeyPair};

    use super::{super::finding::Status, *};

    fn certificate(directory: &std::path::Path, from: i32, until: i32) -> String {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 2, 3);
        params.not_after = rcgen::date_time_ymd(until, 4, 5);
        let key = KeyPair::generate().unwrap();
        let file = directory.join(format!("{from}-{until}.pem"));
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        file.display().to_string()
    }

    #[test]
    fn certificates_are_told_before_they_expire() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let at = |year, month, day| {
            let date = chrono::NaiveDate::from_ymd_opt(year, month, day).unwrap();
            date.and_hms_opt(0, 0, 0).unwrap().and_utc()
        };
        // Years before and after 2050 are written in two ways.
        for (from, until) in [(2020, 2030), (2049, 2061)] {
            let file = certificate(path, from, until);
            let of = |now| of_file("security.tls_cert", &file, now);
            let good = of(at(until - 1, 1, 1));
            assert_eq!(good.status, Status::Ok, "{good:?}");
            assert!(good.found.contains(&format!("{until}-04-05")), "{good:?}");
            assert_eq!(of(at(until, 3, 20)).status, Status::Warning);
            let expired = of(at(until, 4, 6));
            assert_eq!(expired.status, Status::Failed);
            assert!(expired.remedy.unwrap().contains("new certificate"));
            assert_eq!(of(at(from, 2, 1)).status, Status::Failed);
        }
        // Of several the first that ends counts.
        let chain = path.join("chain.pem");
        let both: String = [(2020, 2030), (2020, 2040)]
            .map(|(from, until)| std::fs::read_to_string(certificate(path, from, until)).unwrap())
            .concat();
        std::fs::write(&chain, both).unwrap();
        let found = of_file("k", chain.to_str().unwrap(), at(2025, 1, 1)).found;
        assert!(found.contains("2030-04-05"), "{found}");
    }

    #[test]
    fn what_is_no_certificate_is_refused_whatever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = certificate(directory.path(), 2020, 2030);
        let pem = std::fs::read(&file).unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap().to_vec();
        let (from, until) = validity(&der).unwrap();
        assert_eq!((from.year(), until.year()), (2020, 2030));
        for length in 0..der.len() {
            let cut = &der[..length];
            assert_eq!(validity(cut), None, "{length}");
        }
        for byte in 0..der.len() {
            let mut other = der.clone();
            other[byte] ^= 0xff;
            // Whatever it is taken for, nothing panics.
            let _ = validity(&other);
        }
        assert_eq!(
            of_file("k", "/no/such/file", Utc::now()).status,
            Status::Failed
        );
    }
}
