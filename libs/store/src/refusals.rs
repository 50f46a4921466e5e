//! The reports of refused refits: for people, who ask why nothing new serves.
//!
//! ```text
//! refusals/{task}/{milliseconds:020}/report.json, report.html
//! ```
//!
//! They stand beside the registry and not in it: a refusal changes nothing that serves.
//! Only the newest few are kept.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::path::Path;
use tracer_trace::TaskName;

use crate::{
    error::Result,
    registry::{REPORT_HTML, REPORT_JSON, Registry, ReportFormat},
};

const ROOT: &str = "refusals";

impl Registry {
    /// Refusals whose reports are kept, of each task.
    pub const REFUSALS: usize = 10;

    /// Keeps the report of a refit that was refused, and drops those that are too many.
    /// Of two within a millisecond, the first is kept.
    pub async fn keep_refusal(
        &self,
        task: &TaskName,
        at: DateTime<Utc>,
        json: Bytes,
        html: Bytes,
    ) -> Result<()> {
        // The page goes first: whoever finds the document finds the page.
        for (name, bytes) in [(REPORT_HTML, html), (REPORT_JSON, json)] {
            self.store.create(&file(task, at, name), bytes).await?;
        }
        let kept = self.refusals(task).await?;
        for &old in &kept[..kept.len().saturating_sub(Self::REFUSALS)] {
            for name in [REPORT_JSON, REPORT_HTML] {
                self.store.delete(&file(task, old, name)).await?;
            }
        }
        Ok(())
    }

    /// When refits of a task were refused, oldest first, as far as their reports are kept.
    pub async fn refusals(&self, task: &TaskName) -> Result<Vec<DateTime<Utc>>> {
        let folder = Path::from(format!("{ROOT}/{task}"));
        let listed = self.store.list(&folder, None).await?;
        let times = listed.iter().filter_map(|meta| {
            let mut parts = meta.location.prefix_match(&folder)?;
            let at = parts.next()?.as_ref().parse().ok()?;
            let is_document = parts.next()?.as_ref() == REPORT_JSON;
            DateTime::from_timestamp_millis(at).filter(|_| is_document)
        });
        Ok(times.collect())
    }

    /// The report of a refusal.
    pub async fn refusal(
        &self,
        task: &TaskName,
        at: DateTime<Utc>,
        format: ReportFormat,
    ) -> Result<Bytes> {
        let name = match format {
            ReportFormat::Json => REPORT_JSON,
            ReportFormat::Html => REPORT_HTML,
        };
        self.store.get(&file(task, at, name)).await
    }
}

fn file(task: &TaskName, at: DateTime<Utc>, name: &str) -> Path {
    let at = at.timestamp_millis().max(0);
    Path::from(format!("{ROOT}/{task}/{at:020}/{name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Store;

    #[tokio::test]
    async fn the_newest_few_are_kept() {
        let registry = Registry::new(Store::open("memory://", &BTreeMap::new()).unwrap());
        let (mail, other) = (TaskName::new("mail").unwrap(), TaskName::default());
        let at = |i: i64| DateTime::from_timestamp_millis(1_000_000 + i).unwrap();
        for i in 0..13 {
            let (json, html) = (format!("{{\"n\":{i}}}"), format!("<p>{i}"));
            registry
                .keep_refusal(&mail, at(i), json.into(), html.into())
                .await
                .unwrap();
        }
        let kept = registry.refusals(&mail).await.unwrap();
        assert_eq!(kept, (3..13).map(at).collect::<Vec<_>>());
        let read = async |at, format| registry.refusal(&mail, at, format).await;
        assert_eq!(
            read(at(12), ReportFormat::Json).await.unwrap(),
            "{\"n\":12}"
        );
        assert_eq!(read(at(3), ReportFormat::Html).await.unwrap(), "<p>3");
        assert!(read(at(2), ReportFormat::Html).await.is_err());
        assert!(registry.refusals(&other).await.unwrap().is_empty());
        // A refusal is no version, and makes no task.
        assert!(registry.tasks().await.unwrap().is_empty());
    }
}
