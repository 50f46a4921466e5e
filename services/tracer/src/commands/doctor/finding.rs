//! What was found, and how it is told.

use std::{
    fmt::Display,
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use serde::Serialize;

use crate::output;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    /// It works; somebody should look.
    Warning,
    /// It does not work, or will not.
    Failed,
}

/// The end of one check.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// What was tried.
    pub(super) check: String,
    pub(super) status: Status,
    /// What was found.
    pub(super) found: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: impl Display, found: impl Display) -> Self {
        Self {
            check: check.to_string(),
            status: Status::Ok,
            found: found.to_string(),
            remedy: None,
        }
    }

    pub(super) fn warning(check: impl Display, found: impl Display, remedy: impl Display) -> Self {
        Self {
            status: Status::Warning,
            remedy: Some(remedy.to_string()),
            ..Self::ok(check, found)
        }
    }

    pub(super) fn failed(check: impl Display, found: impl Display, remedy: impl Display) -> Self {
        Self {
            status: Status::Failed,
            ..Self::warning(check, found, remedy)
        }
    }
}

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    /// What nobody has tried, and why.
    pub(super) not_tried: Vec<String>,
    /// Only the document is printed.
    silent: bool,
}

impl Report {
    pub(super) fn new(silent: bool) -> Self {
        Self {
            silent,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, finding: Finding) {
        if !self.silent {
            tell(&finding);
        }
        self.findings.push(finding);
    }

    pub(super) fn not_tried(&mut self, what: impl Into<String>) {
        self.not_tried.push(what.into());
    }

    /// Waits for a check, up to its limit.
    pub(super) async fn within<T>(
        &mut self,
        check: &str,
        limit: Duration,
        remedy: &str,
        run: impl Future<Output = T>,
    ) -> Option<T> {
        let done = tokio::time::timeout(limit, run).await.ok();
        if done.is_none() {
            let found = format!("no answer within {} ms", limit.as_millis());
            self.add(Finding::failed(check, found, remedy));
        }
        done
    }

    pub(super) fn count(&self, status: Status) -> usize {
        let all = self.findings.iter();
        all.filter(|finding| finding.status == status).count()
    }

    pub(super) fn failed(&self) -> usize {
        self.count(Status::Failed)
    }

    /// Says what was not tried, and sums up.
    pub(super) fn end(&self) {
        for what in &self.not_tried {
            output::line(format_args!("{}  {what}", mark("not tried", "2")));
        }
        output::line(format_args!(
            "{} ok, {} warnings, {} failed",
            self.count(Status::Ok),
            self.count(Status::Warning),
            self.failed()
        ));
    }
}

fn tell(finding: &Finding) {
    let (word, colour) = match finding.status {
        Status::Ok => ("ok", "32"),
        Status::Warning => ("warning", "33"),
        Status::Failed => ("FAILED", "31"),
    };
    let Finding { check, found, .. } = finding;
    output::line(format_args!("{}  {check}: {found}", mark(word, colour)));
    if let Some(remedy) = &finding.remedy {
        output::line(format_args!("           → {remedy}"));
    }
}

/// A word in its column, coloured on a terminal.
fn mark(word: &str, colour: &str) -> String {
    let plain = !stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    let padded = format!("{word:<9}");
    if plain {
        padded
    } else {
        format!("\u{1b}[{colour}m{padded}\u{1b}[0m")
    }
}

/// An error with its causes, each said once.
pub(super) fn whole(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        cause = error.source();
    }
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}
