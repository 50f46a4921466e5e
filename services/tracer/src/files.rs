//! Traces and embeddings from files, for the commands that work without a log.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use ndarray::Array2;
use ndarray_npy::ReadNpyExt;
use tracer_learn::{Dataset, Row};
use tracer_trace::{Format, Limits, Origin, Trace, decode};

/// Traces of a JSONL file with the embeddings of the `.npy` file beside it.
pub(crate) struct TraceFile {
    pub(crate) traces: Vec<Trace>,
}

impl TraceFile {
    /// Reads a file of traces, one JSON object a line; blank lines are passed
    /// over. Any bad line fails the whole, by its number.
    pub(crate) fn read(path: &Path, embeddings: Option<&PathBuf>) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let limits = Limits::default();
        let topic = path
            .file_stem()
            .map_or_else(|| "file".into(), |s| s.to_string_lossy().into_owned());
        let mut traces = Vec::new();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let number = number + 1;
            let line = line.with_context(|| format!("{}:{number}: cannot read", path.display()))?;
            if line.trim().is_empty() {
                continue;
            }
            let origin = Origin {
                topic: &topic,
                partition: 0,
                offset: number as u64,
                timestamp_ms: None,
            };
            let trace = decode(line.as_bytes(), &origin, Format::Json, &limits)
                .with_context(|| format!("{}:{number}", path.display()))?;
            traces.push(trace);
        }
        if traces.is_empty() {
            bail!("{} holds no traces", path.display());
        }
        if let Some(npy) = embeddings {
            let matrix = read_embeddings(npy)?;
            if matrix.nrows() != traces.len() {
                bail!(
                    "{} has {} rows, {} has {} traces",
                    npy.display(),
                    matrix.nrows(),
                    path.display(),
                    traces.len()
                );
            }
            for (row, (trace, values)) in traces.iter_mut().zip(matrix.rows()).enumerate() {
                if let Some(column) = values.iter().position(|v| !v.is_finite()) {
                    bail!(
                        "{}: row {row}, column {column} is not finite",
                        npy.display()
                    );
                }
                trace.embedding = Some(values.to_vec());
            }
        }
        Ok(Self { traces })
    }

    /// The task of the traces: of the first one, where they are of several.
    pub(crate) fn task(&self) -> &str {
        self.traces[0].task.as_str()
    }
}

/// Reads a matrix of float32, C order, a row a line of the traces' file.
pub(crate) fn read_embeddings(path: &Path) -> anyhow::Result<Array2<f32>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let matrix = Array2::<f32>::read_npy(BufReader::new(file))
        .with_context(|| format!("{} is not a float32 matrix in .npy format", path.display()))?;
    let limit = Limits::default().max_embedding_dimension;
    if matrix.ncols() == 0 || matrix.ncols() > limit {
        bail!(
            "{} has {} columns; expected 1 to {limit}",
            path.display(),
            matrix.ncols()
        );
    }
    Ok(matrix)
}

/// The dataset of some traces.
pub(crate) fn dataset(traces: &[Trace]) -> anyhow::Result<Dataset> {
    let mut data = Dataset::new();
    for trace in traces {
        let row = Row {
            text: trace.input.as_deref(),
            embedding: trace.embedding.as_deref(),
            label: &trace.teacher,
        };
        data.push(row)
            .with_context(|| format!("trace {}", trace.id))?;
    }
    Ok(data)
}
