//! The pages on the HTTP port: tasks, their versions, and each version's report. Plain
//! HTML without scripts; it changes nothing.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Semaphore;
use tracer_store::{Active, PipelineVersion, Registry, ReportFormat, StoreError};
use tracer_trace::TaskName;

use crate::commands::{
    deployment::words,
    pipelines::{said, state},
};

/// A larger report is not served.
const MOST_REPORT: u64 = 16 << 20;

/// Tasks, versions and entries of a log on one page; the newest versions and entries.
const MOST_TASKS: usize = 1000;
const MOST_ROWS: usize = 100;

/// Pages that are made at the same time: each reads the store.
const AT_ONCE: usize = 8;

/// No script, no network, no frame around it. Styles stand in the pages themselves.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>
:root { color-scheme: light dark; --line: #8886; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .4rem .5rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; overflow-wrap: break-word; }
p::first-letter { text-transform: uppercase; } .more { position: absolute; left: -999rem; }
a { display: inline-block; padding: .2rem 0; } tr.now { font-weight: bold; }
@media (max-width: 40rem) { thead { position: absolute; left: -999rem; } tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); } td { display: block; border: 0; padding: .1rem 0; } td[data-name]::before { content: attr(data-name) \": \"; font-weight: normal; opacity: .75; } }
</style>";

#[derive(Clone)]
struct Console {
    registry: Registry,
    turns: Arc<Semaphore>,
}

/// The routes.
pub(crate) fn router(registry: Registry) -> Router {
    let console = Console {
        registry,
        turns: Arc::new(Semaphore::new(AT_ONCE)),
    };
    Router::new()
        .route("/", get(tasks))
        .route("/tasks/{task}", get(versions))
        .route("/tasks/{task}/versions/{version}/report.html", get(page))
        .route(
            "/tasks/{task}/versions/{version}/report.json",
            get(document),
        )
        .with_state(console)
}

/// Why there is no page.
enum Failed {
    NotFound,
    Retired,
    TooLarge,
    Busy,
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { .. } => Self::NotFound,
            StoreError::Retired { .. } => Self::Retired,
            StoreError::TooLarge { .. } => Self::TooLarge,
            error => Self::Store(error),
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such page."),
            Self::Retired => (
                StatusCode::GONE,
                "This version is gone: it was retired, and its files are deleted.",
            ),
            Self::TooLarge => (
                StatusCode::INSUFFICIENT_STORAGE,
                "The report is too large to be shown; tracer pipelines export writes it to a file.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many pages are being made. Try again.",
            ),
            Self::Store(error) => {
                tracing::warn!(%error, "a page cannot be made");
                let text =
                    "The store does not answer, or what it holds is damaged; the log says more.";
                (StatusCode::BAD_GATEWAY, text)
            }
        };
        let mut body = head("Tracer");
        let _ = write!(body, "<h1>{text}</h1><p><a href=\"/\">All tasks</a></p>");
        let page = answer("text/html; charset=utf-8", body.into_bytes());
        (status, page).into_response()
    }
}

/// A body with the headers that every answer has.
fn answer(content_type: &'static str, body: Vec<u8>) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

async fn tasks(State(console): State<Console>) -> Result<Response, Failed> {
    let _turn = console.turn()?;
    let registry = &console.registry;
    let mut tasks = registry.tasks().await?;
    let all = tasks.len();
    tasks.truncate(MOST_TASKS);
    let mut out = head("Tracer: tasks");
    out.push_str("<h1>Tasks</h1>");
    if tasks.is_empty() {
        out.push_str("<p>No version of any task has been published yet.</p>");
        return Ok(html(out));
    }
    out.push_str("<table><thead><tr><th scope=\"col\">Task</th><th scope=\"col\">What serves</th></tr></thead><tbody>");
    for task in &tasks {
        let serves = match registry.active(task).await {
            Ok(active) => words(&active),
            // One damaged log is not the others'.
            Err(error) if error.is_refusal() => format!("its log is damaged: {error}"),
            Err(error) => return Err(error.into()),
        };
        // A task's name is one that needs no escape; what is said of it may.
        let _ = write!(
            out,
            "<tr><td><a href=\"/tasks/{task}\">{task}</a></td><td>{}</td></tr>",
            escape(&serves)
        );
    }
    out.push_str("</tbody></table>");
    if all > tasks.len() {
        let _ = write!(out, "<p>And {} more.</p>", all - tasks.len());
    }
    Ok(html(out))
}

async fn versions(
    State(console): State<Console>,
    Path(task): Path<String>,
) -> Result<Response, Failed> {
    let _turn = console.turn()?;
    let task = TaskName::new(&task).map_err(|_| Failed::NotFound)?;
    let registry = &console.registry;
    let log = registry.log(&task).await?;
    let versions = registry.versions(&task).await?;
    if log.is_empty() && versions.is_empty() {
        return Err(Failed::NotFound);
    }
    let active = Active::fold(&log);
    let mut out = head(&format!("Tracer: {task}"));
    let _ = write!(
        out,
        "<p><a href=\"/\">All tasks</a></p><h1>Task {task}</h1><p>{}.</p><h2>Versions</h2>\
         <table><thead><tr><th scope=\"col\">Version</th><th scope=\"col\">State</th><th scope=\"col\">Published (UTC)</th><th scope=\"col\">Pipeline</th><th scope=\"col\">Coverage</th><th scope=\"col\">Agreement</th><th scope=\"col\">Report</th></tr></thead><tbody>",
        escape(&words(&active)),
    );
    for &version in versions.iter().rev().take(MOST_ROWS) {
        let state = state(&log, &active, version);
        let number = version.get();
        let now = if active.version == Some(version) {
            " class=\"now\""
        } else {
            ""
        };
        let _ = write!(
            out,
            "<tr{now}><td data-name=\"Version\">{number}</td><td data-name=\"State\">{state}</td>"
        );
        match registry.manifest(&task, version).await {
            Ok(manifest) => {
                let shadow = &manifest.shadow;
                let _ = write!(
                    out,
                    "<td data-name=\"Published (UTC)\">{} by {}</td><td data-name=\"Pipeline\">{} {}</td><td data-name=\"Coverage\">{:.1}&nbsp;%</td><td data-name=\"Agreement\">{:.1}&nbsp;% (at least {:.1}&nbsp;%)</td><td><a href=\"/tasks/{task}/versions/{number}/report.html\">report<span class=\"more\"> of version {number}</span></a> <a href=\"/tasks/{task}/versions/{number}/report.json\">JSON</a></td>",
                    manifest.created_at.format("%Y-%m-%d %H:%M"),
                    escape(&manifest.author),
                    escape(&manifest.family),
                    escape(&manifest.surrogate),
                    100.0 * shadow.coverage,
                    100.0 * shadow.agreement,
                    100.0 * shadow.agreement_lower,
                );
            }
            Err(StoreError::NotFound { .. } | StoreError::Retired { .. }) => {
                out.push_str("<td colspan=\"5\">gone</td>");
            }
            Err(error) if error.is_refusal() => {
                let _ = write!(out, "<td colspan=\"5\">{}</td>", escape(&error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    if versions.len() > MOST_ROWS {
        let _ = write!(
            out,
            "<p>And {} earlier ones.</p>",
            versions.len() - MOST_ROWS
        );
    }
    out.push_str("<h2>What happened (UTC)</h2><ul>");
    for entry in log.iter().rev().take(MOST_ROWS) {
        let _ = write!(out, "<li>{}</li>", escape(said(entry).trim()));
    }
    out.push_str("</ul>");
    Ok(html(out))
}

async fn page(
    State(console): State<Console>,
    Path(of): Path<(String, String)>,
) -> Result<Response, Failed> {
    let bytes = console.report(of, ReportFormat::Html).await?;
    Ok(answer("text/html; charset=utf-8", bytes))
}

async fn document(
    State(console): State<Console>,
    Path(of): Path<(String, String)>,
) -> Result<Response, Failed> {
    let bytes = console.report(of, ReportFormat::Json).await?;
    Ok(answer("application/json", bytes))
}

impl Console {
    fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Failed> {
        self.turns.try_acquire().map_err(|_| Failed::Busy)
    }

    /// Names are parsed before the store sees them: none of them is a path.
    async fn report(
        &self,
        (task, version): (String, String),
        format: ReportFormat,
    ) -> Result<Vec<u8>, Failed> {
        let _turn = self.turn()?;
        let task = TaskName::new(&task).map_err(|_| Failed::NotFound)?;
        let version: PipelineVersion = version.parse().map_err(|_| Failed::NotFound)?;
        let report = self
            .registry
            .bounded_report(&task, version, format, MOST_REPORT)
            .await?;
        Ok(report.to_vec())
    }
}

fn html(mut out: String) -> Response {
    out.push_str("</main></body></html>\n");
    answer("text/html; charset=utf-8", out.into_bytes())
}

fn head(title: &str) -> String {
    format!("{HEAD}<title>{}</title></head><body><main>", escape(title))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
