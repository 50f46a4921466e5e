//! What a version saves, as far as the traces tell.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tracer_explain::{ActualCost, Cost, ProjectedCost};
use tracer_store::CostFacts;
use tracer_trace::{Decision, Routing, TeacherPrice, TokenUsage, Trace};

/// The traffic of so many days before the last trace is that of late.
const LATE: TimeDelta = TimeDelta::days(7);

/// Traces within less time than this tell no traffic.
const LEAST: TimeDelta = TimeDelta::hours(1);

/// A propensity below this is no audit rate of anybody's, and one such trace would
/// outweigh all others.
const LEAST_PROPENSITY: f64 = 1e-4;

/// The teacher of a task, as it is configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Teacher {
    /// What its calls cost.
    pub price: TeacherPrice,
    /// The share of the handled requests for which it is asked all the same.
    pub audit_rate: f64,
}

impl Default for Teacher {
    fn default() -> Self {
        Self {
            price: TeacherPrice::default(),
            audit_rate: 0.02,
        }
    }
}

/// What the traces of a task tell of its traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    usage: TokenUsage,
    calls_per_day: Option<f64>,
    calls_saved: f64,
    since: Option<DateTime<Utc>>,
    /// Traces from then on: each is a call of the teacher.
    calls_made: u64,
}

/// What a trace tells of its call, besides its time: for how many handled requests it
/// stands; 0 where it was not an audit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Call(f64);

impl Call {
    fn of(routing: Option<&Routing>) -> Self {
        let audited = routing.filter(|routing| {
            routing.decision == Decision::Handled
                && (LEAST_PROPENSITY..=1.0).contains(&routing.propensity)
        });
        Self(audited.map_or(0.0, |routing| 1.0 / routing.propensity))
    }
}

/// What traces tell of their calls, in a few bytes a trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    usage: TokenUsage,
    calls: Vec<Call>,
}

impl Calls {
    /// Takes in a trace, and takes from it what nobody needs any more.
    pub(crate) fn push(&mut self, trace: &mut Trace) {
        self.usage.add(&std::mem::take(&mut trace.metadata));
        self.calls.push(Call::of(trace.routing.take().as_ref()));
    }

    /// By those at some places of the order in which they came, at these times. A call that
    /// came twice is to be named once. Means of tokens and prices are over all that came.
    pub(crate) fn told(&self, of: &[u32], time: impl Fn(u32) -> Option<DateTime<Utc>>) -> Told {
        let calls = of.iter();
        let calls = calls.map(|&place| (time(place), self.calls[place as usize]));
        Told::of(self.usage, calls)
    }
}

impl Told {
    /// By each call once, with its time.
    fn of(
        usage: TokenUsage,
        calls: impl Iterator<Item = (Option<DateTime<Utc>>, Call)> + Clone,
    ) -> Self {
        let mut told = Self {
            usage,
            ..Self::default()
        };
        let last = calls.clone().filter_map(|(at, _)| at).max();
        let from = last.map(|last| last - LATE);
        let (mut requests, mut first) = (0.0, last);
        for (at, Call(stands_for)) in calls.clone() {
            if stands_for > 0.0 {
                told.calls_saved += stands_for - 1.0;
                told.since = match (told.since, at) {
                    (Some(since), Some(at)) => Some(since.min(at)),
                    (since, at) => since.or(at),
                };
            }
            if let Some(at) = at
                && from.is_some_and(|from| at >= from)
            {
                requests += stands_for.max(1.0);
                first = first.map(|first| first.min(at));
            }
        }
        if let (Some(first), Some(last)) = (first, last)
            && last - first >= LEAST
        {
            let days = (last - first).as_seconds_f64() / 86_400.0;
            told.calls_per_day = Some(requests / days);
        }
        if let Some(since) = told.since {
            let made = calls.filter(|(at, _)| at.is_some_and(|at| at >= since));
            told.calls_made = made.count() as u64;
        }
        told
    }

    /// What a version with this coverage saves.
    pub(crate) fn cost(&self, teacher: &Teacher, coverage: f64) -> CostFacts {
        let usage = Some(self.usage).filter(|usage| !usage.is_empty());
        CostFacts {
            call_dollars: teacher.price.of_a_call(usage.as_ref()),
            usage,
            saved_share: coverage * (1.0 - teacher.audit_rate),
            calls_per_day: self.calls_per_day,
            calls_saved: self.calls_saved,
            since: self.since,
        }
    }

    /// The same as a report shows it. `None` where no price is known: there are no dollars
    /// to tell of.
    pub(crate) fn report(&self, teacher: &Teacher, coverage: f64) -> Option<Cost> {
        let CostFacts {
            call_dollars,
            saved_share,
            calls_per_day,
            calls_saved,
            since,
            usage: _,
        } = self.cost(teacher, coverage);
        let projected = calls_per_day.map(|calls_per_day| ProjectedCost {
            calls_per_day,
            dollars_per_day: calls_per_day * call_dollars,
            saved_dollars_per_day: calls_per_day * call_dollars * saved_share,
        });
        let actual = since.map(|since| ActualCost {
            since: since.to_rfc3339_opts(SecondsFormat::Secs, true),
            calls_saved: calls_saved.round() as u64,
            calls_made: self.calls_made,
            saved_dollars: calls_saved * call_dollars,
        });
        (call_dollars > 0.0).then_some(Cost {
            call_dollars,
            saved_share,
            projected,
            actual,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(hour: i64, handled_at: Option<f64>) -> (Option<DateTime<Utc>>, Call) {
        let routing = handled_at.map(|propensity| Routing {
            pipeline_version: 1,
            decision: Decision::Handled,
            label: None,
            score: None,
            audit: true,
            propensity,
        });
        (
            DateTime::from_timestamp(3600 * hour, 0),
            Call::of(routing.as_ref()),
        )
    }

    #[test]
    fn an_audit_stands_for_the_requests_that_were_not_asked_about() {
        // A trace an hour for two days, the last six of them audits of a quarter.
        let calls = (0..=48).map(|hour| call(hour, (hour > 42).then_some(0.25)));
        let usage = TokenUsage {
            traces: 49,
            input_tokens: 500.0,
            ..TokenUsage::default()
        };
        let told = Told::of(usage, calls);
        assert_eq!(told.calls_saved, 18.0);
        assert_eq!(told.since, DateTime::from_timestamp(3600 * 43, 0));
        assert_eq!(told.calls_per_day, Some(33.5));
        let teacher = Teacher {
            price: TeacherPrice {
                input_dollars_per_million: 2.0,
                ..TeacherPrice::default()
            },
            audit_rate: 0.1,
        };
        let cost = told.cost(&teacher, 0.5);
        assert_eq!(cost.call_dollars, 0.001);
        assert_eq!(cost.saved_share, 0.45);
        assert_eq!(cost.usage.unwrap().traces, 49);
        let shown = told.report(&teacher, 0.5).unwrap();
        assert_eq!((shown.call_dollars, shown.saved_share), (0.001, 0.45));
        let projected = shown.projected.unwrap();
        assert_eq!(projected.calls_per_day, 33.5);
        assert!((projected.dollars_per_day - 0.0335).abs() < 1e-12);
        assert!((projected.saved_dollars_per_day - 0.015_075).abs() < 1e-12);
        let actual = shown.actual.unwrap();
        assert_eq!(actual.since, "1970-01-02T19:00:00Z");
        assert_eq!((actual.calls_saved, actual.calls_made), (18, 6));
        assert!((actual.saved_dollars - 0.018).abs() < 1e-12);
        // Without a price there is nothing to show.
        assert_eq!(told.report(&Teacher::default(), 0.5), None);
    }

    #[test]
    fn what_makes_no_sense_is_not_counted() {
        let of = |calls: &[_]| Told::of(TokenUsage::default(), calls.iter().copied());
        let told = of(&[call(0, Some(0.0)), call(0, Some(f64::NAN))]);
        assert_eq!((told.calls_saved, told.calls_per_day), (0.0, None));
        assert_eq!(of(&[]), Told::default());
    }
}
