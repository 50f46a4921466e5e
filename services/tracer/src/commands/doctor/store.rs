//! The store: that it is there, and keeps the contract that everything rests on.

use std::{path::PathBuf, time::Duration};

use chrono::Utc;
use tracer_store::{Probe, Store, StoreError};

use super::{
    finding::{Finding, Report, whole},
    local,
};
use crate::config::Config;

/// Clocks that differ by more make logs and ages misleading.
const SKEW: i64 = 5;

/// Stores on `s3://` refuse requests from clocks that differ by fifteen minutes.
const MOST_SKEW: i64 = 300;

const UNREACHED: &str = "look at store.url, store.options.endpoint and the AWS_* variables, and whether a firewall lets this machine reach the store";

const NOT_ABSENT: &str = "use a store, or a version of it, that honours `If-None-Match: *` of PutObject: without it two writers overwrite each other, and traces are lost or counted twice. Do not run Tracer on this one";

/// The directory of a store that is one.
fn directory(config: &Config) -> Option<PathBuf> {
    let url = &config.store.url;
    match url.split_once("://") {
        None => Some(PathBuf::from(url)),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    }
}

/// Opens the store, unless it is a directory that is not there: it is not made here.
pub(super) async fn open(report: &mut Report, config: &Config, limit: Duration) -> Option<Store> {
    if let Some(directory) = directory(config)
        && !local::directory(report, "store", &directory)
    {
        return None;
    }
    let opened = Store::open(&config.store.url, &config.store.options);
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let remedy = "correct store.url or store.options";
            report.add(Finding::failed("store", whole(&error), remedy));
            return None;
        }
    };
    let check = "store: reached";
    let looked = report
        .within(check, limit, UNREACHED, store.check())
        .await?;
    if let Err(error) = looked {
        report.add(refused(check, &error));
        return None;
    }
    report.add(Finding::ok(check, store.url()));
    Some(store)
}

/// Tries what Tracer asks of a store.
pub(super) async fn examine(report: &mut Report, store: &Store, limit: Duration) {
    let probe = store.probe();
    let tried = puts(report, &probe, limit).await;
    if tried.is_none() {
        report.not_tried("store: the other checks, which need an object in it");
    }
    // Whatever came of it: an answer may have been lost.
    let check = "store: delete";
    let remedy = format!("allow DeleteObject; delete {} by hand", probe.path());
    match report.within(check, limit, &remedy, probe.delete()).await {
        Some(Ok(true)) => report.add(Finding::ok(check, "the probe is gone again")),
        Some(Ok(false)) => {
            let found = "what was deleted is still listed";
            report.add(Finding::failed(check, found, remedy));
        }
        Some(Err(error)) if tried.is_some() => report.add(Finding::failed(
            check,
            whole(&error),
            format!("{remedy}. Compaction and retention delete shards"),
        )),
        Some(Err(_)) | None => {}
    }
}

async fn puts(report: &mut Report, probe: &Probe, limit: Duration) -> Option<()> {
    let check = "store: put";
    let before = Utc::now();
    match report.within(check, limit, UNREACHED, probe.put()).await? {
        Ok(true) => report.add(Finding::ok(check, format!("{} was put", probe.path()))),
        Ok(false) => {
            let found = format!("{} is taken, though nobody has put it", probe.path());
            let remedy = "try again; when it stays so, the store's answers cannot be trusted";
            report.add(Finding::failed(check, found, remedy));
            return None;
        }
        Err(error) => {
            report.add(refused(check, &error));
            return None;
        }
    }
    let after = Utc::now();

    let check = "store: put-if-absent";
    let second = async {
        let second = probe.put().await?;
        Ok::<_, StoreError>((second, probe.is_first().await?))
    };
    match report.within(check, limit, UNREACHED, second).await? {
        Ok((false, true)) => report.add(Finding::ok(check, "a second put of a name is refused")),
        Ok((true, _)) => {
            let found = "a second put of the same name was taken";
            report.add(Finding::failed(check, found, NOT_ABSENT));
        }
        Ok((false, false)) => {
            let found = "a second put of the same name was refused, and yet replaced the object";
            report.add(Finding::failed(check, found, NOT_ABSENT));
        }
        Err(error) => report.add(refused(check, &error)),
    }

    let check = "store: put-if-absent at the same time";
    match report.within(check, limit, UNREACHED, probe.race()).await? {
        Ok(1) => {
            let rivals = Probe::RIVALS;
            report.add(Finding::ok(check, format!("one of {rivals} got the name")));
        }
        Ok(won) => {
            let found = format!(
                "{won} of {} were told that they got one name",
                Probe::RIVALS
            );
            report.add(Finding::failed(check, found, NOT_ABSENT));
        }
        Err(error) => report.add(refused(check, &error)),
    }

    let check = "store: listing";
    match report
        .within(check, limit, UNREACHED, probe.is_listed())
        .await?
    {
        Ok(true) => report.add(Finding::ok(check, "an object is listed once it is put")),
        Ok(false) => {
            let remedy = "use a store whose listings are consistent: a consumer finds its position by listing shards";
            let found = "an object that was put is not listed";
            report.add(Finding::failed(check, found, remedy));
        }
        Err(error) => report.add(refused(check, &error)),
    }

    let check = "clock";
    match report
        .within(check, limit, UNREACHED, probe.modified())
        .await?
    {
        // Times of S3 have no fractions.
        Ok(at) => {
            let early = (before - at).num_milliseconds() - 1_000;
            let late = (at - after).num_milliseconds();
            let skew = early.max(late).max(0) / 1_000;
            let side = if late > early { "behind" } else { "before" };
            let found = format!("{skew} s {side} the store's");
            let remedy = "synchronise the clocks (NTP, chrony) of this machine and of the store";
            report.add(match skew {
                skew if skew > MOST_SKEW => Finding::failed(check, found, remedy),
                skew if skew > SKEW => Finding::warning(check, found, remedy),
                _ => Finding::ok(check, "agrees with the store's"),
            });
        }
        Err(error) => report.add(refused(check, &error)),
    }
    Some(())
}

/// What the store refuses, and what that means.
fn refused(check: &str, error: &StoreError) -> Finding {
    let said = whole(error);
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let remedy = if has(&["NoSuchBucket"]) {
        "make the bucket, or correct store.url"
    } else if has(&["RequestTimeTooSkewed"]) {
        "synchronise this machine's clock (NTP, chrony)"
    } else if has(&[
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
    ]) {
        "correct the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a role, or store.options"
    } else if has(&["AccessDenied", "403"]) {
        "allow ListBucket, GetObject, PutObject and DeleteObject below the prefix, or correct the credentials"
    } else if has(&["NotImplemented", "501"]) {
        NOT_ABSENT
    } else if has(&["certificate", "UnknownIssuer"]) {
        "let this machine trust the store's certificate (ca-certificates, or SSL_CERT_FILE), or correct the endpoint's host"
    } else if has(&["ermission denied", "Read-only"]) {
        "let this process write the directory: mount it writable, and give it to the user that runs Tracer (10001 in the image)"
    } else if has(&["No space left", "Disk quota"]) {
        "free space, or give the volume more"
    } else {
        UNREACHED
    };
    Finding::failed(check, said, remedy)
}
