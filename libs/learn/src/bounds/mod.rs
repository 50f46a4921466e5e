//! Confidence bounds that hold exactly at every sample size.

mod betting;
mod binomial;
mod monitor;
mod special;

pub use betting::betting_lower;
pub(crate) use betting::betting_refutes;
pub(crate) use binomial::clopper_pearson_reaches;
pub use binomial::{
    binomial_at_most, clopper_pearson_interval, clopper_pearson_lower, clopper_pearson_upper,
};
pub use monitor::AgreementMonitor;
pub(crate) use special::{normal_distribution, normal_quantile};
