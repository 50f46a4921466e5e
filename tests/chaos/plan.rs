//! What is done: the kinds of faults, and how many of which in which round.

use std::time::Duration;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No fault: how long it takes when nothing is wrong.
    Nothing,
    /// An aggregator is killed with SIGKILL and started again.
    Kill,
    /// An aggregator is stopped with SIGTERM and started again.
    Terminate,
    /// An aggregator stands still (SIGSTOP) beyond its session, then goes on.
    Zombie,
    /// As before, and another one is started in its place meanwhile: both write.
    Replaced,
    /// An aggregator leaves, two go on, a third comes back.
    Scale,
    /// A failpoint ends an aggregator on the spot.
    Abort,
    /// A failpoint makes a step fail, or hides that it has worked.
    Error,
    /// A failpoint holds up a step.
    Pause,
    /// The store answers 503, slow down.
    StoreThrottled,
    /// The store answers 500.
    StoreFails,
    /// The store's connections are reset.
    StoreResets,
    /// The store takes seconds.
    StoreSlow,
    /// The store takes requests and never answers.
    StoreHangs,
    /// A put succeeds, but its answer is lost.
    AnswerLost,
    /// A put is cut off in its middle.
    UploadTorn,
    /// A broker is killed with SIGKILL and started again.
    BrokerKilled,
    /// A broker is stopped with SIGTERM and started again.
    BrokerTerminated,
    /// A broker stands still beyond its session, then goes on.
    BrokerStopped,
    /// Every partition gets another leader.
    LeaderChange,
    /// An aggregator's clock jumps, and later jumps back.
    ClockJump,
    /// The disk of a local store is full.
    DiskFull,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Kill => "kill -9 of an aggregator",
            Self::Terminate => "SIGTERM of an aggregator",
            Self::Zombie => "aggregator stopped beyond its session",
            Self::Replaced => "aggregator stopped and replaced: a zombie writes",
            Self::Scale => "three aggregators, two, three",
            Self::Abort => "failpoint: crash",
            Self::Error => "failpoint: error",
            Self::Pause => "failpoint: pause",
            Self::StoreThrottled => "store: 503 slow down",
            Self::StoreFails => "store: 500",
            Self::StoreResets => "store: connections reset",
            Self::StoreSlow => "store: slow",
            Self::StoreHangs => "store: no answer",
            Self::AnswerLost => "store: put done, answer lost",
            Self::UploadTorn => "store: put cut off",
            Self::BrokerKilled => "kill -9 of a broker",
            Self::BrokerTerminated => "SIGTERM of a broker",
            Self::BrokerStopped => "broker stopped beyond its session",
            Self::LeaderChange => "leader change of every partition",
            Self::ClockJump => "clock jump",
            Self::DiskFull => "disk full",
        }
    }
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Short,
    Full,
}

impl Form {
    pub(crate) fn from_env() -> Self {
        match std::env::var("TRACER_CHAOS").as_deref() {
            Err(_) | Ok("" | "short") => Self::Short,
            Ok("full") => Self::Full,
            Ok(other) => panic!("TRACER_CHAOS is short or full, not {other:?}"),
        }
    }
}

/// How aggregators are members of their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    /// Each start is a new member.
    Dynamic,
    /// Each has a name, under which it comes back to its partitions.
    Static,
    /// Some are the one and some the other.
    Mixed,
}

/// A round: a topic, a group and a store of its own.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// On the small disk, or else on S3.
    pub(crate) on_disk: bool,
    pub(crate) membership: Membership,
    /// Whether the aggregators' clocks can be moved.
    pub(crate) clock: bool,
    pub(crate) deck: Vec<(Kind, usize)>,
    /// At least so many are written.
    pub(crate) traces: u64,
    /// From fault to fault, on average.
    pub(crate) gap: Duration,
}

impl Plan {
    pub(crate) fn faults(&self) -> usize {
        self.deck.iter().map(|(_, count)| count).sum()
    }
}

/// The rounds of a form.
pub(crate) fn rounds(form: Form) -> Vec<Plan> {
    match form {
        Form::Short => vec![
            Plan {
                name: "S3, mixed members",
                on_disk: false,
                membership: Membership::Mixed,
                clock: true,
                deck: [
                    each(PROCESS),
                    each(STORE),
                    each(&[Kind::LeaderChange, Kind::BrokerKilled, Kind::ClockJump]),
                ]
                .concat(),
                traces: 20_000,
                gap: Duration::from_millis(1500),
            },
            Plan {
                name: "local disk, dynamic members",
                on_disk: true,
                membership: Membership::Dynamic,
                clock: false,
                deck: vec![(Kind::DiskFull, 2), (Kind::Kill, 1), (Kind::Abort, 1)],
                traces: 10_000,
                gap: Duration::from_millis(1500),
            },
        ],
        Form::Full => {
            let round = |name, on_disk, membership, clock, deck: &[(Kind, usize)]| Plan {
                name,
                on_disk,
                membership,
                clock,
                deck: deck.to_vec(),
                traces: 210_000,
                gap: Duration::from_millis(1700),
            };
            let s3 = |brokers: usize| {
                use Kind::{
                    Abort, AnswerLost, BrokerKilled, BrokerStopped, BrokerTerminated, Error, Kill,
                    LeaderChange, Pause, Replaced, Scale, StoreFails, StoreHangs, StoreResets,
                    StoreSlow, StoreThrottled, Terminate, UploadTorn, Zombie,
                };
                vec![
                    (Kill, 12),
                    (Terminate, 9),
                    (Zombie, 6),
                    (Replaced, 4),
                    (Scale, 3),
                    (Abort, 10),
                    (Error, 9),
                    (Pause, 5),
                    (StoreThrottled, 5),
                    (StoreFails, 5),
                    (StoreResets, 5),
                    (StoreSlow, 4),
                    (StoreHangs, 3),
                    (AnswerLost, 7),
                    (UploadTorn, 4),
                    (BrokerKilled, brokers),
                    (BrokerTerminated, brokers),
                    (BrokerStopped, brokers / 2),
                    (LeaderChange, 5),
                ]
            };
            let clock = [s3(2), vec![(Kind::ClockJump, 10)]].concat();
            let disk: Vec<_> = s3(3)
                .into_iter()
                .filter(|(kind, _)| !STORE.contains(kind))
                .map(|(kind, count)| (kind, count + count / 4))
                .chain([(Kind::DiskFull, 16)])
                .collect();
            vec![
                round(
                    "S3, dynamic members",
                    false,
                    Membership::Dynamic,
                    false,
                    &s3(4),
                ),
                round(
                    "S3, static members",
                    false,
                    Membership::Static,
                    false,
                    &s3(4),
                ),
                round(
                    "S3, mixed members, clocks",
                    false,
                    Membership::Mixed,
                    true,
                    &clock,
                ),
                round(
                    "local disk, mixed members",
                    true,
                    Membership::Mixed,
                    false,
                    &disk,
                ),
                round("S3, mixed members", false, Membership::Mixed, false, &s3(4)),
            ]
        }
    }
}

const PROCESS: &[Kind] = &[
    Kind::Kill,
    Kind::Terminate,
    Kind::Zombie,
    Kind::Replaced,
    Kind::Scale,
    Kind::Abort,
    Kind::Error,
    Kind::Pause,
];

/// Faults of a store that is reached by HTTP.
const STORE: &[Kind] = &[
    Kind::StoreThrottled,
    Kind::StoreFails,
    Kind::StoreResets,
    Kind::StoreSlow,
    Kind::StoreHangs,
    Kind::AnswerLost,
    Kind::UploadTorn,
];

fn each(kinds: &[Kind]) -> Vec<(Kind, usize)> {
    kinds.iter().map(|kind| (*kind, 1)).collect()
}
