//! A file of traces as it is found: a line that holds none is counted and passed over.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::Path,
};

use anyhow::{Context, bail};
use tracer_explain::scan::FileFacts;
use tracer_learn::{Dataset, Row};
use tracer_trace::{Format, Limits, Origin, Trace, decode};

use crate::files::read_embeddings;

/// Unusable lines that are told.
const TOLD: usize = 5;
/// Tasks of one file are counted up to so many.
const TASKS: usize = 1000;

/// What was read: of one task.
pub(super) struct Found {
    pub(super) facts: FileFacts,
    pub(super) data: Dataset,
}

/// Reads a file and the embeddings beside it, and keeps the traces of `task`: of the
/// commonest one without it.
pub(super) fn read(
    path: &Path,
    embeddings: Option<&Path>,
    task: Option<&str>,
) -> anyhow::Result<Found> {
    let mut facts = FileFacts {
        file: path.display().to_string(),
        ..FileFacts::default()
    };
    let mut traces = traces(path, &mut facts)?;
    if let Some(npy) = embeddings {
        let matrix = read_embeddings(npy)?;
        if matrix.nrows() != facts.lines {
            bail!(
                "{} has {} rows, {} has {} lines",
                npy.display(),
                matrix.nrows(),
                path.display(),
                facts.lines
            );
        }
        for (row, _, trace) in &mut traces {
            trace.embedding = Some(matrix.row(*row).to_vec());
        }
    }
    let mut tasks: HashMap<&str, usize> = HashMap::new();
    for (.., trace) in &traces {
        let name = trace.task.as_str();
        if tasks.len() < TASKS || tasks.contains_key(name) {
            *tasks.entry(name).or_default() += 1;
        }
    }
    let mut tasks: Vec<(String, usize)> = tasks
        .into_iter()
        .map(|(task, n)| (task.to_owned(), n))
        .collect();
    tasks.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    facts.task = match (task, tasks.first()) {
        (Some(task), _) if !tasks.is_empty() && tasks.iter().all(|(t, _)| t != task) => {
            bail!("{} holds no trace of task {task:?}", path.display())
        }
        (Some(task), _) => task.to_owned(),
        (None, Some((task, _))) => task.clone(),
        (None, None) => "default".to_owned(),
    };
    facts.other_tasks = tasks
        .into_iter()
        .filter(|(t, _)| *t != facts.task)
        .collect();
    let mut data = Dataset::new();
    for (_, number, trace) in &traces {
        if trace.task.as_str() != facts.task {
            continue;
        }
        let pushed = data.push(Row {
            text: trace.input.as_deref(),
            embedding: trace.embedding.as_deref(),
            label: &trace.teacher,
        });
        match pushed {
            // An echo of version 0 is of a router that had no pipeline yet.
            Ok(()) => {
                let routing = trace.routing.as_ref();
                facts.routed += usize::from(routing.is_some_and(|r| r.pipeline_version > 0));
            }
            Err(error) => pass_over(&mut facts, *number, error.to_string()),
        }
    }
    if data.is_empty() && facts.unusable > 0 {
        let (line, why) = &facts.unusable_lines[0];
        bail!(
            "{} holds no usable trace: line {line}: {why}",
            path.display()
        );
    }
    Ok(Found { facts, data })
}

fn pass_over(facts: &mut FileFacts, line: usize, why: String) {
    facts.unusable += 1;
    if facts.unusable_lines.len() < TOLD {
        facts.unusable_lines.push((line, why));
    }
}

/// Traces with their row among the lines that are not blank and their line number.
fn traces(path: &Path, facts: &mut FileFacts) -> anyhow::Result<Vec<(usize, usize, Trace)>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let limits = Limits::default();
    let topic = path
        .file_stem()
        .map_or_else(|| "file".into(), |s| s.to_string_lossy().into_owned());
    let mut reader = BufReader::new(file);
    let mut traces = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // One byte beyond the limit is enough to see that a line is too long.
        let most = limits.max_payload_bytes as u64 + 2;
        let read = reader
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("{}:{number}: cannot read", path.display()))?;
        if read == 0 {
            break;
        }
        let whole = line.last() == Some(&b'\n');
        if !whole && read as u64 == most {
            skip_line(&mut reader)
                .with_context(|| format!("{}:{number}: cannot read", path.display()))?;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row = facts.lines;
        facts.lines += 1;
        let origin = Origin {
            topic: &topic,
            partition: 0,
            offset: number as u64,
            timestamp_ms: None,
        };
        let content = line.strip_suffix(b"\n").unwrap_or(&line);
        match decode(content, &origin, Format::Json, &limits) {
            Ok(trace) => traces.push((row, number, trace)),
            Err(error) => pass_over(facts, number, error.to_string()),
        }
    }
    Ok(traces)
}

/// Goes on to the next line without keeping anything.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|b| *b == b'\n');
        let (used, done) = match end {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(used);
        if done {
            return Ok(());
        }
    }
}
