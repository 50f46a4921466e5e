//! What was measured, as JSON and as a table.

use serde_json::{Map, Value, json};

use super::{fixture::Published, load::Run};

/// One round of one kind of load.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) run: Run,
    /// Processor seconds that the server used, where they can be told.
    pub(super) server_cpu: Option<f64>,
}

/// All rounds of one kind of load.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Inputs of one request.
    pub(super) rows: usize,
    /// The series it is compared with.
    pub(super) beside: &'static str,
    pub(super) rounds: Vec<Round>,
}

/// Latencies at one fixed rate, by series.
#[derive(Clone, Debug)]
pub(super) struct OpenLoop {
    pub(super) rate: f64,
    pub(super) runs: Vec<(&'static str, Run)>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) pipelines: Vec<Published>,
    pub(super) series: Vec<Series>,
    pub(super) open: Vec<OpenLoop>,
    pub(super) load_before: Option<f64>,
}

/// The value below which a share of the latencies lies.
pub(super) fn percentile(latencies: &mut [u32], share: f64) -> f64 {
    if latencies.is_empty() {
        return 0.0;
    }
    let at = ((latencies.len() as f64 * share).ceil() as usize).clamp(1, latencies.len()) - 1;
    f64::from(*latencies.select_nth_unstable(at).1)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The medians over the rounds of a series.
struct Summary {
    rate: f64,
    p50: f64,
    p99: f64,
    server_cpu: Option<f64>,
    errors: u64,
    error: Option<String>,
}

impl Series {
    /// One number a round.
    fn each(&self, of: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().map(of).collect()
    }

    fn percentiles(&self, share: f64) -> Vec<f64> {
        self.each(|round| percentile(&mut round.run.latencies.clone(), share))
    }

    fn summary(&self) -> Summary {
        let runs = || self.rounds.iter().map(|round| &round.run);
        let requests: usize = runs().map(|run| run.latencies.len()).sum();
        let cpu: Option<f64> = self.rounds.iter().map(|round| round.server_cpu).sum();
        Summary {
            rate: median(self.each(|round| round.run.rate())),
            p50: median(self.percentiles(0.5)),
            p99: median(self.percentiles(0.99)),
            server_cpu: cpu.map(|cpu| cpu * 1e6 / requests.max(1) as f64),
            errors: runs().map(|run| run.errors + run.shed).sum(),
            error: runs().find_map(|run| run.error.clone()),
        }
    }

    /// The median of the ratios round by round: what disturbs the machine disturbs
    /// both sides of a round.
    fn ratio(&self, other: &Self, of: impl Fn(&Self) -> Vec<f64>) -> f64 {
        let pairs = of(self).into_iter().zip(of(other));
        median(pairs.map(|(a, b)| a / b.max(f64::MIN_POSITIVE)).collect())
    }

    fn rates(&self) -> Vec<f64> {
        self.each(|round| round.run.rate() * self.rows as f64)
    }
}

fn rounded(value: f64) -> Value {
    json!((value * 10.0).round() / 10.0)
}

fn ratio(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

impl Report {
    fn beside(&self, series: &Series) -> Option<&Series> {
        let other = self.series.iter().find(|s| s.name == series.beside)?;
        (other.name != series.name).then_some(other)
    }

    /// Requests a second of a series in a closed loop.
    pub(super) fn rate_of(&self, name: &str) -> f64 {
        let series = self.series.iter().find(|series| series.name == name);
        series.map_or(0.0, |series| series.summary().rate)
    }

    /// The document of `--json`.
    pub(super) fn json(&self) -> Value {
        let mut document = Map::new();
        for series in &self.series {
            let summary = series.summary();
            let mut entry = json!({
                "rps": rounded(summary.rate),
                "p50_us": summary.p50,
                "p99_us": summary.p99,
                "rounds": series.rounds.len(),
                "errors": summary.errors,
            });
            if series.rows > 1 {
                entry["rows_per_s"] = rounded(median(series.rates()));
                entry["rows"] = json!(series.rows);
            }
            if let Some(cpu) = summary.server_cpu {
                entry["server_cpu_us"] = rounded(cpu);
            }
            if let Some(other) = self.beside(series) {
                entry["beside"] = json!({
                    "series": other.name,
                    "rate": ratio(series.ratio(other, Series::rates)),
                    "p99": ratio(series.ratio(other, |s| s.percentiles(0.99))),
                });
            }
            if let Some(error) = summary.error {
                entry["error"] = json!(error);
            }
            document.insert(series.name.to_owned(), entry);
        }
        let open: Vec<Value> = self
            .open
            .iter()
            .map(|open| {
                let mut entry = Map::new();
                entry.insert("rate".to_owned(), rounded(open.rate));
                for (name, run) in &open.runs {
                    let mut latencies = run.latencies.clone();
                    let value = json!({
                        "p50_us": percentile(&mut latencies, 0.5),
                        "p99_us": percentile(&mut latencies, 0.99),
                        "errors": run.errors + run.shed + run.unsent,
                    });
                    entry.insert((*name).to_owned(), value);
                }
                Value::Object(entry)
            })
            .collect();
        document.insert("open_loop".to_owned(), json!(open));
        let pipelines: Map<String, Value> = self
            .pipelines
            .iter()
            .map(|p| {
                let value = json!({
                    "surrogate": p.surrogate,
                    "shadow_coverage": p.coverage,
                    "decision_us": (p.decision_us * 100.0).round() / 100.0,
                });
                (p.task.to_owned(), value)
            })
            .collect();
        document.insert("pipelines".to_owned(), Value::Object(pipelines));
        if let Some(load) = self.load_before {
            document.insert("load_before".to_owned(), json!(load));
        }
        Value::Object(document)
    }

    /// The tables, in Markdown.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "| closed loop | requests/s | rows/s | p50 µs | p99 µs | server CPU µs/request | rate | p99 | beside |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for series in &self.series {
            let summary = series.summary();
            let cpu = summary
                .server_cpu
                .map_or_else(String::new, |cpu| format!("{cpu:.1}"));
            text += &format!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {cpu} | ",
                series.name,
                summary.rate,
                median(series.rates()),
                summary.p50,
                summary.p99,
            );
            text += &match self.beside(series) {
                Some(other) => format!(
                    "{:.3} | {:.2} | {} |\n",
                    series.ratio(other, Series::rates),
                    series.ratio(other, |s| s.percentiles(0.99)),
                    other.name
                ),
                None => "| | |\n".to_owned(),
            };
            if let Some(error) = summary.error {
                text += &format!(
                    "{}: {} errors, such as: {error}\n",
                    series.name, summary.errors
                );
            }
        }
        if !self.open.is_empty() {
            text += "\n| open loop, requests/s | series | p50 µs | p99 µs | not answered |\n| --- | --- | --- | --- | --- |\n";
        }
        for open in &self.open {
            for (name, run) in &open.runs {
                let mut latencies = run.latencies.clone();
                text += &format!(
                    "| {:.0} | {name} | {:.0} | {:.0} | {} |\n",
                    open.rate,
                    percentile(&mut latencies, 0.5),
                    percentile(&mut latencies, 0.99),
                    run.errors + run.shed + run.unsent,
                );
            }
        }
        for pipeline in &self.pipelines {
            text += &format!(
                "\ntask {}: {}, shadow coverage {:.3}; the decision alone {:.2} µs",
                pipeline.task, pipeline.surrogate, pipeline.coverage, pipeline.decision_us
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &'static str, latencies: &[u32], seconds: f64) -> Series {
        let run = Run {
            seconds,
            latencies: latencies.to_vec(),
            ..Run::default()
        };
        Series {
            name,
            rows: 1,
            beside: "echo",
            rounds: vec![Round {
                run,
                server_cpu: Some(1.0),
            }],
        }
    }

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 0.5), 50.0);
        assert_eq!(percentile(&mut values, 0.99), 99.0);
        assert_eq!(percentile(&mut [7], 0.99), 7.0);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn a_series_stands_beside_the_echo() {
        let report = Report {
            series: vec![
                series("echo", &[10; 200], 1.0),
                series("route_dense", &[12; 200], 2.0),
            ],
            ..Report::default()
        };
        let json = report.json();
        assert_eq!(json["echo"]["rps"], 200.0);
        assert_eq!(json["route_dense"]["rps"], 100.0);
        assert_eq!(json["route_dense"]["beside"]["rate"], 0.5);
        assert_eq!(json["route_dense"]["beside"]["p99"], 1.2);
        assert_eq!(json["route_dense"]["server_cpu_us"], 5000.0);
        assert!(json["echo"]["beside"].is_null());
        assert!(
            report
                .table()
                .contains("| route_dense | 100 | 100 | 12 | 12 | 5000.0 | 0.500 | 1.20 | echo |")
        );
    }
}
