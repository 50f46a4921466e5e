//! Keeps a lease while its holder works.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracer_store::{Lease, StoreError};
use tracer_trace::TaskName;

use crate::record::Record;

/// What stands in the entries to come.
pub(crate) type Shared = Arc<Mutex<Record>>;

/// A lease that is renewed by itself. Dropped, it is left to expire.
pub(crate) struct Keeper {
    lease: Arc<tokio::sync::Mutex<Lease>>,
    record: Shared,
    lost: CancellationToken,
    stop: CancellationToken,
    renewals: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Renews the lease thrice in the time after which it expires.
    pub(crate) fn new(task: &TaskName, lease: Lease, record: Shared, expires: Duration) -> Self {
        let lease = Arc::new(tokio::sync::Mutex::new(lease));
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let renewals = tokio::spawn({
            let (lease, record) = (Arc::clone(&lease), Arc::clone(&record));
            let (task, lost, stop) = (task.clone(), lost.clone(), stop.clone());
            async move {
                while !lost.is_cancelled() {
                    tokio::select! {
                        () = tokio::time::sleep(expires / 3) => {}
                        () = stop.cancelled() => return,
                    }
                    match lease.lock().await.renew(body(&record)).await {
                        Ok(true) => {}
                        Ok(false) => lost.cancel(),
                        // Nobody is harmed: whoever takes it over fences this one off.
                        Err(error) => {
                            tracing::warn!(%task, %error, "cannot renew the lease, trying again");
                        }
                    }
                }
            }
        });
        Self {
            lease,
            record,
            lost,
            stop,
            renewals: Some(renewals),
        }
    }

    /// Renews the lease now. False when somebody has taken it over.
    pub(crate) async fn still_holds(&self) -> Result<bool, StoreError> {
        if self.lost.is_cancelled() {
            return Ok(false);
        }
        let held = self.lease.lock().await.renew(body(&self.record)).await?;
        if !held {
            self.lost.cancel();
        }
        Ok(held)
    }

    /// Gives the task back, with the last word on it. False when somebody had taken it over.
    pub(crate) async fn release(mut self) -> Result<bool, StoreError> {
        self.stop.cancel();
        if let Some(renewals) = self.renewals.take() {
            // It ends between two renewals. A panic of it is no reason to keep the task.
            let _ = renewals.await;
        }
        if self.lost.is_cancelled() {
            return Ok(false);
        }
        let body = body(&self.record);
        self.lease.lock().await.release(body).await
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn body(record: &Shared) -> serde_json::Value {
    let record = record.lock().unwrap_or_else(PoisonError::into_inner);
    record.to_json()
}
