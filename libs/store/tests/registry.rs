//! The contract of the registry, on every store.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, fs, sync::Arc};

use common::{Place, task, version_files};
use tracer_store::{LogEvent, PipelineVersion, Registry, ReportFormat, StoreError};

on_every_store![
    a_publication_can_be_loaded_and_is_active,
    the_active_version_is_a_fold_over_the_log,
    racing_publishers_get_a_number_each,
    racing_appenders_get_a_place_each,
    readers_follow_the_log,
];

async fn a_publication_can_be_loaded_and_is_active(place: Arc<Place>) {
    let (registry, name) = (Registry::new(place.open()), task("support"));
    assert!(registry.tasks().await.unwrap().is_empty());
    assert_eq!(
        registry.next_version(&name).await.unwrap(),
        PipelineVersion(1)
    );
    let error = registry.load(&name, PipelineVersion(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");

    let version = registry
        .publish(&name, version_files("model 1"), "trainer")
        .await
        .unwrap();
    assert_eq!(version, PipelineVersion(1));
    let reader = Registry::new(place.open());
    assert_eq!(reader.tasks().await.unwrap(), vec![name.clone()]);
    assert_eq!(reader.versions(&name).await.unwrap(), vec![version]);
    assert_eq!(
        reader.next_version(&name).await.unwrap(),
        PipelineVersion(2)
    );
    let loaded = reader.load(&name, version).await.unwrap();
    assert_eq!(loaded.model, "model 1");
    assert_eq!(loaded.manifest.author, "trainer");
    assert_eq!(loaded.manifest.family, "l2d");
    assert_eq!(
        (loaded.manifest.task, loaded.manifest.version),
        (name.clone(), version)
    );
    let html = reader
        .report(&name, version, ReportFormat::Html)
        .await
        .unwrap();
    assert_eq!(html, "<p>report</p>");
    let active = reader.active(&name).await.unwrap();
    assert_eq!(
        (active.version, active.suspended, active.seq),
        (Some(version), false, 1)
    );
}

async fn the_active_version_is_a_fold_over_the_log(place: Arc<Place>) {
    let (registry, name) = (Registry::new(place.open()), task("support"));
    for model in ["one", "two"] {
        registry
            .publish(&name, version_files(model), "trainer")
            .await
            .unwrap();
    }
    let (one, two) = (PipelineVersion(1), PipelineVersion(2));
    let suspended = LogEvent::Suspended {
        reason: "live agreement fell".into(),
    };
    let steps = [
        (suspended.clone(), two, true),
        (LogEvent::Resumed, two, false),
        (suspended, two, true),
        (LogEvent::RolledBack { to_version: one }, one, false),
    ];
    for (event, version, is_suspended) in steps {
        registry.append(&name, event, "operator").await.unwrap();
        for reader in [registry.clone(), Registry::new(place.open())] {
            let active = reader.active(&name).await.unwrap();
            assert_eq!(
                (active.version, active.suspended),
                (Some(version), is_suspended)
            );
            assert_eq!(active.reason.is_some(), is_suspended);
        }
    }
    let nowhere = LogEvent::RolledBack {
        to_version: PipelineVersion(9),
    };
    let error = registry
        .append(&name, nowhere, "operator")
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    let log = registry.log(&name).await.unwrap();
    assert_eq!(
        log.iter().map(|e| e.seq).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(log[5].author, "operator");
}

async fn racing_publishers_get_a_number_each(place: Arc<Place>) {
    // Equal contents, so that only the race tells them apart.
    let publishers: Vec<_> = (0..8)
        .map(|_| {
            let registry = Registry::new(place.open());
            tokio::spawn(async move {
                registry
                    .publish(&task("t"), version_files("the same"), "rival")
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut given = BTreeSet::new();
    for publisher in publishers {
        assert!(
            given.insert(publisher.await.unwrap()),
            "a number was given twice"
        );
    }
    let registry = Registry::new(place.open());
    let versions: BTreeSet<_> = registry
        .versions(&task("t"))
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(versions, given);
    let log = registry.log(&task("t")).await.unwrap();
    let logged: BTreeSet<_> = log
        .iter()
        .map(|entry| match entry.event {
            LogEvent::Published { version } => version,
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((logged, log.len()), (given, 8));
}

async fn racing_appenders_get_a_place_each(place: Arc<Place>) {
    let appenders: Vec<_> = (0..16)
        .map(|_| {
            let registry = Registry::new(place.open());
            tokio::spawn(async move {
                registry
                    .append(&task("t"), LogEvent::Resumed, "rival")
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut entries = Vec::new();
    for appender in appenders {
        entries.push(appender.await.unwrap());
    }
    entries.sort_by_key(|entry| entry.seq);
    assert_eq!(
        Registry::new(place.open()).log(&task("t")).await.unwrap(),
        entries
    );
    assert_eq!(entries.len(), 16);
    assert_eq!(entries.last().unwrap().seq, 16);
}

async fn readers_follow_the_log(place: Arc<Place>) {
    let (writer, reader) = (Registry::new(place.open()), Registry::new(place.open()));
    for length in 1..=12 {
        writer
            .append(&task("t"), LogEvent::Resumed, "operator")
            .await
            .unwrap();
        assert_eq!(reader.log(&task("t")).await.unwrap().len(), length);
    }
}

/// Whatever is wrong with a version, it is refused in words, and others still load.
#[tokio::test]
async fn damaged_and_newer_versions_are_refused() {
    let place = Place::file();
    let (registry, name) = (Registry::new(place.open()), task("t"));
    for model in ["good model", "another one"] {
        registry
            .publish(&name, version_files(model), "trainer")
            .await
            .unwrap();
    }
    let folder = place
        .directory
        .as_ref()
        .unwrap()
        .path()
        .join("store/pipelines/t/v000002");
    let (model, manifest) = (
        folder.join("model.safetensors"),
        folder.join("manifest.json"),
    );
    let whole = fs::read_to_string(&manifest).unwrap();

    let refusal = async |why: &str| {
        let error = registry.load(&name, PipelineVersion(2)).await.unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(registry.load(&name, PipelineVersion(1)).await.is_ok());
    };
    fs::write(&model, "another").unwrap();
    refusal("it has 7 bytes, its manifest says 11").await;
    fs::write(&model, "another 0ne").unwrap();
    refusal("SHA-256").await;
    fs::remove_file(&model).unwrap();
    refusal("it is missing").await;
    fs::write(&model, "another one").unwrap();
    assert!(registry.load(&name, PipelineVersion(2)).await.is_ok());

    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    refusal("damaged").await;
    fs::write(
        &manifest,
        whole.replace("\"schema_version\": 1", "\"schema_version\": 2"),
    )
    .unwrap();
    refusal("upgrade Tracer").await;
    fs::write(&manifest, whole.replace("\"version\": 2", "\"version\": 3")).unwrap();
    refusal("it is the manifest of t v000003").await;
}

#[tokio::test]
async fn an_abandoned_publication_never_serves_and_its_number_is_gone() {
    let place = Place::file();
    let (registry, name) = (Registry::new(place.open()), task("t"));
    registry
        .publish(&name, version_files("one"), "trainer")
        .await
        .unwrap();
    let store = place.directory.as_ref().unwrap().path().join("store");
    let abandoned = store.join("pipelines/t/v000002");
    fs::create_dir_all(&abandoned).unwrap();
    fs::write(abandoned.join("model.safetensors"), "half").unwrap();

    assert_eq!(
        registry.versions(&name).await.unwrap(),
        [PipelineVersion(1)]
    );
    let version = registry
        .publish(&name, version_files("three"), "trainer")
        .await
        .unwrap();
    assert_eq!(version, PipelineVersion(3));
    assert_eq!(registry.active(&name).await.unwrap().version, Some(version));
}

#[tokio::test]
async fn a_hole_in_the_log_is_an_error() {
    let place = Place::file();
    for _ in 0..3 {
        let registry = Registry::new(place.open());
        registry
            .append(&task("t"), LogEvent::Resumed, "operator")
            .await
            .unwrap();
    }
    let store = place.directory.as_ref().unwrap().path().join("store");
    fs::remove_file(store.join(format!("pipelines/t/log/{:020}.json", 2))).unwrap();
    let error = Registry::new(place.open())
        .active(&task("t"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("00000000000000000002.json"),
        "{error}"
    );
}
