//! The label within a model's answer.

use serde_json::Value;

use crate::{DecodeError, error::excerpt};

/// The label of an answer: what stands at the pointer when the answer is JSON, fenced
/// or not, and else the answer itself, when it is one line.
pub(super) fn label(answer: &str, pointer: &str) -> Result<String, DecodeError> {
    let text = unfenced(answer.trim());
    if pointer.is_empty() {
        return Ok(text.to_owned());
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::String(label)) => return Ok(label),
        Ok(value @ (Value::Object(_) | Value::Array(_))) => return at(&value, pointer),
        Err(error) if text.starts_with(['{', '[']) => {
            return Err(DecodeError::BadLabel(format!(
                "the answer begins as JSON and is none: {error}"
            )));
        }
        // A number or a truth value is a label as it is spelled.
        Ok(_) | Err(_) => {}
    }
    if text.contains('\n') {
        return Err(DecodeError::BadLabel(format!(
            "the answer is neither JSON nor a label: it has several lines, {}",
            excerpt(&format!("{text:?}"))
        )));
    }
    Ok(text.to_owned())
}

fn at(value: &Value, pointer: &str) -> Result<String, DecodeError> {
    match value.pointer(pointer) {
        Some(Value::String(label)) => Ok(label.clone()),
        Some(Value::Bool(flag)) => Ok(flag.to_string()),
        Some(Value::Number(number)) if !number.is_f64() => Ok(number.to_string()),
        Some(other) => Err(DecodeError::BadLabel(format!(
            "the answer has {} at {pointer:?}, which is no text",
            excerpt(other)
        ))),
        None => Err(DecodeError::BadLabel(format!(
            "the answer has nothing at {pointer:?}: {}",
            excerpt(value)
        ))),
    }
}

/// Models like to put JSON between fences of Markdown.
fn unfenced(text: &str) -> &str {
    let inner = text
        .strip_prefix("```")
        .and_then(|rest| rest.strip_suffix("```"));
    let Some((language, inner)) = inner.and_then(|inner| inner.split_once('\n')) else {
        return text;
    };
    let plain = language.trim().bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { inner.trim() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found() {
        for (answer, pointer, expected) in [
            (r#"{"label": "refund"}"#, "/label", "refund"),
            ("```json\n{\"label\": \"refund\"}\n```", "/label", "refund"),
            (r#"{"result": [{"class": "a"}]}"#, "/result/0/class", "a"),
            (r#"{"label": 3}"#, "/label", "3"),
            (r#"{"label": true}"#, "/label", "true"),
            ("refund", "/label", "refund"),
            ("  refund\n", "/label", "refund"),
            (r#""refund""#, "/label", "refund"),
            ("```\nrefund\n```", "/label", "refund"),
            ("4", "/label", "4"),
            (r#"{"label": "refund"}"#, "", r#"{"label": "refund"}"#),
        ] {
            assert_eq!(label(answer, pointer).unwrap(), expected, "{answer}");
        }
    }

    #[test]
    fn what_holds_no_label_is_refused() {
        for (answer, named) in [
            (r#"{"class": "refund"}"#, "nothing at \"/label\""),
            (r#"{"label": null}"#, "null at \"/label\""),
            (r#"{"label": ["a"]}"#, "no text"),
            (r#"{"label": 0.5}"#, "no text"),
            (r#"{"label": "ref"#, "begins as JSON"),
            ("Sure!\nThe label is refund.", "several lines"),
        ] {
            let error = label(answer, "/label").unwrap_err();
            assert_eq!(error.reason(), "bad_label");
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
