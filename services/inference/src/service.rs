//! `tracer.v1.Router`.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracer_proto::v1::{self, router_server::Router};
use tracer_trace::{Limits, TaskName};

use crate::{
    Recorder,
    catalog::{Catalog, Task},
    embed,
    metrics::{Rejection, ServiceMetrics},
    record, route,
    security::{Auth, Scope},
    validate::{self, Invalid, Place},
};

/// Bytes of inputs from which deciding moves to a blocking thread: a few
/// milliseconds of work must not hold up other requests of the same thread.
const HEAVY_BYTES: usize = 32 << 10;

/// What an input weighs besides its own bytes: scoring costs the same for every
/// length, so many short inputs are heavy too.
const INPUT_BYTES: usize = 512;

/// The service; clones share everything.
#[derive(Clone)]
pub(crate) struct RouterService {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) max_batch: usize,
    pub(crate) metrics: Arc<ServiceMetrics>,
    pub(crate) auth: Auth,
    /// Ends streams, which would outlast any drain.
    pub(crate) shutdown: CancellationToken,
}

impl RouterService {
    fn reject(&self, invalid: Invalid) -> Status {
        self.metrics.reject(invalid.rejection());
        invalid.into()
    }

    async fn answer(&self, request: v1::RouteRequest) -> Result<v1::RouteResponse, Status> {
        let v1::RouteRequest {
            task,
            input,
            request_id,
        } = request;
        let mut input = input.unwrap_or_default();
        let (limits, metrics) = (&self.limits, &self.metrics);
        validate::request_id(&request_id, limits).map_err(|e| self.reject(e))?;
        let found = self.find(&task, bytes(&input));
        if let Found::Light(task) | Found::Heavy(task) = &found {
            let inputs = std::slice::from_mut(&mut input);
            embed::complete(task, inputs, limits, &metrics.embed).await;
        }
        let routed = match found {
            Found::Unknown => defer_unknown(&task, |task| {
                let response = route::unknown(task, &input, Place::Single, limits)?;
                metrics.unknown(1);
                Ok(response)
            }),
            Found::Light(task) => route::single(&task, &input, limits, metrics),
            Found::Heavy(task) => {
                let (limits, metrics) = (Arc::clone(limits), Arc::clone(metrics));
                self.aside(move || route::single(&task, &input, &limits, &metrics))
                    .await?
            }
        };
        let response = routed.map_err(|e| self.reject(e))?;
        Ok(v1::RouteResponse {
            request_id,
            ..response
        })
    }

    async fn answer_batch(
        &self,
        request: v1::RouteBatchRequest,
    ) -> Result<Vec<v1::RouteResponse>, Status> {
        let v1::RouteBatchRequest { task, mut inputs } = request;
        let (limits, metrics) = (&self.limits, &self.metrics);
        if inputs.len() > self.max_batch {
            return Err(self.reject(Invalid::BatchTooLarge {
                len: inputs.len(),
                max: self.max_batch,
            }));
        }
        let found = self.find(&task, inputs.iter().map(bytes).sum());
        if let Found::Light(task) | Found::Heavy(task) = &found {
            embed::complete(task, &mut inputs, limits, &metrics.embed).await;
        }
        let routed = match found {
            Found::Unknown => defer_unknown(&task, |task| {
                let responses = inputs
                    .iter()
                    .enumerate()
                    .map(|(index, input)| route::unknown(task, input, Place::Batch(index), limits))
                    .collect::<Result<Vec<_>, _>>()?;
                metrics.unknown(responses.len());
                Ok(responses)
            }),
            Found::Light(task) => route::batch(&task, &inputs, limits, metrics),
            Found::Heavy(task) => {
                let (limits, metrics) = (Arc::clone(limits), Arc::clone(metrics));
                self.aside(move || route::batch(&task, &inputs, &limits, &metrics))
                    .await?
            }
        };
        routed.map_err(|e| self.reject(e))
    }

    /// The one load of the catalog of a request: everything it asks is answered
    /// by the version of this moment.
    fn find(&self, task: &str, bytes: usize) -> Found {
        match self.catalog.load().get(task) {
            None => Found::Unknown,
            Some(task) if bytes < HEAVY_BYTES => Found::Light(Arc::clone(task)),
            Some(task) => Found::Heavy(Arc::clone(task)),
        }
    }

    /// Decides on a blocking thread.
    async fn aside<T: Send + 'static>(
        &self,
        decide: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        tokio::task::spawn_blocking(decide)
            .await
            .map_err(|_| self.internal())
    }

    fn internal(&self) -> Status {
        self.metrics.reject(Rejection::Internal);
        Status::internal("the decision panicked; see the log of the server")
    }
}

/// Where a request's task stands, and how much work the request is.
enum Found {
    Unknown,
    Light(Arc<Task>),
    Heavy(Arc<Task>),
}

/// How much work an input is, in bytes.
fn bytes(input: &v1::Input) -> usize {
    INPUT_BYTES + input.text.len() + input.embedding.len() * size_of::<f32>()
}

fn defer_unknown<T>(
    task: &str,
    answer: impl FnOnce(&TaskName) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    answer(&validate::task_name(task)?)
}

#[tonic::async_trait]
impl Router for RouterService {
    async fn route(
        &self,
        request: Request<v1::RouteRequest>,
    ) -> Result<Response<v1::RouteResponse>, Status> {
        let task = &request.get_ref().task;
        self.auth.permit(request.extensions(), Scope::Route, task)?;
        self.answer(request.into_inner()).await.map(Response::new)
    }

    async fn route_batch(
        &self,
        request: Request<v1::RouteBatchRequest>,
    ) -> Result<Response<v1::RouteBatchResponse>, Status> {
        let task = &request.get_ref().task;
        self.auth.permit(request.extensions(), Scope::Route, task)?;
        let responses = self.answer_batch(request.into_inner()).await?;
        Ok(Response::new(v1::RouteBatchResponse { responses }))
    }

    type RouteStreamStream = Pin<Box<dyn Stream<Item = Result<v1::RouteResponse, Status>> + Send>>;

    /// A request that is refused ends the stream with its status: an answer
    /// that was skipped would put all later ones beside the wrong question.
    async fn route_stream(
        &self,
        request: Request<Streaming<v1::RouteRequest>>,
    ) -> Result<Response<Self::RouteStreamStream>, Status> {
        let caller = self.auth.stream(request.extensions())?;
        let start = Some((self.clone(), caller, request.into_inner()));
        let answers = stream::unfold(start, async |state| {
            let (service, caller, mut requests) = state?;
            // The shutdown comes first: a caller who never pauses would else keep
            // the stream open until the drain is cut off.
            let next = tokio::select! {
                biased;
                () = service.shutdown.cancelled() => {
                    Err(Status::unavailable("the server is shutting down"))
                }
                next = requests.message() => next,
            };
            let answer = match next {
                Ok(Some(request)) => match caller.permit(Scope::Route, &request.task) {
                    Ok(()) => service.answer(request).await,
                    Err(denied) => Err(denied),
                },
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            let rest = answer.is_ok().then_some((service, caller, requests));
            Some((answer, rest))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn record(
        &self,
        request: Request<v1::RecordRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        let trace = request.get_ref().trace.as_ref();
        let task = trace.map_or("", |trace| &trace.task);
        self.auth
            .permit(request.extensions(), Scope::Record, task)?;
        let recorded = record::record(self.recorder.as_ref(), request.into_inner(), &self.limits);
        match recorded.await {
            Ok(response) => {
                self.metrics.recorded.increment(1);
                Ok(Response::new(response))
            }
            Err(error) => {
                self.metrics.reject(error.rejection());
                Err(error.into())
            }
        }
    }

    async fn get_pipeline(
        &self,
        request: Request<v1::GetPipelineRequest>,
    ) -> Result<Response<v1::Pipeline>, Status> {
        let task = &request.get_ref().task;
        self.auth.sight(request.extensions())?.permit(task)?;
        let task = validate::task_name(&request.into_inner().task).map_err(|e| self.reject(e))?;
        let snapshot = self.catalog.load();
        let pipeline = snapshot.get(task.as_str()).and_then(|task| task.describe());
        pipeline.map(Response::new).ok_or_else(|| {
            self.metrics.reject(Rejection::NoPipeline);
            Status::not_found(format!("task {task} has no published pipeline"))
        })
    }

    async fn list_pipelines(
        &self,
        request: Request<v1::ListPipelinesRequest>,
    ) -> Result<Response<v1::ListPipelinesResponse>, Status> {
        let sight = self.auth.sight(request.extensions())?;
        let snapshot = self.catalog.load();
        let pipelines = snapshot
            .sorted()
            .into_iter()
            .filter(|task| sight.has(task.name.as_str()))
            .filter_map(|task| task.describe())
            .collect();
        Ok(Response::new(v1::ListPipelinesResponse { pipelines }))
    }
}
