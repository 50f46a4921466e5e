//! Dynamic batching: texts that come at about the same time are embedded together, on a
//! thread of its own.
//!
//! The queue is bounded in texts, not in requests: what does not fit is refused at once.
//! A request that nobody waits for any more is passed over, and one that waited too long
//! is refused in its turn: the model would else be busy with texts whose callers have
//! long asked somebody else, and everybody would wait the longer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::EmbedError;

type Answer = Result<Vec<Vec<f32>>, EmbedError>;

/// How texts are gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gather {
    /// Texts that are embedded together. A request of more is embedded whole.
    pub(super) batch: usize,
    /// How long the first text may wait for others.
    pub(super) wait: Duration,
    /// Texts that wait.
    pub(super) queue: usize,
    /// How long they do.
    pub(super) delay: Duration,
}

struct Job {
    texts: Vec<String>,
    reply: oneshot::Sender<Answer>,
    came: Instant,
    /// Gives the places in the queue back, whatever becomes of the job.
    _places: Places,
}

struct Places(Arc<AtomicUsize>, usize);

impl Drop for Places {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

/// The way in. The thread ends with its last text after this is dropped.
pub(super) struct Batcher {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    max_queue: usize,
}

impl Batcher {
    /// Starts the thread. `embed` gives one vector a text, in order.
    pub(super) fn start(
        gather: Gather,
        embed: impl FnMut(&[String]) -> Answer + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        thread::Builder::new()
            .name("embedder".to_owned())
            .spawn(move || work(&queue, gather, embed))?;
        Ok(Self {
            jobs,
            waiting: Arc::default(),
            max_queue: gather.queue,
        })
    }

    pub(super) async fn embed(&self, texts: Vec<String>) -> Answer {
        let count = texts.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        // A request larger than the queue may go in alone.
        let before = self.waiting.fetch_add(count, Relaxed);
        let places = Places(Arc::clone(&self.waiting), count);
        if before > 0 && before + count > self.max_queue {
            return Err(EmbedError::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let job = Job {
            texts,
            reply,
            came: Instant::now(),
            _places: places,
        };
        let stopped = || EmbedError::Model {
            detail: "its thread has ended".to_owned(),
        };
        self.jobs.send(job).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

fn work(queue: &Receiver<Job>, gather: Gather, mut embed: impl FnMut(&[String]) -> Answer) {
    while let Ok(first) = queue.recv() {
        let jobs = gathered(queue, gather, first);
        let mut texts = Vec::new();
        let mut asked = Vec::new();
        for mut job in jobs.into_iter().filter(|job| !job.reply.is_closed()) {
            if job.came.elapsed() > gather.delay {
                let _ = job.reply.send(Err(EmbedError::Busy));
                continue;
            }
            let count = job.texts.len();
            texts.append(&mut job.texts);
            asked.push((count, job));
        }
        if asked.is_empty() {
            continue;
        }
        match ask(&mut embed, &texts) {
            Ok(vectors) => {
                let mut vectors = vectors.into_iter();
                for (count, job) in asked {
                    let _ = job.reply.send(Ok(vectors.by_ref().take(count).collect()));
                }
            }
            // A text of one caller is no reason to refuse those of another.
            Err(error) if error.is_of_texts() && asked.len() > 1 => {
                let mut rest = &texts[..];
                for (count, job) in asked {
                    let (own, others) = rest.split_at(count);
                    rest = others;
                    let _ = job.reply.send(ask(&mut embed, own));
                }
            }
            Err(error) => refuse(asked, &error),
        }
    }
}

/// The vectors of some texts, one a text.
fn ask(embed: &mut impl FnMut(&[String]) -> Answer, texts: &[String]) -> Answer {
    let answer = catch_unwind(AssertUnwindSafe(|| embed(texts)));
    let vectors = answer.unwrap_or_else(|_| {
        let detail = "the model panicked".to_owned();
        Err(EmbedError::Refused { detail })
    })?;
    if vectors.len() != texts.len() {
        let detail = format!("{} vectors for {} texts", vectors.len(), texts.len());
        return Err(EmbedError::BadAnswer { detail });
    }
    Ok(vectors)
}

fn refuse(asked: Vec<(usize, Job)>, error: &EmbedError) {
    for (_, job) in asked {
        let _ = job.reply.send(Err(error.clone()));
    }
}

/// The first job and those that come within its wait, until the batch is full.
fn gathered(queue: &Receiver<Job>, gather: Gather, first: Job) -> Vec<Job> {
    let deadline = Instant::now() + gather.wait;
    let mut count = first.texts.len();
    let mut jobs = vec![first];
    while count < gather.batch {
        let wait = deadline.saturating_duration_since(Instant::now());
        match queue.recv_timeout(wait) {
            Ok(job) => {
                count += job.texts.len();
                jobs.push(job);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// Embeds a text as its length, tells of every batch, and waits for leave.
    fn held(gather: Gather) -> (Arc<Batcher>, mpsc::Receiver<usize>, mpsc::Sender<()>) {
        let (told, batches) = mpsc::channel();
        let (leave, wait) = mpsc::channel();
        let wait = Mutex::new(wait);
        let batcher = Batcher::start(gather, move |texts| {
            told.send(texts.len()).unwrap();
            wait.lock().unwrap().recv().unwrap();
            assert!(!texts.iter().any(|text| text == "panic"));
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        });
        (Arc::new(batcher.unwrap()), batches, leave)
    }

    fn ask(batcher: &Arc<Batcher>, texts: &[&str]) -> tokio::task::JoinHandle<Answer> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let batcher = Arc::clone(batcher);
        tokio::spawn(async move { batcher.embed(texts).await })
    }

    /// Until so many texts have been taken in and not been answered.
    async fn taken_in(batcher: &Batcher, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while batcher.waiting.load(Relaxed) != count {
            assert!(Instant::now() < deadline, "never {count} texts");
            tokio::task::yield_now().await;
        }
    }

    fn gather() -> Gather {
        Gather {
            batch: 4,
            wait: Duration::ZERO,
            queue: 6,
            delay: Duration::from_secs(600),
        }
    }

    #[tokio::test]
    async fn what_waits_is_embedded_together_and_answered_apart() {
        let (batcher, batches, leave) = held(gather());
        let first = ask(&batcher, &["a"]);
        taken_in(&batcher, 1).await;
        assert_eq!(batches.recv().unwrap(), 1);
        let others = [ask(&batcher, &["bb", "ccc"]), ask(&batcher, &["dddd"])];
        taken_in(&batcher, 4).await;
        leave.send(()).unwrap();
        assert_eq!(batches.recv().unwrap(), 3);
        leave.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), [[1.0]]);
        let [two, one] = others;
        let mut answers = [two.await.unwrap().unwrap(), one.await.unwrap().unwrap()];
        answers.sort_by_key(Vec::len);
        assert_eq!(answers, [vec![vec![4.0]], vec![vec![2.0], vec![3.0]]]);
        taken_in(&batcher, 0).await;
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_who_left_is_passed_over() {
        let (batcher, batches, leave) = held(gather());
        let first = ask(&batcher, &["a"]);
        taken_in(&batcher, 1).await;
        assert_eq!(batches.recv().unwrap(), 1);
        let leaver = ask(&batcher, &["b"; 5]);
        taken_in(&batcher, 6).await;
        assert_eq!(
            batcher.embed(vec!["c".to_owned()]).await,
            Err(EmbedError::Busy)
        );
        taken_in(&batcher, 6).await;
        leaver.abort();
        assert!(leaver.await.unwrap_err().is_cancelled());
        leave.send(()).unwrap();
        first.await.unwrap().unwrap();
        // The texts that nobody waits for are not embedded, and their places are free.
        taken_in(&batcher, 0).await;
        let larger_than_the_queue = ask(&batcher, &["d"; 9]);
        taken_in(&batcher, 9).await;
        assert_eq!(batches.recv().unwrap(), 9);
        leave.send(()).unwrap();
        assert_eq!(larger_than_the_queue.await.unwrap().unwrap().len(), 9);
    }

    #[tokio::test]
    async fn what_waited_too_long_is_refused_and_not_embedded() {
        let (batcher, batches, leave) = held(gather());
        let (reply, late) = oneshot::channel();
        let long_ago = 2 * gather().delay;
        let job = Job {
            texts: vec!["bb".to_owned()],
            reply,
            came: Instant::now().checked_sub(long_ago).unwrap(),
            _places: Places(Arc::clone(&batcher.waiting), 0),
        };
        assert!(batcher.jobs.send(job).is_ok());
        assert_eq!(late.await.unwrap(), Err(EmbedError::Busy));
        let next = ask(&batcher, &["ccc"]);
        taken_in(&batcher, 1).await;
        assert_eq!(batches.recv().unwrap(), 1);
        leave.send(()).unwrap();
        assert_eq!(next.await.unwrap().unwrap(), [[3.0]]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_batch_alone() {
        let (batcher, _batches, leave) = held(gather());
        leave.send(()).unwrap();
        let error = ask(&batcher, &["panic"]).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        leave.send(()).unwrap();
        assert_eq!(ask(&batcher, &["ok"]).await.unwrap().unwrap(), [[2.0]]);
        assert_eq!(batcher.embed(Vec::new()).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_refused_text_of_one_caller_is_not_the_others() {
        let (batcher, batches, leave) = held(gather());
        let first = ask(&batcher, &["a"]);
        taken_in(&batcher, 1).await;
        assert_eq!(batches.recv().unwrap(), 1);
        let (good, bad) = (ask(&batcher, &["bb"]), ask(&batcher, &["ccc", "panic"]));
        taken_in(&batcher, 4).await;
        for _ in 0..4 {
            leave.send(()).unwrap();
        }
        assert_eq!(first.await.unwrap().unwrap(), [[1.0]]);
        assert_eq!(good.await.unwrap().unwrap(), [[2.0]]);
        let error = bad.await.unwrap().unwrap_err();
        assert!(error.is_of_texts(), "{error}");
        // Together, then apart.
        let mut sizes: Vec<usize> = batches.try_iter().collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 2, 3]);
    }
}
