//! The configuration of the whole: embedded defaults, then the file, then the
//! environment. Flags come last and are applied by the commands.

mod check;
mod effective;
mod load;
pub(crate) mod reference;
mod registry;
mod tasks;
mod types;
mod warnings;

pub(crate) use check::{Checked, check};
pub(crate) use effective::{Effective, effective};
pub(crate) use load::ConfigError;
pub(crate) use registry::RegistryConfig;
pub(crate) use tasks::TaskConfig;
pub(crate) use types::Config;
