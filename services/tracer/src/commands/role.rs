//! Which service a check is for.

use clap::ValueEnum;

use crate::host::Roles;

/// A service, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// As `tracer up` runs them.
    #[default]
    All,
    Aggregator,
    Trainer,
    Inference,
}

impl Role {
    pub(crate) fn roles(self) -> Roles {
        match self {
            Self::All => Roles::ALL,
            Self::Aggregator => Roles::AGGREGATOR,
            Self::Trainer => Roles::TRAINER,
            Self::Inference => Roles::INFERENCE,
        }
    }
}
