//! What is asked of a task.

use super::{
    Section, Takes, key,
    sections::{ANY, POSITIVE},
};
use crate::host::Roles;

const TRAINER: Roles = Roles::TRAINER;
const INFERENCE: Roles = Roles::INFERENCE;
/// Both embed texts.
const BOTH: Roles = TRAINER.and(INFERENCE);

pub(super) const SHARE: Takes = Takes::Number {
    least: 0.0,
    most: 1.0,
    open: false,
};
const PROBABILITY: Takes = Takes::Number {
    least: 0.0,
    most: 1.0,
    open: true,
};

pub(super) const TASKS: Section = Section {
    name: "task_defaults",
    heading: "`[task_defaults]` and `[tasks.NAME]`: what is asked of a task",
    before: "A task needs no section: it exists as soon as traces name it, and `[task_defaults]` holds for it. `[tasks.NAME]` overrides single keys for one task; so does `TRACER__TASKS__NAME__KEY`.",
    keys: &[
        key(
            "target_agreement",
            PROBABILITY,
            "α: the agreement with the teacher that is promised on handled inputs",
        )
        .of(TRAINER),
        key(
            "delta",
            PROBABILITY,
            "δ: the promise may fail with this probability over the gate's sample",
        )
        .of(TRAINER),
        key(
            "gate",
            Takes::Word(&["bound", "point"]),
            "`\"bound\"` requires the exact lower bound to reach α; `\"point\"` only the point estimate, and promises nothing",
        )
        .of(TRAINER),
        key(
            "coverage_floor",
            SHARE,
            "a pipeline that would handle less than this share is refused",
        )
        .of(TRAINER),
        key(
            "features",
            Takes::Word(&["auto", "dense", "lexical"]),
            "what candidates stand on: `\"dense\"` embeddings, `\"lexical\"` text, or whatever the traces carry",
        )
        .of(TRAINER),
        key(
            "embedder",
            Takes::Table,
            "what makes the embeddings of texts that come without one: a table, see below",
        )
        .of(BOTH),
        key(
            "candidates",
            Takes::Table,
            "a table of the two keys below: `[tasks.NAME.candidates]`, or `candidates = { skip = [\"mlp_2\"] }`",
        )
        .of(TRAINER),
        key(
            "candidates.only",
            Takes::List,
            "try these candidates alone; all when empty. There are `dense_logistic`, `lexical_logistic`, `fused_logistic`, `dense_sgd`, `lexical_sgd`, `mlp_1`, `mlp_2`, `lexical_mlp` (of text that has no embedding), `decision_tree`, `random_forest` and `extra_trees`",
        )
        .of(TRAINER),
        key(
            "candidates.skip",
            Takes::List,
            "do not try these. A candidate that cannot be fitted is left out in any case, and logged",
        )
        .of(TRAINER),
        key(
            "cascade",
            Takes::Flag,
            "whether the family `rsb`, a second stage behind the first, competes; `false` makes refits shorter",
        )
        .of(TRAINER),
        key(
            "ood_budget",
            Takes::Number { least: 0.0, most: 0.5, open: false },
            "share of usual traffic that the out-of-distribution guard may defer. A larger one catches more of what is unlike the traces; 0 switches the guard off. The report shows other budgets",
        )
        .of(TRAINER),
        key(
            "max_fit_traces",
            ANY,
            "of more traces, a sample of about so many trains, the newer the likelier, and a quarter as many on top certify; 0 for no limit, else at least `min_traces`",
        )
        .of(TRAINER),
        key(
            "folds",
            Takes::Whole { least: 2, most: 20 },
            "folds of the cross-fitting",
        )
        .of(TRAINER),
        key("seed", ANY, "varies the splits").of(TRAINER),
        key("min_traces", ANY, "never refit with fewer traces").of(TRAINER),
        key(
            "refit_every_minutes",
            Takes::Whole { least: 0, most: 60 * 24 * 366 },
            "refit so long after the last refit; 0 switches it off",
        )
        .of(TRAINER),
        key(
            "refit_cron",
            Takes::Text,
            "refit at these times in UTC, as a cron pattern; empty switches it off",
        )
        .of(TRAINER),
        key(
            "refit_jitter_seconds",
            Takes::Whole { least: 0, most: 60 * 60 * 24 },
            "the times of the two above are put off by up to so many seconds, other ones for each task and time; a day at the most",
        )
        .of(TRAINER),
        key(
            "refit_after_traces",
            ANY,
            "refit after so many new traces; 0 switches it off",
        )
        .of(TRAINER),
        key(
            "refit_drift_traces",
            ANY,
            "after so many new traces, look whether the newest ones contradict what the active version was certified for, and refit if they do ([how](operating/trainer.md#drift)); 0 switches it off",
        )
        .of(TRAINER),
        key(
            "dedup_window_seconds",
            Takes::Whole { least: 0, most: 60 * 60 * 24 * 366 },
            "of copies of a text that have the same label and come within so many seconds the latest counts: they are retries; 0 for never. Of traces with one id the latest counts in any case",
        )
        .of(TRAINER),
        key(
            "full_refit_every",
            POSITIVE,
            "of so many refits one is full. The others are incremental: they try only what reached the end of the last refit of the whole pool (all of it again once the traces are half as many again), predict fewer traces out of fold, and begin at its weights, in less time. The first refit by a release of Tracer, the one after a refusal, and one without an active version that can be read are full whatever this says. At 1 all are",
        )
        .of(TRAINER),
        key(
            "audit_rate",
            SHARE,
            "probability that a handled request is marked for an audit: its teacher label is to be sent too. At 0 nothing handled is ever checked, and the echo of a handled request has propensity 0; a service that still asks the teacher every time sets 1",
        )
        .of(BOTH),
        key(
            "auto_suspend",
            Takes::Flag,
            "suspend the task by an entry in its deployment log once audits prove that the live agreement of the version that serves is below its target ([how](operating/monitoring.md#live-agreement)). Without it that is only shown, logged and alerted",
        )
        .of(TRAINER),
        key(
            "teacher_call_dollars",
            Takes::Number { least: 0.0, most: f64::MAX, open: false },
            "price of one teacher call, for what is saved",
        )
        .of(BOTH),
        key(
            "teacher_input_dollars_per_million",
            Takes::Number { least: 0.0, most: f64::MAX, open: false },
            "… and of a million tokens that go in; traces tell how many there are, by their metadata `input_tokens`",
        )
        .of(BOTH),
        key(
            "teacher_output_dollars_per_million",
            Takes::Number { least: 0.0, most: f64::MAX, open: false },
            "… and of a million that come out (`output_tokens`)",
        )
        .of(BOTH),
        key(
            "store_input",
            Takes::Word(&["full", "hash", "none"]),
            "what shards keep of inputs: `\"full\"`, the text; `\"hash\"`, a keyed hash and the hashed n-grams that lexical features are made of; `\"none\"`, nothing, so that embeddings are needed. See [formats](operating/formats.md#inputs-that-may-not-be-stored)",
        )
        .of(Roles::AGGREGATOR),
    ],
    after: "Whatever of them comes first starts a refit, and only when there is at least one new trace; `tracer refit --task NAME` starts one in any case. Times that passed while nobody was there to refit are made up for by one. After a restart, or by another replica, the count goes on from the last refit. [operating/trainer.md](operating/trainer.md) has more.",
};

pub(super) const EMBEDDER: Section = Section {
    name: "task_defaults.embedder",
    heading: "`embedder`: embeddings of texts that come without one",
    before: "`[task_defaults.embedder]`, `[tasks.NAME.embedder]`, or `embedder = { kind = \"static\", model = \"models/potion\" }`. [embedders.md](embedders.md) has the whole. Keys of another kind have no effect; those without a kind in front belong to all of them.",
    keys: &[
        key(
            "kind",
            Takes::Word(&["none", "static", "bert", "http"]),
            "`\"none\"`: embeddings are sent or there are none; `\"bert\"` needs a build with `--features bert`",
        )
        .of(BOTH),
        key(
            "model",
            Takes::Text,
            "static, bert: a directory, `store:PATH` for a path in the store, or `hub:ORG/NAME` or `hub:ORG/NAME@REVISION` for a model of the hub; http: the model's name, needed unless `api` is `\"tei\"` and there is a `name`",
        )
        .of(BOTH),
        key(
            "hub",
            Takes::Text,
            "address of the hub that models of `hub:` come from",
        ).with(&["static", "bert"])
        .of(BOTH),
        key(
            "name",
            Takes::Text,
            "the identity to use instead of the one made from the model",
        )
        .of(BOTH),
        key(
            "prefix",
            Takes::Text,
            "put before every text, such as `\"query: \"`",
        )
        .of(BOTH)
        .absent("none"),
        key(
            "prompt",
            Takes::Text,
            "the name of a prompt in the model's `config_sentence_transformers.json`",
        ).with(&["bert"])
        .of(BOTH),
        key(
            "pooling",
            Takes::Word(&["mean", "cls", "max"]),
            "how the vectors of tokens become one",
        ).with(&["bert"])
        .of(BOTH)
        .absent("the model's own"),
        key(
            "normalize",
            Takes::Flag,
            "scale to unit length or not",
        )
        .of(BOTH)
        .absent("as the model says"),
        key(
            "max_tokens",
            ANY,
            "longest text in tokens; 0 for the model's own limit",
        ).with(&["static", "bert"])
        .of(BOTH),
        key("url", Takes::Text, "where the server is",).with(&["http"]).of(BOTH),
        key(
            "api",
            Takes::Word(&["openai", "tei"]),
            "`\"openai\"` (`/v1/embeddings`) or `\"tei\"` (`/embed`)",
        ).with(&["http"])
        .of(BOTH),
        key(
            "dimension",
            Takes::Whole { least: 0, most: 8_192 },
            "values of a vector; needed there, 1 or more",
        ).with(&["http"])
        .of(BOTH),
        key(
            "token_file",
            Takes::Text,
            "http, and the hub: a file with the bearer token",
        )
        .of(BOTH),
        key(
            "token_env",
            Takes::Text,
            "http, and the hub: … or an environment variable with it",
        )
        .of(BOTH),
        key(
            "timeout_ms",
            Takes::Whole { least: 1, most: 600_000 },
            "time for an answer",
        ).with(&["http"])
        .of(BOTH),
        key(
            "retries",
            Takes::Whole { least: 0, most: 10 },
            "how often a failed request is sent again",
        ).with(&["http"])
        .of(BOTH),
        key(
            "max_batch",
            Takes::Whole { least: 1, most: 4_096 },
            "most texts that are embedded together",
        ).with(&["bert", "http"])
        .of(BOTH),
        key(
            "max_wait_ms",
            Takes::Whole { least: 0, most: 1_000 },
            "how long a text may wait for others to be embedded with",
        ).with(&["bert"])
        .of(BOTH),
        key(
            "max_queue",
            Takes::Whole { least: 1, most: 1_000_000 },
            "most texts that wait; more are refused",
        ).with(&["bert", "http"])
        .of(BOTH),
        key(
            "max_queue_ms",
            Takes::Whole { least: 1, most: 600_000 },
            "how long a text may wait for its turn; after that it is refused",
        ).with(&["bert", "http"])
        .of(BOTH),
    ],
    after: "",
};
