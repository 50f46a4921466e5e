//! This machine: directories, space, limits.

use std::{io::Write as _, path::Path};

use super::finding::{Finding, Report};
use crate::host::Roles;

/// Less free space than this fills within hours at a usual rate of traces.
const LITTLE: u64 = 1 << 30;

/// With less than this the next flush may fail.
const TOO_LITTLE: u64 = 100 << 20;

/// Open files of a service without callers: shards, brokers, the store.
const FILES: u64 = 1_024;

/// Inference has one for each caller's connection besides.
const FILES_OF_CALLERS: u64 = 4_096;

/// The spool.
pub(super) fn spool(report: &mut Report, path: &Path) {
    if !directory(report, "spool", path) {
        return;
    }
    let written = tempfile::NamedTempFile::new_in(path).and_then(|mut file| {
        file.write_all(b"probe")?;
        file.as_file().sync_all()
    });
    report.add(match written {
        Ok(()) => Finding::ok("spool: written", "a file was written, and is gone again"),
        Err(error) => Finding::failed(
            "spool: written",
            format!("{}: {error}", path.display()),
            "let this process write the directory: mount it writable, and give it to the user that runs Tracer (10001 in the image)",
        ),
    });
}

/// Whether a directory is there, and how much space it has. It is not made.
pub(super) fn directory(report: &mut Report, what: &str, path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let shown = path.display();
    if !path.is_dir() {
        let found = if path.exists() {
            format!("{shown} is no directory")
        } else {
            format!("{shown} is not there")
        };
        let remedy = format!(
            "mount the volume there, or correct the configuration. On a new machine a service makes it at its first start, where it may; so does `mkdir -p {shown}`"
        );
        report.add(Finding::failed(format!("{what}: directory"), found, remedy));
        return false;
    }
    space(report, &format!("{what}: space"), &path);
    true
}

fn space(report: &mut Report, check: &str, path: &Path) {
    let shown = path.display();
    let system = match rustix::fs::statvfs(path) {
        Ok(system) => system,
        Err(error) => {
            report.not_tried(format!("{check}: {shown}: {error}"));
            return;
        }
    };
    // Some have no blocks at all, such as those of the kernel.
    if system.f_blocks == 0 {
        return;
    }
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let megabytes = free >> 20;
    let found = format!("{megabytes} MiB free at {shown}");
    let remedy =
        "free space or give the volume more; maintenance.retention_days bounds what shards take";
    report.add(if free < TOO_LITTLE {
        Finding::failed(check, found, remedy)
    } else if free < LITTLE {
        Finding::warning(check, found, remedy)
    } else {
        Finding::ok(check, found)
    });
}

/// Open files.
pub(super) fn limits(report: &mut Report, roles: Roles) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    match open_files(&limits) {
        Some(soft) => report.add(judged(soft, roles)),
        None => report.not_tried("limits: open files: this system does not tell them"),
    }
}

fn judged(soft: u64, roles: Roles) -> Finding {
    let check = "limits: open files";
    let wanted = if roles.inference {
        FILES_OF_CALLERS
    } else {
        FILES
    };
    let found = if soft == u64::MAX {
        "no limit".to_owned()
    } else {
        format!("{soft} at the most")
    };
    if soft >= wanted {
        return Finding::ok(check, found);
    }
    let remedy = format!(
        "allow {wanted} or more: `ulimit -n`, LimitNOFILE= of systemd, or `ulimits` of the container. Each caller's connection takes one"
    );
    Finding::warning(check, found, remedy)
}

/// The limit that holds, of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        soft => soft.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Status, *};

    #[test]
    fn the_limit_of_open_files_is_read_and_judged() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             1 2 processes\nMax open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files(""), None);
        assert_eq!(judged(1024, Roles::TRAINER).status, Status::Ok);
        let few = judged(1024, Roles::INFERENCE);
        assert_eq!(few.status, Status::Warning);
        assert!(few.remedy.unwrap().contains("4096"));
    }
}
