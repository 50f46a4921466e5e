//! `tracer bench route --overload`: more than the server can do, for minutes.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::{
    child::Server,
    fixture::{self, DENSE, DIMENSION, Parts, World},
    load::{Client, Payload, Run},
    report::percentile,
};
use crate::output;

/// How much more is asked than the server can do.
const EXCESS: f64 = 1.5;
/// How often a line is printed.
const WINDOW: Duration = Duration::from_secs(10);
/// Requests under way of a closed loop, before and after.
const UNDER_WAY: usize = 64;

/// Finds out what the server can do, asks half as much again for `minutes`, and
/// then looks whether it is as it was. Fails where it answered anything but routes
/// and `RESOURCE_EXHAUSTED`.
pub(super) async fn run(
    server: &Server,
    connections: usize,
    minutes: f64,
    as_json: bool,
) -> anyhow::Result<()> {
    let world = World::new(DIMENSION);
    let parts = Parts {
        text: false,
        dimension: DIMENSION,
    };
    let payload = Payload::new("Route", fixture::routes(&world, DENSE, parts))?;
    let client = Client::connect(&server.addr, connections).await?;
    let measure = async |time| client.closed(&payload, UNDER_WAY, time).await;
    measure(Duration::from_secs(1)).await;
    let mut before = measure(Duration::from_secs(5)).await;
    let rate = EXCESS * before.rate();
    output::say(format_args!(
        "{:.0} requests/s in a closed loop; sending {rate:.0} a second",
        before.rate()
    ));
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let mut windows = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(100) {
            break;
        }
        let mut run = client.open(&payload, rate, WINDOW.min(left)).await;
        let window = Window::of(&mut run, server);
        output::say(window.line());
        windows.push(window);
    }
    // What was under way has been answered: the next request meets an idle server.
    let ended = Instant::now();
    let mut first = measure(Duration::from_millis(200)).await;
    let recovered = recovered(&first, before.rate(), ended, async || measure(STEP).await).await;
    let mut after = measure(Duration::from_secs(5)).await;
    let sum = |of: fn(&Window) -> f64| windows.iter().map(of).sum::<f64>();
    let (errors, answered) = (sum(|w| w.errors), sum(|w| w.answered));
    let memory = |w: Option<&Window>| w.and_then(|w| w.resident_mib);
    let document = json!({
        "capacity_rps": before.rate(),
        "sent_rps": rate,
        "minutes": minutes,
        "answered": answered,
        "shed": sum(|w| w.shed),
        "not_sent_by_client": sum(|w| w.unsent),
        "errors": errors,
        "resident_mib": {"first": memory(windows.first()), "last": memory(windows.last()),
            "most": windows.iter().filter_map(|w| w.resident_mib).fold(0.0, f64::max)},
        "before": {"rps": before.rate(), "p99_us": percentile(&mut before.latencies, 0.99)},
        "first_200_ms_after": {"rps": first.rate(), "p99_us": percentile(&mut first.latencies, 0.99),
            "shed": first.shed, "errors": first.errors},
        // Until a tenth of a second in which the server did what it did before, and shed nothing.
        "recovered_ms": recovered.map(|time| time.as_millis()),
        "after": {"rps": after.rate(), "p99_us": percentile(&mut after.latencies, 0.99),
            "shed": after.shed, "errors": after.errors},
        "windows": windows.iter().map(Window::json).collect::<Vec<_>>(),
    });
    if as_json {
        output::json(&document);
    } else {
        output::line(format_args!(
            "answered {answered:.0}, shed {:.0}, other errors {errors:.0}; {:.0} requests/s before, {:.0} after",
            sum(|w| w.shed),
            before.rate(),
            after.rate()
        ));
    }
    if errors > 0.0 {
        let error = windows
            .into_iter()
            .find_map(|w| w.error)
            .unwrap_or_default();
        bail!("{errors:.0} requests failed otherwise than by RESOURCE_EXHAUSTED, such as: {error}");
    }
    Ok(())
}

/// How long a look at whether the server is as it was takes.
const STEP: Duration = Duration::from_millis(100);
/// How long it may take to be.
const PATIENCE: Duration = Duration::from_secs(30);
/// The share of the rate before at which it is.
const RECOVERED: f64 = 0.9;

/// When the server, since the overload `ended`, does again what it did before; `None`
/// where it does not.
async fn recovered(
    first: &Run,
    before: f64,
    ended: Instant,
    mut look: impl AsyncFnMut() -> Run,
) -> Option<Duration> {
    let is_well = |run: &Run| run.shed + run.errors == 0 && run.rate() >= RECOVERED * before;
    if is_well(first) {
        // It was from the start.
        return Some(Duration::ZERO);
    }
    while ended.elapsed() < PATIENCE {
        if is_well(&look().await) {
            return Some(ended.elapsed());
        }
    }
    None
}

/// Ten seconds.
struct Window {
    seconds: f64,
    answered: f64,
    shed: f64,
    unsent: f64,
    errors: f64,
    error: Option<String>,
    p50: f64,
    p99: f64,
    resident_mib: Option<f64>,
}

impl Window {
    fn of(run: &mut Run, server: &Server) -> Self {
        Self {
            seconds: run.seconds,
            answered: run.latencies.len() as f64,
            shed: run.shed as f64,
            unsent: run.unsent as f64,
            errors: run.errors as f64,
            error: run.error.take(),
            p50: percentile(&mut run.latencies, 0.5),
            p99: percentile(&mut run.latencies, 0.99),
            resident_mib: server.resident_mib(),
        }
    }

    fn line(&self) -> String {
        format!(
            "{:.0}/s answered, {:.0}/s shed, {:.0}/s not sent, {} errors; p50 {:.1} ms, p99 {:.1} ms; {:.0} MiB",
            self.answered / self.seconds,
            self.shed / self.seconds,
            self.unsent / self.seconds,
            self.errors,
            self.p50 / 1e3,
            self.p99 / 1e3,
            self.resident_mib.unwrap_or_default(),
        )
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "seconds": self.seconds, "answered": self.answered, "shed": self.shed,
            "errors": self.errors, "p50_us": self.p50, "p99_us": self.p99,
            "resident_mib": self.resident_mib,
        })
    }
}
