//! `tracer pipelines diff`: what two versions of a task differ in.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::{Value, json};
use tracer_learn::Pipeline;
use tracer_store::{Manifest, PipelineVersion, Registry, ReportFormat};
use tracer_trace::TaskName;

use crate::output;

/// Reports that are larger are not compared.
const MOST: u64 = 64 << 20;

/// Labels that are shown on the terminal, those that changed most.
const SHOWN: usize = 20;

/// The coverages at which two frontiers are compared.
const COVERAGES: [f64; 6] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Arguments of `tracer pipelines diff`.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The task
    #[arg(long, value_name = "NAME")]
    task: TaskName,
    /// The one version
    #[arg(value_name = "FROM")]
    from: PipelineVersion,
    /// The other one
    #[arg(value_name = "TO")]
    to: PipelineVersion,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What is compared of a version.
struct Side {
    manifest: Manifest,
    labels: BTreeSet<String>,
    report: Value,
}

impl Side {
    async fn read(
        registry: &Registry,
        task: &TaskName,
        version: PipelineVersion,
    ) -> anyhow::Result<Self> {
        let loaded = registry.load(task, version).await?;
        let pipeline = Pipeline::from_bytes(&loaded.model)?;
        let report = registry
            .bounded_report(task, version, ReportFormat::Json, MOST)
            .await?;
        Ok(Self {
            manifest: loaded.manifest,
            labels: pipeline.labels().iter().cloned().collect(),
            report: serde_json::from_slice(&report)?,
        })
    }

    /// The objects of a list of the report, by the value of the first of some keys.
    fn table(&self, list: &str, keys: &[&str]) -> BTreeMap<String, &Value> {
        let items = self.report.get(list).and_then(Value::as_array);
        let named = items.into_iter().flatten().filter_map(|item| {
            let name = keys.iter().find_map(|key| item[*key].as_str())?;
            Some((name.to_owned(), item))
        });
        named.collect()
    }

    /// The agreement at a coverage, between the points of the frontier around it.
    fn agreement_at(&self, coverage: f64) -> Option<f64> {
        let points = self.report.get("frontier")?.as_array()?;
        let mut points: Vec<(f64, f64)> = points
            .iter()
            .filter_map(|point| Some((point["coverage"].as_f64()?, point["agreement"].as_f64()?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let after = points.partition_point(|point| point.0 < coverage);
        let (high, low) = (points.get(after)?, points.get(after.saturating_sub(1))?);
        let width = high.0 - low.0;
        if width <= 0.0 || low.0 > coverage {
            return Some(high.1);
        }
        Some(low.1 + (high.1 - low.1) * (coverage - low.0) / width)
    }
}

/// Runs the command.
pub(crate) async fn run(args: &DiffArgs, registry: &Registry) -> anyhow::Result<()> {
    let from = Side::read(registry, &args.task, args.from).await?;
    let to = Side::read(registry, &args.task, args.to).await?;
    let diff = compare(&from, &to);
    if args.json {
        let mut document = json!({ "task": args.task, "from": args.from, "to": args.to });
        if let (Some(all), Value::Object(diff)) = (document.as_object_mut(), diff) {
            all.extend(diff);
        }
        output::json(&document);
    } else {
        show(args, &diff);
    }
    Ok(())
}

fn compare(from: &Side, to: &Side) -> Value {
    let card = changed(&card(&from.manifest), &card(&to.manifest));
    let config = changed(&from.manifest.config, &to.manifest.config);
    let provenance = |side: &Side| serde_json::to_value(&side.manifest.provenance);
    let provenance = changed(
        &provenance(from).unwrap_or_default(),
        &provenance(to).unwrap_or_default(),
    );
    json!({
        "card": card,
        "config": config,
        "provenance": provenance,
        "label_space": {
            "added": to.labels.difference(&from.labels).collect::<Vec<_>>(),
            "removed": from.labels.difference(&to.labels).collect::<Vec<_>>(),
        },
        "candidates": pairs(from, to, "candidates", &["name"], &["macro_f1"]),
        "labels": pairs(from, to, "labels", &["label", "name"], &["handled_share", "agreement", "n"]),
        "frontier": COVERAGES.map(|coverage| json!({
            "coverage": coverage,
            "from": from.agreement_at(coverage),
            "to": to.agreement_at(coverage),
        })),
    })
}

fn card(manifest: &Manifest) -> Value {
    json!({
        "created_at": manifest.created_at,
        "author": manifest.author,
        "family": manifest.family,
        "surrogate": manifest.surrogate,
        "target_agreement": manifest.target_agreement,
        "delta": manifest.delta,
        "threshold": manifest.threshold,
        "coverage": manifest.shadow.coverage,
        "agreement": manifest.shadow.agreement,
        "agreement_lower": manifest.shadow.agreement_lower,
        "shadow_traces": manifest.shadow.n,
        "training_traces": manifest.training_traces,
        "labels": manifest.labels,
        "embedding_dimension": manifest.embedding_dimension,
        "embedder": manifest.embedder,
        "code_version": manifest.code_version,
    })
}

/// The keys of two objects whose values differ.
fn changed(from: &Value, to: &Value) -> Value {
    let keys = |value: &Value| -> BTreeSet<String> {
        let object = value.as_object();
        object.into_iter().flat_map(|o| o.keys().cloned()).collect()
    };
    let all = keys(from).union(&keys(to)).cloned().collect::<Vec<_>>();
    let differ = all.into_iter().filter_map(|key| {
        let (from, to) = (from.get(&key), to.get(&key));
        (from != to).then(|| (key, json!({ "from": from, "to": to })))
    });
    Value::Object(differ.collect())
}

/// The rows of a table of both reports, side by side, those that differ.
fn pairs(from: &Side, to: &Side, list: &str, keys: &[&str], values: &[&str]) -> Value {
    let (before, after) = (from.table(list, keys), to.table(list, keys));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let rows = names.into_iter().filter_map(|name| {
        let side = |table: &BTreeMap<String, &Value>| {
            table.get(name).map(|item| {
                let part = values
                    .iter()
                    .map(|key| ((*key).to_owned(), item[*key].clone()));
                Value::Object(part.collect())
            })
        };
        let (before, after) = (side(&before), side(&after));
        (before != after).then(|| json!({ "name": name, "from": before, "to": after }))
    });
    Value::Array(rows.collect())
}

fn show(args: &DiffArgs, diff: &Value) {
    let text = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        // Of a checksum the beginning tells enough.
        Value::String(text) if is_checksum(text) => format!("{}…", &text[..12]),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.4}", number.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    };
    output::line(format_args!(
        "task {}: version {} → version {}",
        args.task,
        args.from.get(),
        args.to.get()
    ));
    for section in ["card", "config", "provenance"] {
        let Some(changes) = diff[section].as_object().filter(|c| !c.is_empty()) else {
            continue;
        };
        output::line(section);
        for (key, change) in changes {
            output::line(format_args!(
                "  {key:<20} {} → {}",
                text(&change["from"]),
                text(&change["to"])
            ));
        }
    }
    for (side, sign) in [("added", '+'), ("removed", '-')] {
        for label in diff["label_space"][side].as_array().into_iter().flatten() {
            output::line(format_args!("  label {sign}{}", text(label)));
        }
    }
    table(diff, "candidates", "macro_f1", &text);
    table(diff, "labels", "handled_share", &text);
    output::line("frontier (agreement at a coverage)");
    let points = diff["frontier"].as_array().into_iter().flatten();
    for point in points.filter(|point| !point["from"].is_null() || !point["to"].is_null()) {
        output::line(format_args!(
            "  {:<20} {} → {}",
            text(&point["coverage"]),
            text(&point["from"]),
            text(&point["to"])
        ));
    }
}

/// SHA-256, in hexadecimal.
fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn table(diff: &Value, list: &str, by: &str, text: &dyn Fn(&Value) -> String) {
    let mut rows: Vec<&Value> = diff[list].as_array().into_iter().flatten().collect();
    if rows.is_empty() {
        return;
    }
    let of = |row: &Value, side: &str| row[side][by].as_f64().unwrap_or(0.0);
    let change = |row: &Value| (of(row, "to") - of(row, "from")).abs();
    rows.sort_by(|a, b| change(b).total_cmp(&change(a)));
    output::line(format_args!("{list} ({by})"));
    for row in rows.iter().take(SHOWN) {
        output::line(format_args!(
            "  {:<20} {} → {}",
            text(&row["name"]),
            text(&row["from"][by]),
            text(&row["to"][by])
        ));
    }
    if rows.len() > SHOWN {
        output::line(format_args!("  … and {} more", rows.len() - SHOWN));
    }
}
