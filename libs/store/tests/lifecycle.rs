//! What people do to versions, on every store.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use chrono::TimeDelta;
use common::{Place, task, version_files};
use tracer_store::{
    Archive, ArchiveError, LogEvent, Manifest, PipelineVersion, Provenance, Registry,
    RetentionRule, StoreError, VersionFiles, retired,
};
use tracer_trace::TaskName;

on_every_store![
    rivals_who_roll_back_take_one_step,
    what_serves_is_never_retired,
    a_version_goes_in_two_steps,
    an_archive_is_published_elsewhere,
];

async fn publish(registry: &Registry, name: &TaskName, versions: u64) {
    for version in 1..=versions {
        let files = version_files(&format!("model {version}"));
        registry.publish(name, files, "trainer").await.unwrap();
    }
}

fn rule(versions: usize, grace: TimeDelta) -> RetentionRule {
    RetentionRule {
        versions,
        age: TimeDelta::zero(),
        grace,
    }
}

async fn rivals_who_roll_back_take_one_step(place: Arc<Place>) {
    let name = task("support");
    publish(&Registry::new(place.open()), &name, 3).await;
    let rivals: Vec<_> = (0..4)
        .map(|rival| {
            let (registry, name) = (Registry::new(place.open()), name.clone());
            tokio::spawn(async move {
                // Each has looked before anybody has acted.
                registry.log(&name).await.unwrap();
                let author = format!("rival {rival}");
                registry
                    .roll_back(&name, Some(PipelineVersion(2)), &author, Some("why"))
                    .await
            })
        })
        .collect();
    let mut changed = 0;
    for rival in rivals {
        match rival.await.unwrap() {
            Ok(done) => changed += usize::from(done.entry.is_some()),
            Err(error) => assert!(matches!(error, StoreError::Deployment { .. }), "{error}"),
        }
    }
    assert_eq!(changed, 1);
    let registry = Registry::new(place.open());
    let log = registry.log(&name).await.unwrap();
    assert_eq!(log.len(), 4);
    assert_eq!(log[3].reason.as_deref(), Some("why"));
    assert_eq!(
        registry.active(&name).await.unwrap().version,
        Some(PipelineVersion(2))
    );
}

async fn what_serves_is_never_retired(place: Arc<Place>) {
    let name = task("support");
    publish(&Registry::new(place.open()), &name, 6).await;
    // One retires all but the newest while others roll back to what would go.
    let sweeper = {
        let (registry, name) = (Registry::new(place.open()), name.clone());
        tokio::spawn(async move {
            for _ in 0..3 {
                let rule = rule(1, TimeDelta::zero());
                registry
                    .retire(&name, &rule, "retention", false)
                    .await
                    .unwrap();
            }
        })
    };
    let operators: Vec<_> = (1..=3)
        .map(|version| {
            let (registry, name) = (Registry::new(place.open()), name.clone());
            tokio::spawn(async move {
                registry
                    .roll_back(&name, Some(PipelineVersion(version)), "ada", None)
                    .await
            })
        })
        .collect();
    sweeper.await.unwrap();
    for operator in operators {
        // Refused or done: either is right.
        drop(operator.await.unwrap());
    }
    let registry = Registry::new(place.open());
    let active = registry.active(&name).await.unwrap().version.unwrap();
    let log = registry.log(&name).await.unwrap();
    assert!(!retired(&log).contains(&active), "{log:#?}");
    registry.load(&name, active).await.unwrap();
}

async fn a_version_goes_in_two_steps(place: Arc<Place>) {
    let (registry, name) = (Registry::new(place.open()), task("support"));
    publish(&registry, &name, 2).await;
    // The third begins at the first.
    let files = version_files("model 3");
    let base = Provenance {
        base: Some(PipelineVersion(1)),
        ..Provenance::default()
    };
    let manifest = Manifest {
        provenance: Some(base),
        ..files.manifest
    };
    let files = VersionFiles { manifest, ..files };
    registry.publish(&name, files, "trainer").await.unwrap();
    publish(&registry, &name, 1).await;
    registry.suspend(&name, "ada", "an incident").await.unwrap();

    let hour = TimeDelta::hours(1);
    let young = RetentionRule {
        age: hour,
        ..rule(1, hour)
    };
    let none = registry
        .retire(&name, &young, "retention", false)
        .await
        .unwrap();
    assert!(none.retired.is_empty(), "{none:?}");
    // 4 is suspended but active, 3 is what it took over from, 1 is what 3 began at.
    let done = registry
        .retire(&name, &rule(1, hour), "retention", false)
        .await
        .unwrap();
    assert_eq!(done.retired, [PipelineVersion(2)]);
    assert!(done.deleted.is_empty());
    assert_eq!(done.kept, [1, 3, 4].map(PipelineVersion));
    registry.load(&name, PipelineVersion(2)).await.unwrap();
    let error = registry
        .roll_back(&name, Some(PipelineVersion(2)), "ada", None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("retired"), "{error}");
    let active = registry.active(&name).await.unwrap();
    assert_eq!(active.reason.as_deref(), Some("an incident"));

    let gone = rule(1, TimeDelta::zero());
    let dry = registry
        .retire(&name, &gone, "retention", true)
        .await
        .unwrap();
    assert_eq!((dry.deleted.len(), dry.objects), (1, 4));
    registry.load(&name, PipelineVersion(2)).await.unwrap();
    registry
        .retire(&name, &gone, "retention", false)
        .await
        .unwrap();
    let error = registry.load(&name, PipelineVersion(2)).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Retired { .. }) && error.is_refusal(),
        "{error}"
    );
    // Its number is not given again, and a reader that folds from nothing agrees.
    assert_eq!(
        registry.next_version(&name).await.unwrap(),
        PipelineVersion(5)
    );
    let reader = Registry::new(place.open());
    assert_eq!(
        reader.active(&name).await.unwrap(),
        active_after(&registry, &name).await
    );
    let events = reader.log(&name).await.unwrap();
    let retirement = LogEvent::Retired {
        versions: vec![PipelineVersion(2)],
    };
    assert_eq!(events.iter().filter(|e| e.event == retirement).count(), 1);
}

async fn active_after(registry: &Registry, name: &TaskName) -> tracer_store::Active {
    registry.active(name).await.unwrap()
}

async fn an_archive_is_published_elsewhere(place: Arc<Place>) {
    let (registry, name) = (Registry::new(place.open()), task("support"));
    publish(&registry, &name, 2).await;
    let bytes = registry.export(&name, PipelineVersion(2)).await.unwrap();
    let again = registry.export(&name, PipelineVersion(2)).await.unwrap();
    assert_eq!(bytes, again);
    let archive = Archive::read(&bytes, 1 << 20).unwrap();
    assert_eq!(archive.model(), "model 2");
    let error = Archive::read(&bytes, 100).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge(100)), "{error}");
    let version = registry.import(&name, &archive, "ada").await.unwrap();
    let loaded = registry.load(&name, version).await.unwrap();
    assert_eq!(
        (version, &loaded.model[..]),
        (PipelineVersion(3), &b"model 2"[..])
    );
    // Offsets of another store mean nothing in this one.
    assert!(loaded.manifest.shards.is_empty());
    let imported = loaded.manifest.imported.unwrap();
    assert_eq!(
        (imported.version, imported.author.as_str()),
        (PipelineVersion(2), "trainer")
    );
}
