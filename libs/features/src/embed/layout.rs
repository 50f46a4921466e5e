//! What a sentence-transformers directory says of its model.
//!
//! `modules.json` names the modules: a transformer, a pooling (`1_Pooling/config.json`),
//! and maybe `2_Normalize`. Others are refused by their type. A directory without it is a
//! transformer alone: pooled by the mean and scaled to unit length unless configured
//! otherwise. `sentence_bert_config.json` has the longest text in tokens, and
//! `config_sentence_transformers.json` the prompts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{EmbedderConfig, ModelFiles, OpenError, Pooling, files};

/// What is done around the transformer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// The folder of the transformer, empty or ending in a slash.
    pub(super) transformer: String,
    pub(super) pooling: Pooling,
    pub(super) normalize: bool,
    /// Put before every text.
    pub(super) prefix: String,
    /// The longest text in tokens, where it is said.
    pub(super) max_tokens: Option<usize>,
    pub(super) lower_case: bool,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sentence {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Prompts {
    prompts: BTreeMap<String, String>,
    default_prompt_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[allow(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "as the file has them"
)]
struct PoolingFile {
    pooling_mode: Option<String>,
    pooling_mode_cls_token: bool,
    pooling_mode_mean_tokens: bool,
    pooling_mode_max_tokens: bool,
    pooling_mode_mean_sqrt_len_tokens: bool,
    pooling_mode_weightedmean_tokens: bool,
    pooling_mode_lasttoken: bool,
}

impl Layout {
    pub(super) async fn read(
        config: &EmbedderConfig,
        files: &dyn ModelFiles,
    ) -> Result<Self, OpenError> {
        let mut layout = Self {
            transformer: String::new(),
            pooling: Pooling::Mean,
            normalize: true,
            prefix: String::new(),
            max_tokens: None,
            lower_case: false,
        };
        if let Some(modules) = files::json::<Vec<Module>>(files, "modules.json").await? {
            layout.take(&modules, config, files).await?;
        }
        let sentence = layout.file("sentence_bert_config.json");
        if let Some(sentence) = files::json::<Sentence>(files, &sentence).await? {
            layout.max_tokens = sentence.max_seq_length;
            layout.lower_case = sentence.do_lower_case;
        }
        layout.prefix = prefix(config, files).await?;
        layout.pooling = config.pooling.unwrap_or(layout.pooling);
        layout.normalize = config.normalize.unwrap_or(layout.normalize);
        if config.max_tokens > 0 {
            layout.max_tokens = Some(config.max_tokens);
        }
        Ok(layout)
    }

    /// A file of the transformer.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}{name}", self.transformer)
    }

    async fn take(
        &mut self,
        modules: &[Module],
        config: &EmbedderConfig,
        files: &dyn ModelFiles,
    ) -> Result<(), OpenError> {
        let bad = |problem: String| OpenError::file(files.place("modules.json"), problem);
        self.normalize = false;
        for (place, module) in modules.iter().enumerate() {
            let folder = folder(&module.path)
                .ok_or_else(|| bad(format!("the path {:?} leaves the model", module.path)))?;
            let kind = module.kind.rsplit('.').next().unwrap_or_default();
            match kind {
                "Transformer" if place == 0 => self.transformer = folder,
                "Pooling" if config.pooling.is_none() => {
                    self.pooling = pooling(files, &format!("{folder}config.json")).await?;
                }
                "Pooling" => {}
                "Normalize" => self.normalize = true,
                _ => return Err(bad(format!("a module {:?} is not known here", module.kind))),
            }
        }
        Ok(())
    }
}

/// A folder below the model, ending in a slash; `None` for one that is not.
fn folder(path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Some(String::new());
    }
    files::is_plain(path).then(|| format!("{path}/"))
}

async fn pooling(files: &dyn ModelFiles, name: &str) -> Result<Pooling, OpenError> {
    let bad = |problem: String| Err(OpenError::file(files.place(name), problem));
    let Some(file) = files::json::<PoolingFile>(files, name).await? else {
        return bad("there is no such file".to_owned());
    };
    if let Some(mode) = file.pooling_mode {
        return match mode.as_str() {
            "mean" => Ok(Pooling::Mean),
            "cls" => Ok(Pooling::Cls),
            "max" => Ok(Pooling::Max),
            _ => bad(format!("the pooling {mode:?} is not known here")),
        };
    }
    let others = file.pooling_mode_mean_sqrt_len_tokens
        || file.pooling_mode_weightedmean_tokens
        || file.pooling_mode_lasttoken;
    match (
        file.pooling_mode_mean_tokens,
        file.pooling_mode_cls_token,
        file.pooling_mode_max_tokens,
        others,
    ) {
        (true, false, false, false) => Ok(Pooling::Mean),
        (false, true, false, false) => Ok(Pooling::Cls),
        (false, false, true, false) => Ok(Pooling::Max),
        _ => bad("the pooling must be one of mean, cls and max".to_owned()),
    }
}

/// The configured prefix, else the configured prompt, else the model's default prompt.
async fn prefix(config: &EmbedderConfig, files: &dyn ModelFiles) -> Result<String, OpenError> {
    const FILE: &str = "config_sentence_transformers.json";
    if let Some(prefix) = &config.prefix {
        return Ok(prefix.clone());
    }
    let found = files::json::<Prompts>(files, FILE)
        .await?
        .unwrap_or_default();
    let name = Some(config.prompt.clone())
        .filter(|name| !name.is_empty())
        .or(found.default_prompt_name);
    let Some(name) = name else {
        return Ok(String::new());
    };
    found.prompts.get(&name).cloned().ok_or_else(|| {
        OpenError::setting(
            "prompt",
            format!("{} has no prompt {name:?}", files.place(FILE)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::Directory;

    const MODULES: &str = r#"[
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
    ]"#;

    async fn read(written: &[(&str, &str)], config: &EmbedderConfig) -> Result<Layout, String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in written {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let files = Directory(directory.path().to_owned());
        Layout::read(config, &files)
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_the_files_say_and_what_overrides_them() {
        let files = [
            ("modules.json", MODULES),
            (
                "1_Pooling/config.json",
                r#"{"pooling_mode_cls_token": true}"#,
            ),
            (
                "sentence_bert_config.json",
                r#"{"max_seq_length": 256, "do_lower_case": true}"#,
            ),
            (
                "config_sentence_transformers.json",
                r#"{"prompts": {"query": "query: "}, "default_prompt_name": null}"#,
            ),
        ];
        let plain = EmbedderConfig::default();
        let layout = read(&files, &plain).await.unwrap();
        let expected = Layout {
            transformer: String::new(),
            pooling: Pooling::Cls,
            normalize: true,
            prefix: String::new(),
            max_tokens: Some(256),
            lower_case: true,
        };
        assert_eq!(layout, expected);

        let other = EmbedderConfig {
            prompt: "query".to_owned(),
            pooling: Some(Pooling::Max),
            normalize: Some(false),
            max_tokens: 64,
            ..plain.clone()
        };
        let layout = read(&files, &other).await.unwrap();
        let expected = Layout {
            pooling: Pooling::Max,
            normalize: false,
            prefix: "query: ".to_owned(),
            max_tokens: Some(64),
            ..expected
        };
        assert_eq!(layout, expected);

        let own = EmbedderConfig {
            prefix: Some("passage: ".to_owned()),
            ..other
        };
        assert_eq!(read(&files, &own).await.unwrap().prefix, "passage: ");

        // A transformer alone.
        let layout = read(&[], &plain).await.unwrap();
        assert_eq!((layout.pooling, layout.normalize), (Pooling::Mean, true));
        assert_eq!(layout.max_tokens, None);
    }

    #[tokio::test]
    async fn what_is_not_known_is_refused_by_name() {
        let dense = MODULES.replace("models.Normalize", "models.Dense");
        let away = [
            "../1_Pooling",
            "/1_Pooling",
            "a//b",
            "./a",
            "https:evil.example",
            "http:169.254.169.254/x?",
            "%2e%2e/%2e%2e",
            "a\\\\..",
            "a#b",
        ]
        .map(|path| MODULES.replace("1_Pooling", path));
        let mean = ("1_Pooling/config.json", r#"{"pooling_mode": "mean"}"#);
        let plain = EmbedderConfig::default();
        for (written, named) in [
            (vec![("modules.json", dense.as_str()), mean], "models.Dense"),
            (vec![("modules.json", MODULES)], "1_Pooling/config.json"),
            (
                vec![
                    ("modules.json", MODULES),
                    ("1_Pooling/config.json", r#"{"pooling_mode": "lasttoken"}"#),
                ],
                "lasttoken",
            ),
            (
                vec![
                    ("modules.json", MODULES),
                    (
                        "1_Pooling/config.json",
                        r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#,
                    ),
                ],
                "one of mean, cls and max",
            ),
            (vec![("modules.json", "{")], "modules.json"),
        ] {
            let error = read(&written, &plain).await.unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        for away in away {
            let error = read(&[("modules.json", &away)], &plain).await.unwrap_err();
            assert!(error.contains("leaves the model"), "{error}");
        }
        let config = EmbedderConfig {
            prompt: "query".to_owned(),
            ..plain
        };
        assert!(
            read(&[], &config)
                .await
                .unwrap_err()
                .starts_with("prompt: ")
        );
    }
}
