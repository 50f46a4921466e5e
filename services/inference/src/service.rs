//! `tracer.v1.Router`.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracer_proto::v1::{self, router_server::Router};
use tracer_trace::{Limits, TaskName};

use crate::{
    Recorder,
    admission::{Admission, Permit},
    catalog::{Catalog, Task},
    embed,
    identify::{Identities, RequestId, trace_context},
    metrics::{Rejection, ServiceMetrics},
    record,
    route::{self, Failed, Terms},
    security::{Auth, Scope},
    status,
    validate::{self, Invalid, Place},
};

/// Bytes of inputs from which deciding moves to a blocking thread: a few
/// milliseconds of work must not hold up other requests of the same thread.
const HEAVY_BYTES: usize = 32 << 10;

/// What an input weighs besides its own bytes: scoring costs the same for every
/// length, so many short inputs are heavy too.
const INPUT_BYTES: usize = 512;

/// Bytes of inputs that count as much as one request, towards what is under way.
const REQUEST_BYTES: usize = 8 << 10;

/// How long a message of a stream waits for room.
const MOMENT: Duration = Duration::from_millis(50);

/// The service; clones share everything.
#[derive(Clone)]
pub(crate) struct RouterService {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) identities: Arc<Identities>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) max_batch: usize,
    pub(crate) metrics: Arc<ServiceMetrics>,
    pub(crate) auth: Auth,
    pub(crate) admission: Arc<Admission>,
    /// Heavy requests that are decided at a time: as many as there are processors.
    pub(crate) heavy: Arc<Semaphore>,
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
            top_k,
        } = request;
        let mut input = input.unwrap_or_default();
        let (limits, metrics) = (&self.limits, &self.metrics);
        validate::request_id(&request_id, limits).map_err(|e| self.reject(e))?;
        let top_k = validate::top_k(top_k).map_err(|e| self.reject(e))?;
        let terms = Terms { limits, top_k };
        let (found, bytes) = self.find(&task, std::slice::from_ref(&input));
        let _more = self.more(bytes)?;
        self.embed(&found, std::slice::from_mut(&mut input)).await?;
        let routed = match found {
            Found::Unknown => defer_unknown(&task, |task| {
                let response = route::unknown(task, &input, Place::Single, limits)?;
                metrics.unknown(1);
                Ok(response)
            }),
            Found::Light(task) => route::single(&task, &input, terms, metrics),
            Found::Heavy(task) => {
                let (limits, metrics) = (Arc::clone(limits), Arc::clone(metrics));
                let decide = move |_: &AtomicBool| {
                    let limits = &limits;
                    route::single(&task, &input, Terms { limits, top_k }, &metrics)
                };
                self.aside(decide).await?
            }
        };
        let response = routed.map_err(|e| self.reject(e))?;
        Ok(v1::RouteResponse {
            request_id,
            ..response
        })
    }

    async fn answer_of_stream(
        &self,
        request: v1::RouteRequest,
    ) -> Result<v1::RouteResponse, Status> {
        let _permit = self.admit().await?;
        self.answer(request).await
    }

    async fn answer_batch(
        &self,
        request: v1::RouteBatchRequest,
    ) -> Result<Vec<v1::RouteResponse>, Status> {
        let v1::RouteBatchRequest {
            task,
            mut inputs,
            top_k,
        } = request;
        let (limits, metrics) = (&self.limits, &self.metrics);
        if inputs.len() > self.max_batch {
            return Err(self.reject(Invalid::BatchTooLarge {
                len: inputs.len(),
                max: self.max_batch,
            }));
        }
        let top_k = validate::top_k(top_k).map_err(|e| self.reject(e))?;
        let (found, bytes) = self.find(&task, &inputs);
        let _more = self.more(bytes)?;
        self.embed(&found, &mut inputs).await?;
        let routed = match found {
            Found::Unknown => defer_unknown(&task, |task| {
                let responses = inputs
                    .iter()
                    .enumerate()
                    .map(|(index, input)| route::unknown(task, input, Place::Batch(index), limits))
                    .collect::<Result<Vec<_>, _>>()?;
                metrics.unknown(responses.len());
                Ok(responses)
            })
            .map_err(Failed::Invalid),
            Found::Light(task) => {
                let terms = Terms { limits, top_k };
                route::batch(&task, &inputs, terms, metrics, &AtomicBool::new(false))
            }
            Found::Heavy(task) => {
                let (limits, metrics) = (Arc::clone(limits), Arc::clone(metrics));
                let decide = move |abandoned: &AtomicBool| {
                    let limits = &limits;
                    route::batch(&task, &inputs, Terms { limits, top_k }, &metrics, abandoned)
                };
                self.aside(decide).await?
            }
        };
        routed.map_err(|failed| match failed {
            Failed::Invalid(invalid) => self.reject(invalid),
            Failed::Abandoned => Status::cancelled("nobody waits for the answer"),
        })
    }

    /// The one load of the catalog of a request: everything it asks is answered
    /// by the version of this moment. With it goes how much work the inputs are, in
    /// bytes: those of the embeddings that will be made of them too.
    fn find(&self, task: &str, inputs: &[v1::Input]) -> (Found, usize) {
        let found = self.catalog.load().get(task).map(Arc::clone);
        let embeds = found.as_deref().and_then(embed::by);
        let vector = embeds.map_or(0, |embedder| {
            embedder.identity().dimension() * size_of::<f32>()
        });
        let more = |input| if embed::needs(input) { vector } else { 0 };
        let bytes = inputs.iter().map(|input| bytes(input) + more(input)).sum();
        let found = match found {
            None => Found::Unknown,
            Some(task) if bytes < HEAVY_BYTES => Found::Light(task),
            Some(task) => Found::Heavy(task),
        };
        (found, bytes)
    }

    /// Makes the embeddings that the task's pipeline needs and nobody sent.
    async fn embed(&self, found: &Found, inputs: &mut [v1::Input]) -> Result<(), Status> {
        let (Found::Light(task) | Found::Heavy(task)) = found else {
            return Ok(());
        };
        let embedded = embed::complete(task, inputs, &self.limits, &self.metrics.embed);
        embedded.await.map_err(|embed::Busy| self.overloaded())
    }

    /// Room for what a request weighs beyond the one request it was let in as.
    fn more(&self, bytes: usize) -> Result<Option<Permit>, Status> {
        match bytes / REQUEST_BYTES {
            0 => Ok(None),
            work => match self.admission.more(work) {
                Some(permit) => Ok(Some(permit)),
                None => Err(self.overloaded()),
            },
        }
    }

    fn overloaded(&self) -> Status {
        self.metrics.reject(Rejection::Overloaded);
        status::overloaded(self.admission.target())
    }

    /// Room for a message of a stream. A stream that finds none waits a moment: the
    /// caller is held back by it, which is what a stream is for.
    async fn admit(&self) -> Result<Permit, Status> {
        if let Some(permit) = self.admission.enter() {
            return Ok(permit);
        }
        tokio::time::sleep(MOMENT).await;
        self.admission.enter().ok_or_else(|| self.overloaded())
    }

    /// Decides on a blocking thread, once one of few is free. Whoever waits no longer
    /// is not decided for; `decide` is told when that happens under way.
    async fn aside<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&AtomicBool) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let turn = Arc::clone(&self.heavy).acquire_owned().await;
        let turn = turn.map_err(|_| self.internal())?;
        let abandoned = Abandoned::default();
        let told = Arc::clone(&abandoned.0);
        let decided = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            decide(&told)
        });
        decided.await.map_err(|_| self.internal())
    }

    fn internal(&self) -> Status {
        self.metrics.reject(Rejection::Internal);
        Status::internal("the decision panicked; see the log of the server")
    }
}

/// Tells a blocking thread, once it is dropped, that nobody waits for it.
#[derive(Default)]
struct Abandoned(Arc<AtomicBool>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
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
        let id = request.extensions().get::<RequestId>().cloned();
        let told = id.map(|id| (id, Instant::now()));
        let start = Some((self.clone(), caller, request.into_inner(), told));
        let answers = stream::unfold(start, async |state| {
            let (service, caller, mut requests, told) = state?;
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
                    Ok(()) => service.answer_of_stream(request).await,
                    Err(denied) => Err(denied),
                },
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            // The answer began long ago: this is its end.
            if let (Err(status), Some((id, began))) = (&answer, &told) {
                service.identities.say(id, "RouteStream", *began, status);
            }
            let rest = answer.is_ok().then_some((service, caller, requests, told));
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
        let context = trace_context(request.metadata().as_ref());
        let (recorder, request) = (self.recorder.as_ref(), request.into_inner());
        let recorded = record::record(recorder, request, context.as_ref(), &self.limits);
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
            let message = format!("task {task} has no published pipeline");
            status::refusal(Code::NotFound, Rejection::NoPipeline, message)
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
