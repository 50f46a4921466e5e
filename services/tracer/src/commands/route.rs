//! `tracer route`: asks a running server.

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tracer_proto::v1::{self, Decision, DeferReason};

use super::client::ClientArgs;
use crate::{environment, output};

/// Asks a running server to route one text.
#[derive(Args, Clone, Debug)]
pub(crate) struct RouteArgs {
    /// Address of the server
    #[arg(
        long,
        env = environment::ADDR,
        hide_env = true,
        default_value = "http://127.0.0.1:50051",
        value_name = "URL"
    )]
    addr: String,

    /// Task of the text
    #[arg(long, default_value = "default", value_name = "TASK")]
    task: String,

    #[command(flatten)]
    client: ClientArgs,
    /// Also list the N most probable labels
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: u32,

    /// Print the answer as one JSON document
    #[arg(long)]
    json: bool,

    /// The text to route
    #[arg(value_name = "TEXT")]
    text: String,
}

/// Runs the command.
pub(crate) async fn run(args: RouteArgs) -> anyhow::Result<()> {
    let mut client = args.client.connect(&args.addr).await?;
    let request = v1::RouteRequest {
        task: args.task,
        input: Some(v1::Input {
            text: args.text,
            ..v1::Input::default()
        }),
        top_k: args.top_k,
        ..v1::RouteRequest::default()
    };
    let response = match client.route(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => bail!(
            "the server at {} refused the request: {} ({:?})",
            args.addr,
            status.message(),
            status.code()
        ),
    };
    if args.json {
        output::json(&to_json(&response));
    } else {
        output::line(to_text(&response));
        for entry in &response.top {
            output::line(format_args!(
                "          {:.3} {}",
                entry.probability, entry.label
            ));
        }
    }
    Ok(())
}

/// The reason as metrics name it; empty when handled.
fn reason(response: &v1::RouteResponse) -> String {
    match response.reason() {
        DeferReason::Unspecified => String::new(),
        reason => reason
            .as_str_name()
            .trim_start_matches("DEFER_REASON_")
            .to_lowercase(),
    }
}

fn decision(response: &v1::RouteResponse) -> &'static str {
    match response.decision() {
        Decision::Handled => "handled",
        Decision::Deferred | Decision::Unspecified => "deferred",
    }
}

/// What the surrogate would have said, also where it was not trusted.
fn candidate(response: &v1::RouteResponse) -> Option<&str> {
    response.routing.as_ref()?.label.as_deref()
}

fn to_text(response: &v1::RouteResponse) -> String {
    let scored = response
        .routing
        .as_ref()
        .is_some_and(|routing| routing.score.is_some());
    let relation = if response.score >= response.threshold {
        "≥"
    } else {
        "<"
    };
    let score = format!(
        "score {:.3} {relation} threshold {:.3}",
        response.score, response.threshold
    );
    let version = match response.pipeline_version {
        0 => "no version".to_owned(),
        version => format!("version {version}"),
    };
    let task = &response.task;
    if response.decision() == Decision::Handled {
        let audit = match &response.routing {
            Some(routing) if routing.audit => "\naudit: send this input to the teacher as well",
            _ => "",
        };
        return format!(
            "handled   {}\n          {score}, {version} of task {task}{audit}",
            response.label
        );
    }
    let mut text = format!(
        "deferred  {}: ask the teacher\n          ",
        reason(response)
    );
    if scored {
        text += &score;
        text += ", ";
    }
    text += &format!("{version} of task {task}");
    if let Some(label) = candidate(response) {
        text += &format!("; the surrogate leaned to {label}");
    }
    text
}

fn to_json(response: &v1::RouteResponse) -> serde_json::Value {
    let routing = response.routing.as_ref();
    json!({
        "task": response.task,
        "decision": decision(response),
        "label": response.label,
        "score": number(response.score),
        "threshold": number(response.threshold),
        "reason": reason(response),
        "top": response.top.iter().map(|entry| json!({
            "label": entry.label,
            "probability": number(entry.probability),
        })).collect::<Vec<_>>(),
        "pipeline_version": response.pipeline_version,
        "routing": routing.map(|routing| json!({
            "pipeline_version": routing.pipeline_version,
            "decision": decision(response),
            "label": routing.label,
            "score": routing.score.map(number),
            "audit": routing.audit,
            "propensity": routing.propensity,
        })),
    })
}

/// The shortest decimal that reads back as the same number: 0.9, not
/// 0.8999999761581421.
fn number(value: f32) -> f64 {
    value
        .to_string()
        .parse()
        .unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(decision: Decision, reason: DeferReason, score: f32) -> v1::RouteResponse {
        v1::RouteResponse {
            decision: decision.into(),
            label: match decision {
                Decision::Handled => "refund".to_owned(),
                _ => String::new(),
            },
            score,
            threshold: 0.75,
            reason: reason.into(),
            pipeline_version: 3,
            routing: Some(v1::Routing {
                pipeline_version: 3,
                decision: decision.into(),
                label: Some("refund".to_owned()),
                score: Some(score),
                audit: false,
                propensity: 1.0,
            }),
            task: "desk".to_owned(),
            ..v1::RouteResponse::default()
        }
    }

    #[test]
    fn reads_as_a_sentence() {
        assert_eq!(
            to_text(&response(
                Decision::Handled,
                DeferReason::Unspecified,
                0.875
            )),
            "handled   refund\n          score 0.875 ≥ threshold 0.750, version 3 of task desk"
        );
        assert_eq!(
            to_text(&response(Decision::Deferred, DeferReason::LowScore, 0.5)),
            "deferred  low_score: ask the teacher\n          score 0.500 < threshold 0.750, version 3 of task desk; the surrogate leaned to refund"
        );
        let nothing = v1::RouteResponse {
            pipeline_version: 0,
            routing: None,
            ..response(Decision::Deferred, DeferReason::NoPipeline, 0.0)
        };
        assert_eq!(
            to_text(&nothing),
            "deferred  no_pipeline: ask the teacher\n          no version of task desk"
        );
    }

    #[test]
    fn json_has_the_words_of_the_metrics() {
        let json = to_json(&response(
            Decision::Deferred,
            DeferReason::OutOfDistribution,
            0.9,
        ));
        assert_eq!(json["decision"], "deferred");
        assert_eq!(json["reason"], "out_of_distribution");
        assert_eq!(json["routing"]["label"], "refund");
        assert_eq!(json["label"], "");
        assert_eq!(json["score"].to_string(), "0.9");
    }
}
