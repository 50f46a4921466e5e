//! The trainer over a store in memory.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::collections::BTreeSet;

use common::{PATIENCE, learnable, plan, start, store, task, trace, write};
use tokio::time::timeout;
use tracer_explain::Report;
use tracer_learn::{Dataset, FeatureMode, FitConfig, Row, refit};
use tracer_store::{LogEvent, PipelineVersion, ReportFormat, ShardLog, VersionFiles};
use tracer_trace::{Offset, OffsetRange, PartitionId, StoredTrace, TaskName, TopicName};
use tracer_trainer::{RefitResult, TaskPlan};

#[tokio::test]
async fn what_passes_is_published_and_a_restart_refits_nothing() {
    let (store, mail) = (store(), task("mail"));
    let mut trainer = start(&store, plan(400));
    write(&trainer.shards, &mail, 0, 400, learnable).await;
    let event = trainer.next().await;
    assert_eq!((event.task.clone(), event.traces), (mail.clone(), 400));
    let RefitResult::Published {
        version: 1, shadow, ..
    } = event.result
    else {
        panic!("{event:?}");
    };
    assert!(shadow.agreement_lower >= 0.9);
    let manifest = trainer
        .registry
        .manifest(&mail, PipelineVersion(1))
        .await
        .unwrap();
    assert_eq!(
        (manifest.author.as_str(), manifest.shards[0].end),
        ("trainer", Offset(400))
    );
    assert_eq!(
        trainer.registry.active(&mail).await.unwrap().version,
        Some(PipelineVersion(1))
    );
    assert!(
        trainer
            .metrics
            .render()
            .contains(r#"tracer_refits_total{task="mail",verdict="passed"} 1"#)
    );
    trainer.stop().await;

    // The same traces again are nothing new, and one short of enough is not enough:
    // the task behind it in the order is refitted, and it is not.
    let (mut trainer, other) = (start(&store, plan(100)), task("other"));
    trainer.ready().await;
    write(&trainer.shards, &mail, 400, 99, learnable).await;
    write(&trainer.shards, &other, 499, 100, learnable).await;
    assert_eq!(trainer.next().await.task, other);
    write(&trainer.shards, &mail, 599, 1, learnable).await;
    let event = trainer.next().await;
    assert!(
        matches!(event.result, RefitResult::Published { version: 2, .. }),
        "{event:?}"
    );
    trainer.stop().await;
}

#[tokio::test]
async fn a_refusal_leaves_the_active_version_and_the_loop_alone() {
    let (store, mail, other) = (store(), task("mail"), task("other"));
    let mut trainer = start(&store, plan(300));
    write(&trainer.shards, &mail, 0, 300, learnable).await;
    assert_eq!(trainer.next().await.result.verdict(), "passed");

    // The teacher changes its mind about what it has said: nothing agrees any more.
    let partition = PartitionId::new(TopicName::default(), 0);
    let moods = (300..1500).map(|i| {
        let mut stored = trace(
            &mail,
            i,
            if (i * i / 7).is_multiple_of(2) {
                "plants"
            } else {
                "billing"
            },
        );
        // Said of the traces it has labelled before, too.
        stored.trace.id = format!("{mail}-{}", i - 300);
        stored.trace.input = Some(format!("message number {i} about something"));
        stored
    });
    let range = OffsetRange::new(Offset(300), Offset(1500)).unwrap();
    trainer
        .shards
        .append(&partition, range, moods.collect())
        .await
        .unwrap();
    let event = trainer.next().await;
    let RefitResult::Refused {
        shadow: Some(shadow),
        ..
    } = &event.result
    else {
        panic!("{event:?}");
    };
    assert!(shadow.agreement_lower < 0.9);
    assert_eq!(
        trainer.registry.active(&mail).await.unwrap().version,
        Some(PipelineVersion(1))
    );

    write(&trainer.shards, &other, 1500, 300, |_| "plants").await;
    let event = trainer.next().await;
    let RefitResult::Refused {
        reason,
        shadow: None,
        ..
    } = &event.result
    else {
        panic!("{event:?}");
    };
    assert!(reason.contains("nothing to classify"), "{reason}");
    assert_eq!(trainer.registry.active(&other).await.unwrap().version, None);
    assert!(
        trainer
            .metrics
            .render()
            .contains(r#"tracer_refits_total{task="other",verdict="refused"} 1"#)
    );
    assert_eq!(trainer.health.ready(), Ok(()));

    // A refused task is not tried again until something is new, and the others go on.
    write(&trainer.shards, &mail, 1800, 300, learnable).await;
    assert_eq!(trainer.next().await.task, mail);
    trainer.stop().await;
}

#[tokio::test]
async fn duplicates_count_once() {
    let (store, mail) = (store(), task("mail"));
    let mut trainer = start(&store, plan(600));
    let partition = PartitionId::new(TopicName::default(), 0);
    let rows = (0..600)
        .map(|i| trace(&mail, i % 300, learnable(i)))
        .enumerate();
    let rows = rows
        .map(|(i, stored)| StoredTrace {
            offset: i as u64,
            ..stored
        })
        .collect();
    let range = OffsetRange::new(Offset(0), Offset(600)).unwrap();
    trainer
        .shards
        .append(&partition, range, rows)
        .await
        .unwrap();
    assert_eq!(trainer.next().await.traces, 300);
    trainer.stop().await;
}

#[tokio::test]
async fn a_task_with_too_few_traces_is_no_label_of_a_metric() {
    let (store, mail, stray) = (store(), task("mail"), task("a-stray"));
    let mut plan = plan(300);
    plan.schedule.min_traces = 300;
    let mut trainer = start(&store, plan);
    write(&trainer.shards, &stray, 0, 299, learnable).await;
    write(&trainer.shards, &mail, 299, 300, learnable).await;
    assert_eq!(trainer.next().await.task, mail);
    let metrics = trainer.metrics.render();
    assert!(metrics.contains(r#"task="mail""#), "{metrics}");
    assert!(
        metrics.contains(r#"tracer_refits_total{task="default",verdict="passed"} 0"#),
        "{metrics}"
    );
    assert!(!metrics.contains("stray"), "{metrics}");
    trainer.stop().await;
}

#[tokio::test]
async fn an_impossible_plan_is_refused_at_the_start() {
    let mut plan = plan(1);
    plan.fit.delta = 2.0;
    let trainer = start(&store(), plan);
    let error = timeout(PATIENCE, trainer.service)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("delta"), "{error}");
}

#[tokio::test]
async fn refits_between_full_ones_begin_at_the_active_version() {
    let (store, mail) = (store(), task("mail"));
    let plan = TaskPlan {
        full_refit_every: 3,
        ..plan(300)
    };
    let mut trainer = start(&store, plan);
    let mut incremental = Vec::new();
    for round in 0..5 {
        write(&trainer.shards, &mail, 300 * round, 300, learnable).await;
        let event = trainer.next().await;
        assert_eq!(event.result.version(), Some(round + 1), "{event:?}");
        incremental.push(event.incremental);
    }
    assert_eq!(incremental, [false, true, true, false, true]);
    // Only the candidates of the version before were tried.
    let manifest = |version| trainer.registry.manifest(&mail, PipelineVersion(version));
    let (fourth, fifth) = (manifest(4).await.unwrap(), manifest(5).await.unwrap());
    assert_eq!(fourth.surrogate, fifth.surrogate);
    let report = |version| {
        let format = tracer_store::ReportFormat::Json;
        trainer
            .registry
            .report(&mail, PipelineVersion(version), format)
    };
    let candidates = |bytes: bytes::Bytes| {
        let report: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        report["candidates"].as_array().unwrap().len()
    };
    let (full, quick) = (report(4).await.unwrap(), report(5).await.unwrap());
    assert!(candidates(quick) < candidates(full));
    trainer.stop().await;

    // Another process knows how long ago the last full one was.
    let mut trainer = start(
        &store,
        TaskPlan {
            full_refit_every: 3,
            ..self::plan(300)
        },
    );
    for (round, incremental) in [(5, true), (6, false)] {
        write(&trainer.shards, &mail, 300 * round, 300, learnable).await;
        assert_eq!(trainer.next().await.incremental, incremental);
    }
    trainer.stop().await;
}

/// A trace of an embedding alone, near one of two places.
fn embedded(task: &TaskName, i: u64, embedder: &str) -> StoredTrace {
    let label = learnable(i);
    let mut stored = trace(task, i, label);
    let (side, spread) = (
        if label == "plants" { 1.0 } else { -1.0 },
        i as f32 / 2000.0,
    );
    stored.trace.input = None;
    stored.trace.embedding = Some(vec![side + spread, side - spread, spread]);
    stored.trace.embedder = Some(embedder.to_owned());
    stored
}

/// Weights mean nothing for the vectors of another model, though these have as many values.
#[tokio::test]
async fn a_refit_on_another_embedder_is_full() {
    let (store, mail) = (store(), task("mail"));
    let plan = TaskPlan {
        full_refit_every: 10,
        fit: FitConfig {
            features: FeatureMode::Dense,
            ..plan(300).fit
        },
        ..plan(300)
    };
    let mut trainer = start(&store, plan);
    let partition = PartitionId::new(TopicName::default(), 0);
    let mut written = 0;
    for (embedder, count, incremental) in [
        ("one", 300, false),
        ("one", 300, true),
        // Most traces from here on.
        ("two", 900, false),
        ("two", 300, true),
    ] {
        let rows = (written..written + count).map(|i| embedded(&mail, i, embedder));
        let range = OffsetRange::new(Offset(written), Offset(written + count)).unwrap();
        let appended = trainer.shards.append(&partition, range, rows.collect());
        appended.await.unwrap();
        written += count;
        let event = trainer.next().await;
        let version = event.result.version();
        let version = PipelineVersion(version.unwrap_or_else(|| panic!("{event:?}")));
        assert_eq!(event.incremental, incremental, "{version}");
        let manifest = trainer.registry.manifest(&mail, version).await.unwrap();
        assert_eq!(manifest.embedder.as_deref(), Some(embedder), "{version}");
        // Nor do its answers, which a report would compare with.
        let report = trainer.registry.report(&mail, version, ReportFormat::Json);
        let report: Report = serde_json::from_slice(&report.await.unwrap()).unwrap();
        let why = report.absent.get("changes").map(String::as_str);
        let other = "version 2 is not comparable: another embedder";
        assert_eq!(why == Some(other), version.get() == 3, "{version}: {why:?}");
    }
    trainer.stop().await;
}

#[tokio::test]
async fn without_a_version_that_can_be_read_a_refit_is_full() {
    let (store, mail) = (store(), task("mail"));
    let plan = TaskPlan {
        full_refit_every: 100,
        ..plan(300)
    };
    let mut trainer = start(&store, plan);
    write(&trainer.shards, &mail, 0, 300, learnable).await;
    assert_eq!(trainer.next().await.result.version(), Some(1));

    // A version that holds no pipeline.
    let manifest = trainer
        .registry
        .manifest(&mail, PipelineVersion(1))
        .await
        .unwrap();
    let files = VersionFiles {
        model: bytes::Bytes::from_static(b"no pipeline"),
        report_json: bytes::Bytes::from_static(b"{}"),
        report_html: bytes::Bytes::new(),
        manifest,
    };
    trainer
        .registry
        .publish(&mail, files, "somebody")
        .await
        .unwrap();
    write(&trainer.shards, &mail, 300, 300, learnable).await;
    let event = trainer.next().await;
    assert_eq!(
        (event.incremental, event.result.version()),
        (false, Some(3))
    );

    // One that is suspended.
    let reason = "its agreement fell".to_owned();
    let suspended = LogEvent::Suspended { reason };
    trainer
        .registry
        .append(&mail, suspended, "somebody")
        .await
        .unwrap();
    write(&trainer.shards, &mail, 600, 300, learnable).await;
    let event = trainer.next().await;
    assert_eq!(
        (event.incremental, event.result.version()),
        (false, Some(4))
    );

    // And, in between, one that can.
    write(&trainer.shards, &mail, 900, 300, learnable).await;
    let event = trainer.next().await;
    assert_eq!((event.incremental, event.result.version()), (true, Some(5)));
    trainer.stop().await;
}

#[tokio::test]
async fn after_a_refusal_the_next_refit_is_full() {
    let (store, mail) = (store(), task("mail"));
    let plan = TaskPlan {
        full_refit_every: 100,
        ..plan(300)
    };
    let mut trainer = start(&store, plan);
    write(&trainer.shards, &mail, 0, 300, learnable).await;
    assert!(!trainer.next().await.incremental);
    // A teacher of two minds on the same words.
    write(&trainer.shards, &mail, 300, 900, learnable).await;
    let event = trainer.next().await;
    assert!(event.incremental && event.result.version() == Some(2));
    let partition = PartitionId::new(TopicName::default(), 0);
    let moods = (1200..4200).map(|i| {
        let mut stored = trace(&mail, i, learnable(i * i / 7));
        stored.trace.id = format!("{mail}-{}", i - 1200);
        stored.trace.input = Some(format!("message number {i} about something"));
        stored
    });
    let range = OffsetRange::new(Offset(1200), Offset(4200)).unwrap();
    trainer
        .shards
        .append(&partition, range, moods.collect())
        .await
        .unwrap();
    let event = trainer.next().await;
    assert!(
        event.incremental && event.result.verdict() == "refused",
        "{event:?}"
    );
    write(&trainer.shards, &mail, 4200, 300, learnable).await;
    assert!(!trainer.next().await.incremental);
    trainer.stop().await;
}

#[tokio::test]
async fn no_candidate_is_a_refusal_with_the_reason() {
    let (store, mail, other) = (store(), task("mail"), task("other"));
    let mut plan = plan(300);
    // The traces have text alone, and a network stands on embeddings.
    plan.fit.only = vec!["mlp_1".to_owned()];
    let mut trainer = start(&store, plan);
    for (task, start) in [(&mail, 0), (&other, 300)] {
        write(&trainer.shards, task, start, 300, learnable).await;
        let event = trainer.next().await;
        assert_eq!(event.task, *task);
        let RefitResult::Refused {
            reason,
            shadow: None,
            surrogate: None,
        } = &event.result
        else {
            panic!("{event:?}");
        };
        assert!(reason.contains("no candidate could be fitted"), "{reason}");
    }
    assert_eq!(trainer.health.ready(), Ok(()));
    assert_eq!(trainer.registry.active(&mail).await.unwrap().version, None);
    trainer.stop().await;
}

/// Two topics, and texts on which the teacher says either.
fn desk(i: u64) -> StoredTrace {
    let label = learnable(i);
    let mut told = trace(&task("mail"), i, label);
    if i.is_multiple_of(5) {
        told.trace.input = Some(format!("message number {i}, please help"));
        learnable(i / 5 % 3).clone_into(&mut told.trace.teacher);
    }
    told.trace.timestamp = chrono::DateTime::from_timestamp(1_760_000_000 + 60 * i as i64, 0);
    told
}

async fn write_desk(shards: &ShardLog, start: u64, count: u64) {
    let partition = PartitionId::new(TopicName::default(), 0);
    let range = OffsetRange::new(Offset(start), Offset(start + count)).unwrap();
    let rows = (start..start + count).map(desk).collect();
    shards.append(&partition, range, rows).await.unwrap();
}

#[tokio::test]
async fn a_version_has_a_report_of_held_out_traces_and_the_model_of_one_without() {
    let (store, mail) = (store(), task("mail"));
    let mut plan = plan(600);
    plan.teacher.price.call_dollars = 0.01;
    let mut trainer = start(&store, plan.clone());
    for round in 0..2 {
        write_desk(&trainer.shards, 600 * round, 600).await;
        let event = trainer.next().await;
        assert_eq!(event.result.version(), Some(round + 1), "{event:?}");
    }
    let version = PipelineVersion(2);
    let read = async |format| trainer.registry.report(&mail, version, format).await;
    let report: Report = serde_json::from_slice(&read(ReportFormat::Json).await.unwrap()).unwrap();

    // The same refit by hand, without a report.
    let mut data = Dataset::new();
    for i in 0..1200 {
        let trace = desk(i).trace;
        data.push(Row {
            text: trace.input.as_deref(),
            embedding: None,
            label: &trace.teacher,
        })
        .unwrap();
    }
    let outcome = refit("mail", &data, &plan.fit, &mut |_| {})
        .unwrap()
        .remove(0);
    let loaded = trainer.registry.load(&mail, version).await.unwrap();
    assert_eq!(loaded.model, outcome.pipeline.as_ref().unwrap().to_bytes());

    // Its shadow rows are all that is shown.
    let shadow: BTreeSet<String> = outcome
        .shadow_rows
        .iter()
        .map(|row| format!("mail-{}", row.row))
        .collect();
    let cards = report.cards.iter();
    let cards = cards.flat_map(|of| of.handled.iter().chain(&of.deferred));
    let pairs = report.pairs.iter().flat_map(|of| &of.pairs);
    let pairs = pairs.flat_map(|pair| [&pair.handled, &pair.deferred]);
    let wrong = report.disagreements.iter().flat_map(|of| &of.examples);
    let changes = report.changes.as_ref().unwrap();
    let changed = changes
        .newly_handled_examples
        .iter()
        .chain(&changes.newly_deferred_examples)
        .chain(&changes.changed_label_examples);
    let (mut kinds, mut shown) = ([0; 3], Vec::new());
    for (kind, example) in cards
        .map(|card| (0, &card.example))
        .chain(pairs.map(|example| (1, example)))
        .chain(wrong.map(|example| (2, example)))
    {
        kinds[kind] += 1;
        shown.push(example);
    }
    assert!(
        kinds.iter().all(|&n| n > 0),
        "{kinds:?} {:?}",
        report.absent
    );
    for example in shown.into_iter().chain(changed) {
        assert!(
            shadow.contains(&example.id),
            "{} was trained on",
            example.id
        );
        assert!(example.text.is_some() && example.time.is_some());
    }
    assert_eq!((changes.version, changes.n), (1, report.shadow.n));
    assert_eq!(report.flywheel.len(), 1);
    assert_eq!(report.flywheel[0].version, 1);
    assert!(report.labels.len() == 2 && report.lengths.len() > 1);
    assert!(report.weak_slices.tested > 0 && report.reliability.len() > 1);
    assert!(report.cues.is_some() && report.diagnosis.is_empty());
    // A trace a minute, all of them asked of the teacher.
    let (cost, facts) = (report.cost.unwrap(), loaded.manifest.cost.unwrap());
    assert_eq!(
        (cost.call_dollars, cost.saved_share),
        (0.01, facts.saved_share)
    );
    assert!((cost.saved_share - 0.98 * report.shadow.coverage).abs() < 1e-9);
    let projected = cost.projected.unwrap();
    assert!(
        (projected.calls_per_day - 1440.0).abs() < 2.0,
        "{projected:?}"
    );
    let saved = projected.calls_per_day * 0.01 * cost.saved_share;
    assert!((projected.saved_dollars_per_day - saved).abs() < 1e-9);
    assert_eq!(cost.actual, None);
    let page = read(ReportFormat::Html).await.unwrap();
    let page = std::str::from_utf8(&page).unwrap();
    for section in [
        "At the boundary",
        "What changed since",
        "From version to version",
    ] {
        assert!(page.contains(section), "{section}");
    }
    assert!(trainer.registry.refusals(&mail).await.unwrap().is_empty());
    trainer.stop().await;
}

#[tokio::test]
async fn a_refusal_keeps_its_report_and_its_reason() {
    let (store, mail) = (store(), task("mail"));
    let mut trainer = start(&store, plan(300));
    // The label has nothing to do with the text.
    let label = |i: u64| learnable(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40);
    let partition = PartitionId::new(TopicName::default(), 0);
    let range = OffsetRange::new(Offset(0), Offset(300)).unwrap();
    let rows = (0..300).map(|i| {
        let mut told = trace(&mail, i, "plants");
        label(i).clone_into(&mut told.trace.teacher);
        told
    });
    let rows = rows.collect();
    trainer
        .shards
        .append(&partition, range, rows)
        .await
        .unwrap();
    let event = trainer.next().await;
    assert!(
        matches!(event.result, RefitResult::Refused { .. }),
        "{event:?}"
    );
    let kept = trainer.registry.refusals(&mail).await.unwrap();
    assert_eq!(kept.len(), 1);
    let read = async |format| trainer.registry.refusal(&mail, kept[0], format).await;
    let report: Report = serde_json::from_slice(&read(ReportFormat::Json).await.unwrap()).unwrap();
    assert_eq!(
        (report.task.as_str(), report.verdict.as_str()),
        ("mail", "refused")
    );
    assert!(!report.diagnosis.is_empty() && !report.disagreements.is_empty());
    assert!(report.cards.is_empty() && report.absent.contains_key("pairs"));
    let page = read(ReportFormat::Html).await.unwrap();
    assert!(std::str::from_utf8(&page).unwrap().contains("What helps"));
    assert!(trainer.registry.versions(&mail).await.unwrap().is_empty());
    trainer.stop().await;
}
