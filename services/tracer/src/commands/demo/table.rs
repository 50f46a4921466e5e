//! What the demo shows.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use tracer_learn::Family;

use super::day::Day;
use crate::output;

/// The table of the days, printed row by row.
pub(super) struct Table {
    price: f64,
    quiet: bool,
    headed: bool,
    saved_calls: usize,
}

impl Table {
    /// A quiet table prints nothing.
    pub(super) fn new(price: f64, quiet: bool) -> Self {
        Self {
            price,
            quiet,
            headed: false,
            saved_calls: 0,
        }
    }

    pub(super) fn row(&mut self, day: &Day) {
        self.saved_calls += day.saved_calls();
        if self.quiet {
            return;
        }
        if !self.headed {
            self.headed = true;
            output::line("");
            output::line(
                "Moss & Signal rents houseplants in pots that text you. Its support desk, day by day:",
            );
            output::line("");
            output::line(
                " day  traces  verdict  version  family  surrogate         coverage  TA      TA at least  teacher calls  live TA  saved",
            );
        }
        let (result, shadow) = (&day.result, day.result.shadow());
        let none = || "-".to_owned();
        let number = |value: Option<f64>| value.map_or_else(none, |value| format!("{value:.3}"));
        output::line(format_args!(
            " {:>3}  {:>6}  {:<7}  {:>7}  {:<6}  {:<16}  {:>8}  {:<6}  {:>11}  {:>5} of {:<5}  {:>7}  ${:.2}",
            day.number,
            day.traces,
            result.verdict(),
            result
                .version()
                .map_or_else(none, |version| version.to_string()),
            result.family().map_or("-", Family::as_str),
            result.surrogate().unwrap_or("-"),
            number(shadow.map(|s| s.coverage)),
            number(shadow.map(|s| s.agreement)),
            number(shadow.map(|s| s.agreement_lower)),
            day.teacher_calls(),
            day.messages,
            number(day.live_agreement()),
            self.saved_calls as f64 * self.price,
        ));
        if let Some(reason) = result.reason() {
            output::line(format_args!("      {}: {reason}", result.verdict()));
        }
    }

    pub(super) fn end(&self) {
        output::line("");
        for line in [
            "Coverage, TA and its lower bound: the day's refit on its shadow split (of a refused one, at the first",
            "threshold tried). Teacher calls: messages that the version active that day deferred, and those it handled",
            "but marked for an audit. Live TA: what it handled against the teacher, who in this demo labels every",
            "message, so that agreement can be seen.",
        ] {
            output::line(line);
        }
        output::line(format_args!(
            "Saved: {} teacher calls at ${} each.",
            self.saved_calls, self.price
        ));
        output::line("");
    }

    /// Progress of a day: a bar on a terminal, a line a stage elsewhere.
    pub(super) fn progress(&self, day: usize, messages: usize) -> Progress {
        if self.quiet {
            return Progress::Silent;
        }
        if !stderr().is_terminal() {
            return Progress::Lines { day };
        }
        let bar = ProgressBar::new(messages as u64);
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {prefix} {msg} {bar:30} {pos}/{len} {elapsed}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(format!("day {day}:"));
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        Progress::Bar(bar)
    }
}

/// Progress of a day.
pub(super) enum Progress {
    Silent,
    Lines { day: usize },
    Bar(ProgressBar),
}

impl Progress {
    pub(super) fn stage(&self, stage: &'static str) {
        match self {
            Self::Silent => {}
            Self::Lines { day } => output::say(format_args!("day {day}: {stage}")),
            Self::Bar(bar) => bar.set_message(stage),
        }
    }

    pub(super) fn advance(&self, messages: usize) {
        if let Self::Bar(bar) = self {
            bar.inc(messages as u64);
        }
    }

    pub(super) fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
