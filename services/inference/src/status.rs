//! Errors as callers see them: a code, a sentence, and the standard details of
//! `google.rpc` for programs.
//!
//! Every refusal has an `ErrorInfo` with the word under which it is counted
//! (`tracer_requests_rejected_total{reason}`); one that is about a field has a
//! `BadRequest` that names it, and one that says "later" a `RetryInfo`.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::metrics::Rejection;

/// The domain of the reasons.
const DOMAIN: &str = "tracer";

/// `INVALID_ARGUMENT` of a field.
pub(crate) fn bad_field(rejection: Rejection, field: String, message: String) -> Status {
    let mut details = info(rejection);
    details.add_bad_request_violation(field, message.clone());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// Another refusal.
pub(crate) fn refusal(code: Code, rejection: Rejection, message: String) -> Status {
    Status::with_error_details(code, message, info(rejection))
}

/// `RESOURCE_EXHAUSTED`: there is more to do than can be done.
pub(crate) fn overloaded(retry_after: Duration) -> Status {
    let mut details = info(Rejection::Overloaded);
    details.set_retry_info(Some(retry_after));
    let message = "the server has more requests than it can answer in time";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

fn info(rejection: Rejection) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(rejection.name(), DOMAIN, std::collections::HashMap::new());
    details
}
