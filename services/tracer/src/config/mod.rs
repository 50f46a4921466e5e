//! The configuration of the whole: embedded defaults, then the file, then the
//! environment. Flags come last and are applied by the commands.

mod load;
mod registry;
mod tasks;
mod types;

pub(crate) use load::ConfigError;
pub(crate) use registry::RegistryConfig;
pub(crate) use tasks::TaskConfig;
pub(crate) use types::Config;
