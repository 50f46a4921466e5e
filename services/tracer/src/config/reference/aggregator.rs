//! The aggregator and the upkeep of its shards.

use super::{
    Section, Takes, key,
    sections::{ANY, POSITIVE},
};
use crate::host::Roles;

const FORMATS: &[&str] = &[
    "auto",
    "json",
    "protobuf",
    "confluent",
    "otlp_json",
    "otlp_proto",
];

pub(super) const AGGREGATOR: Section = Section {
    name: "aggregator",
    heading: "`[aggregator]`",
    before: "",
    keys: &[
        key(
            "max_rows",
            POSITIVE,
            "a partition's buffer becomes a shard at this many traces",
        )
        .of(Roles::AGGREGATOR),
        key(
            "max_bytes",
            Takes::Whole { least: 1, most: 1 << 30 },
            "… or at this many bytes in memory; at most 1 GiB",
        )
        .of(Roles::AGGREGATOR),
        key(
            "max_age_ms",
            ANY,
            "… or when its oldest trace has waited this long",
        )
        .of(Roles::AGGREGATOR),
        key(
            "max_buffered_bytes",
            POSITIVE,
            "all buffers together; beyond it reading pauses until shards are written",
        )
        .of(Roles::AGGREGATOR),
        key(
            "flush_budget_ms",
            ANY,
            "time for buffers to flush when partitions are revoked or the service stops; what is not durable then is read again",
        )
        .of(Roles::AGGREGATOR),
        key(
            "embeddings",
            Takes::Word(&["f32", "f16"]),
            "how embeddings are stored: `\"f32\"` as they come, or `\"f16\"` rounded to 11 significant bits in half the space",
        )
        .of(Roles::AGGREGATOR),
        key(
            "format",
            Takes::Word(FORMATS),
            "encoding of payloads. See [formats](operating/formats.md)",
        )
        .of(Roles::AGGREGATOR),
        key(
            "formats",
            Takes::Map,
            "the format of single topics, by their names: `{ otel-spans = \"otlp_proto\" }`",
        )
        .of(Roles::AGGREGATOR),
        key("otlp", Takes::Table, "a table of its own, below").of(Roles::AGGREGATOR),
        key(
            "dead_letter_topic",
            Takes::Text,
            "where payloads go that are no valid traces; empty for nowhere. After a crash some may be there twice; one that the topic does not take whole is cut",
        )
        .of(Roles::AGGREGATOR),
        key(
            "on_lost_position",
            Takes::Word(&["halt", "skip"]),
            "when the log no longer has the position to read from: `\"halt\"` the partition until somebody decides, or `\"skip\"` what retention removed. A log that was created anew halts either way",
        )
        .of(Roles::AGGREGATOR),
        key(
            "input_secret_file",
            Takes::Text,
            "a file with the secret that keys the hashes of inputs; `TRACER_INPUT_SECRET` comes before it. Read at the start",
        )
        .of(Roles::AGGREGATOR.and(Roles::TRAINER)),
    ],
    after: "A partition that stands still because its position is lost has `tracer_consumer_position_lost` at 1, and `/readyz` says why and what helps: `tracer aggregator reset` ([operating/kafka.md](operating/kafka.md)). A topic that was deleted and created anew is known by the record before the position, which is read again at every start. It is not known when it is created anew *and* filled beyond the position between two fetches of a running aggregator: stop the aggregators before you do that.",
};

pub(super) const OTLP: Section = Section {
    name: "aggregator.otlp",
    heading: "`[aggregator.otlp]`: how OpenTelemetry's spans become traces",
    before: "",
    keys: &[
        key(
            "select",
            Takes::Map,
            "only spans with these attributes count, in the span or in its resource; the value `*` takes any",
        )
        .of(Roles::AGGREGATOR),
        key("task", Takes::Text, "the task of all spans; empty to ask them").of(Roles::AGGREGATOR),
        key(
            "task_attribute",
            Takes::Text,
            "the attribute that names the task",
        )
        .of(Roles::AGGREGATOR),
        key(
            "task_fallback",
            Takes::Word(&["service_name", "span_name", "default"]),
            "the task of a span without it",
        )
        .of(Roles::AGGREGATOR),
        key(
            "input_attribute",
            Takes::Text,
            "the attribute with the input; empty for the last user message",
        )
        .of(Roles::AGGREGATOR),
        key(
            "label_attribute",
            Takes::Text,
            "the attribute with the label, or with an answer that holds it; empty for the first message of the answer",
        )
        .of(Roles::AGGREGATOR),
        key(
            "label_pointer",
            Takes::Text,
            "where the label stands in an answer that is JSON, as a JSON pointer; empty takes the answer as it is",
        )
        .of(Roles::AGGREGATOR),
        key(
            "ground_truth_attribute",
            Takes::Text,
            "the attribute with the true label",
        )
        .of(Roles::AGGREGATOR),
        key(
            "metadata_attributes",
            Takes::List,
            "attributes that are kept as metadata",
        )
        .of(Roles::AGGREGATOR),
        key(
            "max_spans_per_record",
            POSITIVE,
            "a record with more is rejected as a whole",
        )
        .of(Roles::AGGREGATOR),
    ],
    after: "",
};

pub(super) const MAINTENANCE: Section = Section {
    name: "maintenance",
    heading: "`[maintenance]`: the upkeep of shards",
    before: "Every aggregator looks after the shards of the partitions it has. [docs/operating/shards.md](operating/shards.md) says what that means.",
    keys: &[
        key("enabled", Takes::Flag, "whether it does").of(Roles::AGGREGATOR),
        key("interval_seconds", POSITIVE, "time between two rounds").of(Roles::AGGREGATOR),
        key(
            "compact_rows",
            ANY,
            "small shards become one of at most so many traces; 0 switches compaction off",
        )
        .of(Roles::AGGREGATOR),
        key(
            "compact_bytes",
            Takes::Whole { least: 0, most: 256 << 20 },
            "… made of shards of at most so many bytes before compression, which bounds the memory it takes (embeddings of 16 bits take twice their bytes there); at most 256 MiB",
        )
        .of(Roles::AGGREGATOR),
        key(
            "compact_min_shards",
            Takes::Whole { least: 2, most: u64::MAX },
            "… of at least so many shards",
        )
        .of(Roles::AGGREGATOR),
        key(
            "compact_after_seconds",
            ANY,
            "a shard is left alone until it is so old",
        )
        .of(Roles::AGGREGATOR),
        key(
            "keep_shards",
            POSITIVE,
            "the last so many shards of a partition are left alone",
        )
        .of(Roles::AGGREGATOR),
        key(
            "retention_days",
            ANY,
            "traces are kept for so many days after they were written; 0 keeps them for ever. They go by whole shards, so some stay up to an eighth longer, and the last shard of a partition stays",
        )
        .of(Roles::AGGREGATOR),
        key(
            "grace_seconds",
            Takes::Whole { least: 5, most: u64::MAX },
            "a shard that was replaced is deleted so long after",
        )
        .of(Roles::AGGREGATOR),
    ],
    after: "",
};
