//! A task with an embedder, on the real binary: traces and requests bring text alone,
//! the version stands on embeddings, and another model's are not routed on.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;

use std::{fs, path::Path, process::Command};

use common::Up;
use serde_json::{Value, json};

/// What is said of each intent, and the filling between.
const INTENTS: [(&str, [&str; 3]); 3] = [
    ("refund", ["money", "refund", "charged"]),
    ("track", ["parcel", "courier", "arrives"]),
    ("cancel", ["subscription", "cancel", "contract"]),
];
const FILLING: [&str; 6] = ["please", "my", "the", "where", "about", "today"];

/// A static model: a row a word, near the axis of its intent.
fn write_model(directory: &Path, scale: f32) {
    fs::create_dir_all(directory).unwrap();
    let mut words = vec!["[UNK]"];
    let mut rows = vec![[0.0_f32; 4]];
    for (axis, (_, own)) in INTENTS.into_iter().enumerate() {
        for (i, word) in own.into_iter().enumerate() {
            words.push(word);
            let mut row = [0.0; 4];
            row[axis] = scale;
            row[3] = 0.1 * i as f32;
            rows.push(row);
        }
    }
    for (i, word) in FILLING.into_iter().enumerate() {
        words.push(word);
        rows.push([0.05 * i as f32, 0.1, 0.05, 0.3]);
    }
    let vocabulary: Value = words
        .iter()
        .zip(0..)
        .map(|(word, id)| ((*word).to_owned(), Value::from(id)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
    });
    fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    // The format: the length of the header, the header, the values.
    let values: Vec<u8> = rows
        .iter()
        .flatten()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let header = json!({
        "embeddings": {
            "dtype": "F32", "shape": [rows.len(), 4], "data_offsets": [0, values.len()],
        },
    })
    .to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(values);
    fs::write(directory.join("model.safetensors"), file).unwrap();
}

fn text(i: usize) -> (String, &'static str) {
    let (label, own) = INTENTS[i % INTENTS.len()];
    let fill = |k: usize| FILLING[(i / 3 + k * (i / 7 + 1)) % FILLING.len()];
    let first = own[i / 3 % 3];
    (
        format!("{} {first} {} {} {}", fill(0), fill(1), own[i / 9 % 3], i),
        label,
    )
}

fn tracer(directory: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("TRACER_CONFIG")
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn configure(directory: &Path, model: &str) {
    let config = format!(
        "[store]\nurl = \"data/store\"\n[aggregator]\nmax_age_ms = 200\n[trainer]\npoll_interval_ms = 100\n[inference]\npoll_interval_ms = 100\n\
         [tasks.desk]\nfeatures = \"dense\"\nrefit_every_minutes = 0\nrefit_after_traces = 900\naudit_rate = 0.0\ncandidates = {{ only = [\"dense_logistic\"] }}\n\
         [tasks.desk.embedder]\nkind = \"static\"\nmodel = \"{model}\"\n"
    );
    fs::write(directory.join("tracer.toml"), config).unwrap();
}

#[test]
fn texts_alone_are_embedded_and_another_model_is_never_routed_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_model(&path.join("one"), 1.0);
    write_model(&path.join("two"), 2.0);
    configure(path, "one");
    let up = Up::start(path);
    up.ready();
    let lines: Vec<String> = (0..900)
        .map(|i| {
            let (input, teacher) = text(i);
            json!({ "id": i.to_string(), "task": "desk", "input": input, "teacher": teacher })
                .to_string()
        })
        .collect();
    fs::write(path.join("traces.jsonl"), lines.join("\n")).unwrap();
    tracer(path, &["replay", "traces.jsonl", "--spool", "data/spool"]);
    up.until("the version serves", || {
        up.metric("tracer_pipeline_version{task=\"desk\"}") == 1.0
    });
    let manifest = fs::read(path.join("data/store/pipelines/desk/v000001/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let embedder = manifest["embedder"].as_str().unwrap();
    assert!(
        embedder.starts_with("static:") && embedder.ends_with(":4:unit"),
        "{embedder}"
    );
    assert_eq!(manifest["embedding_dimension"], 4);
    assert_eq!(manifest["provenance"]["embedder"], embedder);

    let route = |up: &Up| {
        let asked = [
            "route",
            "--addr",
            &up.grpc,
            "--task",
            "desk",
            "--json",
            "please refund my money",
        ];
        tracer(path, &asked)
    };
    let answer = route(&up);
    assert_eq!(
        (&answer["decision"], &answer["label"]),
        (&json!("handled"), &json!("refund")),
        "{answer}"
    );
    up.stop();

    // What is worth a label is asked of the texts, too.
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(["labels", "queue", "--task", "desk"])
        .current_dir(path)
        .env_remove("TRACER_CONFIG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("of 900 traces") && said.contains(" 0 it cannot decide"),
        "{said}"
    );

    // It is made again of the texts, by the same model.
    let again = ["fit", "--reproduce", "1", "--task", "desk", "--json"];
    let made = tracer(path, &again);
    assert_eq!(made["identical"], true, "{made:#}");
    assert_eq!(made["differences"], json!([]));

    // The files of one are what is fitted on directly, too.
    let fit = [
        "fit",
        "--traces",
        "traces.jsonl",
        "--embedder",
        "task:desk",
        "--features",
        "dense",
        "--out",
        "out",
        "--json",
    ];
    let report = tracer(path, &fit);
    assert!(report.is_object(), "{report}");

    configure(path, "two");
    let output = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(again)
        .current_dir(path)
        .env_remove("TRACER_CONFIG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let wanted =
        format!("its embeddings were made by the embedder {embedder}, and the task has static:");
    assert!(said.contains(&wanted), "{said}");

    let up = Up::start(path);
    up.ready();
    let answer = route(&up);
    assert_eq!(
        (&answer["decision"], &answer["reason"]),
        (&json!("deferred"), &json!("embedder_mismatch")),
        "{answer}"
    );
    assert!(
        up.log()
            .contains("the task's embedder is another than the pipeline's")
    );
    up.stop();
}
