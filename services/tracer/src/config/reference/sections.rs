//! Where traces come from and go to, and the services but for the aggregator.

use super::{Section, Takes, key};
use crate::host::Roles;

const AGGREGATOR: Roles = Roles::AGGREGATOR;
/// The reading end is the aggregator's; the writing end is inference's as well, for `Record`.
const BOTH_ENDS: Roles = AGGREGATOR.and(Roles::INFERENCE);

pub(super) const ANY: Takes = Takes::Whole {
    least: 0,
    most: u64::MAX,
};
pub(super) const POSITIVE: Takes = Takes::Whole {
    least: 1,
    most: u64::MAX,
};

pub(super) const SOURCE: Section = Section {
    name: "source",
    heading: "`[source]`: where traces come from",
    before: "",
    keys: &[
        key(
            "kind",
            Takes::Word(&["kafka", "spool"]),
            "`\"spool\"`, a directory of append-only files on this machine, or `\"kafka\"`",
        )
        .of(BOTH_ENDS),
        key(
            "topics",
            Takes::List,
            "topics to read; Kafka: those that begin with `^` are patterns",
        )
        .of(BOTH_ENDS),
        key("path", Takes::Text, "the directory",).with(&["spool"]).of(BOTH_ENDS),
        key(
            "partitions",
            Takes::Whole { least: 1, most: 10_000 },
            "partitions of every topic; may be raised later, never lowered: a spool with a file of a higher one is refused",
        ).with(&["spool"])
        .of(BOTH_ENDS),
        key(
            "brokers",
            Takes::Text,
            "bootstrap servers, separated by commas",
        ).with(&["kafka"])
        .of(BOTH_ENDS),
        key(
            "write_topic",
            Takes::Text,
            "where `Record`, `replay` and `demo` write to; must be set when all topics are patterns",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("the first topic that is named"),
        key(
            "exclude",
            Takes::List,
            "topics that are not read although a pattern fits them. The dead-letter topic is always among them",
        ).with(&["kafka"])
        .of(AGGREGATOR),
        key("group", Takes::Text, "the consumer group",).with(&["kafka"]).of(AGGREGATOR),
        key(
            "instance_id",
            Takes::Text,
            "the name of this process in the group (static membership); every process needs one of its own",
        ).with(&["kafka"])
        .of(AGGREGATOR)
        .absent("none"),
        key(
            "security",
            Takes::Word(&["plaintext", "tls", "sasl_plaintext", "sasl_tls"]),
            "what goes over the wire",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("from `tls` and `sasl`"),
        key(
            "tls",
            Takes::Table,
            "a table of the keys below, `[source.tls]`; that it is there switches TLS on",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("no TLS"),
        key(
            "tls.ca",
            Takes::Text,
            "file of the certificates (PEM) that the brokers' are checked against",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("the system's"),
        key(
            "tls.certificate",
            Takes::Text,
            "file of the client's certificate (PEM), for mTLS",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none"),
        key(
            "tls.key",
            Takes::Text,
            "file of the certificate's key (PEM)",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none"),
        key(
            "tls.key_password",
            Takes::Text,
            "the password of the key",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none")
        .secret(),
        key(
            "tls.key_password_file",
            Takes::Text,
            "… or a file with it",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none"),
        key(
            "tls.any_host_name",
            Takes::Flag,
            "accept a certificate for another host",
        ).with(&["kafka"])
        .of(BOTH_ENDS),
        key(
            "sasl",
            Takes::Table,
            "a table of the keys below, `[source.sasl]`",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("no login"),
        key(
            "sasl.mechanism",
            Takes::Word(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]),
            "how to log in",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none"),
        key("sasl.username", Takes::Text, "the user",).with(&["kafka"])
            .of(BOTH_ENDS)
            .absent("none"),
        key("sasl.password", Takes::Text, "the password",).with(&["kafka"])
            .of(BOTH_ENDS)
            .absent("none")
            .secret(),
        key(
            "sasl.password_file",
            Takes::Text,
            "… or a file with it",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none"),
        key(
            "sasl.token_file",
            Takes::Text,
            "a file with a JSON Web Token, for OAUTHBEARER; read again before it expires",
        ).with(&["kafka"])
        .of(BOTH_ENDS)
        .absent("none"),
        key(
            "properties",
            Takes::Map,
            "further properties of librdkafka, for tuning. Those that exactly-once rests on, such as `acks`, `auto.offset.reset` and `group.id`, are refused",
        ).with(&["kafka"])
        .of(BOTH_ENDS),
    ],
    after: "What they mean in operation is in [operating/kafka.md](operating/kafka.md). Secrets are better in files or in the environment (`TRACER__SOURCE__SASL__PASSWORD`) than in `tracer.toml`.\n\nKeys of the other kind have no effect, so that `kind` can be switched by one variable.",
};

pub(super) const STORE: Section = Section {
    name: "store",
    heading: "`[store]`: where shards and pipelines are kept",
    before: "",
    keys: &[
        key(
            "url",
            Takes::Text,
            "a directory, `file:///path`, `s3://bucket/prefix`, or `memory://`",
        ),
        key(
            "options",
            Takes::Map,
            "for `s3://`: options by their `object_store` names, such as `endpoint`, `region`, `allow_http`; what they leave open is read from `AWS_*`. `conditional_put` is refused: everything rests on put-if-absent",
        ),
    ],
    after: "",
};

pub(super) const LISTEN: Section = Section {
    name: "listen",
    heading: "`[listen]`: where the services listen",
    before: "",
    keys: &[
        key(
            "grpc",
            Takes::Address,
            "gRPC, for callers; port 0 takes a free one. In a container use `0.0.0.0:50051`",
        )
        .of(Roles::INFERENCE),
        key(
            "http",
            Takes::Address,
            "HTTP, for operators: `/metrics`, `/livez`, `/readyz`, and pages of the versions. Never make it public",
        ),
    ],
    after: "",
};

pub(super) const SECURITY: Section = Section {
    name: "security",
    heading: "`[security]`: who may ask, and over what",
    before: "[security.md](security.md) has the whole. An empty name switches its part off. A file that cannot be used ends the start with exit code 64; files that change are read again while the server runs.",
    keys: &[
        key(
            "tls_cert",
            Takes::Text,
            "PEM file of the gRPC server's certificate chain; with it gRPC speaks TLS alone",
        )
        .of(Roles::INFERENCE),
        key("tls_key", Takes::Text, "PEM file of its private key").of(Roles::INFERENCE),
        key(
            "client_ca",
            Takes::Text,
            "PEM file of the authorities of clients' certificates; with it a client must show one (mTLS)",
        )
        .of(Roles::INFERENCE),
        key(
            "tokens",
            Takes::Text,
            "file of the bearer tokens' hashes, scopes and tasks; with it every call but the health check needs a token",
        )
        .of(Roles::INFERENCE),
        key(
            "reload_interval_ms",
            POSITIVE,
            "time between two looks at these files",
        )
        .of(Roles::INFERENCE),
    ],
    after: "",
};

pub(super) const LIMITS: Section = Section {
    name: "limits",
    heading: "`[limits]`: bounds on what comes from outside",
    before: "A trace that exceeds one is rejected, with the field's name.",
    keys: &[
        key("max_payload_bytes", ANY, "payload, before decoding").of(BOTH_ENDS),
        key("max_input_bytes", ANY, "input text").of(BOTH_ENDS),
        key("max_label_bytes", ANY, "label").of(BOTH_ENDS),
        key("max_id_bytes", ANY, "id").of(BOTH_ENDS),
        key("max_embedding_dimension", ANY, "dimensions of an embedding").of(BOTH_ENDS),
        key("max_metadata_entries", ANY, "entries of the metadata").of(BOTH_ENDS),
        key(
            "max_metadata_bytes",
            ANY,
            "metadata, keys and values together",
        )
        .of(BOTH_ENDS),
    ],
    after: "",
};

pub(super) const REGISTRY: Section = Section {
    name: "registry",
    heading: "`[registry]`: how many versions are kept",
    before: "[operating/lifecycle.md](operating/lifecycle.md#how-many-are-kept) says what that means.",
    keys: &[
        key(
            "keep_versions",
            ANY,
            "of each task the newest so many are kept; 0 keeps all",
        )
        .of(Roles::TRAINER),
        key(
            "keep_days",
            Takes::Whole {
                least: 0,
                most: 36_500,
            },
            "… and whatever is younger than so many days",
        )
        .of(Roles::TRAINER),
        key(
            "grace_seconds",
            Takes::Whole {
                least: 0,
                most: u32::MAX as u64,
            },
            "the files of a retired version are deleted so long after",
        )
        .of(Roles::TRAINER),
        key(
            "interval_seconds",
            Takes::Whole {
                least: 1,
                most: u32::MAX as u64,
            },
            "time between two looks of a trainer",
        )
        .of(Roles::TRAINER),
    ],
    after: "",
};

pub(super) const TRAINER: Section = Section {
    name: "trainer",
    heading: "`[trainer]`",
    before: "",
    keys: &[
    key(
        "poll_interval_ms",
        ANY,
        "time between two looks at the shards, a quarter more or less",
    )
    .of(Roles::TRAINER),
    key(
        "lease_ms",
        Takes::Whole {
            least: 300,
            most: u64::MAX,
        },
        "a replica that was not heard of for so long loses the task that it refits, and another takes it up",
    )
    .of(Roles::TRAINER),
    key(
        "keep_embeddings",
        Takes::Flag,
        "embeddings that refits make are kept in the store, under `embeddings/`, so that none is made twice",
    )
    .of(Roles::TRAINER),
    key(
        "author",
        Takes::Text,
        "who publishes, in manifests and in the deployment log",
    )
    .of(Roles::TRAINER),
],
    after: "",
};

pub(super) const INFERENCE: Section = Section {
    name: "inference",
    heading: "`[inference]`",
    before: "",
    keys: &[
        key("poll_interval_ms", POSITIVE, "time between two looks at the registry").of(Roles::INFERENCE),
        key(
            "store_timeout_ms",
            POSITIVE,
            "time after which a look is given up and tried again",
        )
        .of(Roles::INFERENCE),
        key("max_batch", POSITIVE, "most inputs of one `RouteBatch`").of(Roles::INFERENCE),
        key("max_message_bytes", POSITIVE, "largest gRPC message").of(Roles::INFERENCE),
        key(
            "max_in_flight",
            POSITIVE,
            "requests under way at the most; one more for each 8 KiB of a request's inputs, with half a KiB for every input. Beyond that `RESOURCE_EXHAUSTED`",
        )
        .of(Roles::INFERENCE),
        key(
            "queue_target_ms",
            POSITIVE,
            "time that requests may wait for a thread. While all of them wait longer, those who did are answered `RESOURCE_EXHAUSTED` at once; a burst may wait ten times as long",
        )
        .of(Roles::INFERENCE),
        key(
            "coverage_window",
            POSITIVE,
            "routes over which `coverage_ratio` is measured",
        )
        .of(Roles::INFERENCE),
        key(
            "settle_ms",
            ANY,
            "time that requests are still taken in after a shutdown begins and the service says that it is not ready: as long as a load balancer takes to notice",
        )
        .of(Roles::INFERENCE),
        key(
            "drain_timeout_ms",
            ANY,
            "time that requests under way get after that",
        )
        .of(Roles::INFERENCE),
        key(
            "audit_seed",
            ANY,
            "makes the draw of audits repeatable, for tests",
        )
        .of(Roles::INFERENCE)
        .absent("none"),
    ],
    after: "",
};

pub(super) const TELEMETRY: Section = Section {
    name: "telemetry",
    heading: "`[telemetry]`: the log, and spans",
    before: "",
    keys: &[
        key(
            "log_format",
            Takes::Word(&["pretty", "json"]),
            "for people or for machines, on standard error",
        ),
        key(
            "log_filter",
            Takes::Text,
            "a level, or a list of `target=level` such as `info,tracer_source=debug`. `tracer demo` logs warnings only unless this section is set",
        ),
        key(
            "otlp_endpoint",
            Takes::Text,
            "where spans of Tracer itself go, by OTLP over gRPC, such as `http://collector:4317`; empty for nowhere. See [monitoring](operating/monitoring.md#spans-of-tracer-itself)",
        ),
        key(
            "otlp_sample_ratio",
            super::tasks::SHARE,
            "the share of requests without a caller's span that are recorded",
        ),
    ],
    after: "",
};
