//! What operators ask of the trainer over HTTP: `POST /refits?task=T`, `GET /refits`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tracer_store::{Claimable, Leases, ShardLog, StoreError};
use tracer_trace::TaskName;

use crate::Record;

/// The longest reason that is kept.
const REASON: usize = 200;

#[derive(Clone)]
struct Admin {
    shards: ShardLog,
    leases: Leases,
    /// One question at a time: each lists the store.
    turns: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
struct Asked {
    task: TaskName,
    #[serde(default)]
    reason: String,
}

/// The routes, to be merged with others that share the port.
///
/// `POST /refits?task=T&reason=R` asks for a refit, which any replica takes up, and answers
/// 202 with `{"request": id}`; 200 where a request waits already, and 404 for a task
/// without traces. `GET /refits` tells how every task stands.
pub fn admin_router(shards: ShardLog, leases: Leases) -> Router {
    let admin = Admin {
        shards,
        leases,
        turns: Arc::new(Semaphore::new(1)),
    };
    Router::new()
        .route("/refits", get(stand).post(ask))
        .with_state(admin)
}

/// Whether any trace of a task is in the store.
pub async fn has_traces(shards: &ShardLog, task: &TaskName) -> Result<bool, StoreError> {
    for partition in shards.partitions().await? {
        let shards = shards.shards(&partition).await?;
        if shards
            .iter()
            .any(|shard| shard.rows_by_task.contains_key(task))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn ask(State(admin): State<Admin>, Query(asked): Query<Asked>) -> Response {
    let Ok(_turn) = admin.turns.try_acquire() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let result = async {
        if !has_traces(&admin.shards, &asked.task).await? {
            let error = format!("there are no traces of {}", asked.task);
            return Ok((StatusCode::NOT_FOUND, Json(json!({"error": error}))));
        }
        // One that waits is as good, and so they stay few.
        if let Some(waiting) = admin.leases.requests(&asked.task).await?.pop() {
            return Ok((StatusCode::OK, Json(json!({"request": waiting}))));
        }
        let reason: String = asked.reason.chars().take(REASON).collect();
        let id = admin.leases.request(&asked.task, "http", &reason).await?;
        Ok((StatusCode::ACCEPTED, Json(json!({"request": id}))))
    };
    answer(result.await)
}

async fn stand(State(admin): State<Admin>) -> Response {
    let Ok(_turn) = admin.turns.try_acquire() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let result = admin.leases.look().await.map(|standings| {
        let tasks = standings.into_iter().map(|(task, standing)| {
            let last = standing.last.as_deref();
            let held = standing.claim != Claimable::Free;
            json!({
                "task": task.as_str(),
                "holder": last.filter(|_| held).map(|last| &last.holder),
                "epoch": last.map(|last| last.epoch),
                "requests": standing.requests,
                "record": Record::of(last),
            })
        });
        let tasks: Vec<_> = tasks.collect();
        (StatusCode::OK, Json(json!({ "tasks": tasks })))
    });
    answer(result)
}

fn answer(result: Result<(StatusCode, Json<serde_json::Value>), StoreError>) -> Response {
    match result {
        Ok(answer) => answer.into_response(),
        Err(error) => {
            tracing::warn!(%error, "the store does not answer a question about refits");
            let body = Json(json!({"error": error.to_string()}));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}
