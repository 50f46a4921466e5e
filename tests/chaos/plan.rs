//! What is done: the kinds of faults, and how many of which in which round.

use std::time::Duration;

use self::Kind::{
    Abort, AnswerLost, BrokerKilled, BrokerStopped, BrokerTerminated, ClockJump, DiskFull, Error,
    Kill, LeaderChange, Pause, Replaced, Scale, StoreFails, StoreHangs, StoreResets, StoreSlow,
    StoreThrottled, Terminate, UploadTorn, Zombie,
};

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
    const ALL: &[Self] = &[
        Kill,
        Terminate,
        Zombie,
        Replaced,
        Scale,
        Abort,
        Error,
        Pause,
        StoreThrottled,
        StoreFails,
        StoreResets,
        StoreSlow,
        StoreHangs,
        AnswerLost,
        UploadTorn,
        BrokerKilled,
        BrokerTerminated,
        BrokerStopped,
        LeaderChange,
        ClockJump,
        DiskFull,
    ];

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
    /// One kind alone, ten times, one by one: to look into it.
    Only(Kind),
}

impl Form {
    pub(crate) fn from_env() -> Self {
        match std::env::var("TRACER_CHAOS").as_deref() {
            Err(_) | Ok("" | "short") => Self::Short,
            Ok("full") => Self::Full,
            Ok(other) => Kind::ALL
                .iter()
                .find(|kind| kind.name() == other)
                .map_or_else(
                    || panic!("TRACER_CHAOS is short, full or the name of a fault, not {other:?}"),
                    |kind| Self::Only(*kind),
                ),
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
}

/// A round: a topic, a group and a store of its own.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// On the small disk, or else on S3.
    pub(crate) on_disk: bool,
    pub(crate) membership: Membership,
    /// Whether the aggregators' clocks can be moved.
    pub(crate) clock: bool,
    /// Each fault by itself: the next one waits until this one is over and done with.
    pub(crate) alone: bool,
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
        Form::Short => short(),
        Form::Full => full(),
        Form::Only(kind) => vec![Plan {
            name: "S3, static members, clocks",
            on_disk: kind == DiskFull,
            membership: Membership::Static,
            clock: true,
            alone: true,
            deck: each(&[kind], 10),
            traces: 20_000,
            gap: Duration::from_secs(5),
        }],
    }
}

fn short() -> Vec<Plan> {
    vec![
        Plan {
            name: "S3, static members, clocks",
            on_disk: false,
            membership: Membership::Static,
            clock: true,
            alone: false,
            deck: [
                each(PROCESS, 1),
                each(STORE, 1),
                each(&[BrokerKilled, LeaderChange, ClockJump], 1),
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
            alone: false,
            deck: vec![(DiskFull, 2), (Kill, 1), (Abort, 1)],
            traces: 10_000,
            gap: Duration::from_millis(1500),
        },
    ]
}

fn full() -> Vec<Plan> {
    let round = |name, membership, deck: Vec<(Kind, usize)>| Plan {
        name,
        on_disk: false,
        membership,
        clock: false,
        alone: false,
        deck,
        traces: 240_000,
        gap: Duration::from_millis(1500),
    };
    let many = || {
        vec![
            (Kill, 14),
            (Terminate, 10),
            (Zombie, 7),
            (Replaced, 5),
            (Scale, 3),
            (Abort, 14),
            (Error, 11),
            (Pause, 6),
            (StoreThrottled, 5),
            (StoreFails, 6),
            (StoreResets, 6),
            (StoreSlow, 4),
            (StoreHangs, 3),
            (AnswerLost, 8),
            (UploadTorn, 4),
            (BrokerKilled, 4),
            (BrokerTerminated, 3),
            (BrokerStopped, 2),
            (LeaderChange, 4),
        ]
    };
    let with_clocks = [many(), vec![(ClockJump, 10)]].concat();
    let on_disk: Vec<_> = many()
        .into_iter()
        .filter(|(kind, _)| !STORE.contains(kind))
        .map(|(kind, count)| (kind, count + count / 5))
        .chain([(DiskFull, 18)])
        .collect();
    let brokers = [
        BrokerKilled,
        BrokerTerminated,
        BrokerStopped,
        LeaderChange,
        ClockJump,
    ];
    vec![
        Plan {
            clock: true,
            alone: true,
            traces: 60_000,
            gap: Duration::from_secs(10),
            ..round(
                "one by one: S3, static members, clocks",
                Membership::Static,
                [each(PROCESS, 2), each(STORE, 1), each(&brokers, 1)].concat(),
            )
        },
        round("S3, dynamic members", Membership::Dynamic, many()),
        round("S3, static members", Membership::Static, many()),
        Plan {
            clock: true,
            ..round(
                "S3, dynamic members, clocks",
                Membership::Dynamic,
                with_clocks,
            )
        },
        Plan {
            on_disk: true,
            ..round("local disk, static members", Membership::Static, on_disk)
        },
    ]
}

const PROCESS: &[Kind] = &[
    Kill, Terminate, Zombie, Replaced, Scale, Abort, Error, Pause,
];

/// Faults of a store that is reached by HTTP.
const STORE: &[Kind] = &[
    StoreThrottled,
    StoreFails,
    StoreResets,
    StoreSlow,
    StoreHangs,
    AnswerLost,
    UploadTorn,
];

fn each(kinds: &[Kind], times: usize) -> Vec<(Kind, usize)> {
    kinds.iter().map(|kind| (*kind, times)).collect()
}
