//! One suite for every log: whatever it proves of the spool it proves of Kafka.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod kafka;
mod spool;
mod suite;

/// Makes a test of every case of the suite for one kind of log.
macro_rules! contract {
    ($log:path $(, #[$attribute:meta])*) => {
        contract!(@ $log, [$(#[$attribute])*]
            delivers_everything_in_order,
            nothing_flows_before_the_answer,
            resumes_at_any_position,
            tails_what_is_written_later,
            pauses_without_a_gap,
            seeks_back_and_forth,
            says_when_a_position_is_lost,
            a_lost_position_leaves_the_others_as_they_are,
            next_can_be_dropped_at_any_time,
            hints_are_only_hints,
            released_partitions_are_silent,
            batches_keep_their_order,
            large_and_empty_payloads_pass,
        );
    };
    (@ $log:path, $attributes:tt $($case:ident,)*) => {
        $(contract!(# $log, $attributes $case);)*
    };
    (# $log:path, [$(#[$attribute:meta])*] $case:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $(#[$attribute])*
        async fn $case() {
            $crate::suite::$case($log().await).await;
        }
    };
}
pub(crate) use contract;
