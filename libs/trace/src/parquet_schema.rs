//! The columns of a shard, and traces to and from record batches.
//!
//! A shard's topic and partition stand in its path and footer, not in columns.
//! Readers find columns by name and ignore those they do not know, so a later
//! version may add some.

use std::sync::{Arc, LazyLock};

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float32Array, Float64Array, ListArray,
    RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
    builder::{Float32Builder, ListBuilder, StringDictionaryBuilder},
    types::Int32Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;

use crate::{Decision, Routing, TaskName, Trace, withheld};

/// The version of these columns, for the shard's footer.
pub const SCHEMA_VERSION: u32 = 1;

/// A trace and the offset of the record it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTrace {
    /// The record's offset in its partition.
    pub offset: u64,
    /// The trace.
    pub trace: Trace,
}

/// Why a record batch does not hold traces.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A column is absent.
    #[error("column {0:?} is missing")]
    MissingColumn(&'static str),
    /// A column has another type.
    #[error("column {column:?} must be {expected}, but is {got}")]
    WrongType {
        /// The column.
        column: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        got: DataType,
    },
    /// A value that cannot stand in its column.
    #[error("column {column:?}, row {row}: {detail}")]
    BadValue {
        /// The column.
        column: &'static str,
        /// The row within the batch.
        row: usize,
        /// What is wrong.
        detail: String,
    },
    /// The batch could not be put together.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("offset", DataType::UInt64, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("task", dictionary(), false),
        Field::new("input", DataType::Utf8, true),
        Field::new("embedding", embedding_type(), true),
        Field::new("embedder", dictionary(), true),
        Field::new("teacher", dictionary(), false),
        Field::new("ground_truth", DataType::Utf8, true),
        Field::new("timestamp", timestamp_type(), true),
        Field::new("metadata", DataType::Utf8, true),
        Field::new("routing_pipeline_version", DataType::UInt64, true),
        Field::new("routing_decision", dictionary(), true),
        Field::new("routing_label", DataType::Utf8, true),
        Field::new("routing_score", DataType::Float32, true),
        Field::new("routing_audit", DataType::Boolean, true),
        Field::new("routing_propensity", DataType::Float64, true),
    ];
    fields.extend(withheld::fields());
    Arc::new(Schema::new(fields))
});

fn embedding_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float32, false)))
}

fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// The arrow schema of a shard.
pub fn schema() -> SchemaRef {
    SCHEMA.clone()
}

/// Traces as one batch, a row each, in the order given.
pub fn to_batch(rows: &[StoredTrace]) -> Result<RecordBatch, SchemaError> {
    let traces = || rows.iter().map(|row| &row.trace);
    let routings = || traces().map(|trace| trace.routing.as_ref());

    let mut embeddings = ListBuilder::new(Float32Builder::new()).with_field(Field::new(
        "item",
        DataType::Float32,
        false,
    ));
    for trace in traces() {
        if let Some(embedding) = &trace.embedding {
            embeddings.values().append_slice(embedding);
        }
        embeddings.append(trace.embedding.is_some());
    }
    let metadata = traces().map(|trace| {
        (!trace.metadata.is_empty()).then(|| serde_json::json!(trace.metadata).to_string())
    });
    let decisions = routings().map(|routing| {
        routing.map(|routing| match routing.decision {
            Decision::Handled => "handled",
            Decision::Deferred => "deferred",
        })
    });

    let times: TimestampMillisecondArray = traces()
        .map(|trace| trace.timestamp.map(|time| time.timestamp_millis()))
        .collect();
    let mut columns: Vec<ArrayRef> = vec![
        column::<UInt64Array, _>(rows.iter().map(|row| Some(row.offset))),
        column::<StringArray, _>(traces().map(|trace| Some(&trace.id))),
        dictionary(traces().map(|trace| Some(trace.task.as_str())))?,
        column::<StringArray, _>(traces().map(|trace| trace.input.as_deref())),
        Arc::new(embeddings.finish()),
        dictionary(traces().map(|trace| trace.embedder.as_deref()))?,
        dictionary(traces().map(|trace| Some(trace.teacher.as_str())))?,
        column::<StringArray, _>(traces().map(|trace| trace.ground_truth.as_deref())),
        Arc::new(times.with_timezone("UTC")),
        column::<StringArray, _>(metadata),
        column::<UInt64Array, _>(routings().map(|r| r.map(|r| r.pipeline_version))),
        dictionary(decisions)?,
        column::<StringArray, _>(routings().map(|r| r?.label.as_deref())),
        column::<Float32Array, _>(routings().map(|r| r?.score)),
        column::<BooleanArray, _>(routings().map(|r| r.map(|r| r.audit))),
        column::<Float64Array, _>(routings().map(|r| r.map(|r| r.propensity))),
    ];
    columns.extend(withheld::columns(rows));
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn column<A, T>(values: impl Iterator<Item = Option<T>>) -> ArrayRef
where
    A: Array + FromIterator<Option<T>> + 'static,
{
    Arc::new(values.collect::<A>())
}

fn dictionary<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef, SchemaError> {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    for value in values {
        match value {
            Some(value) => {
                builder.append(value)?;
            }
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

/// The traces of a batch, a row each, in its order.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<StoredTrace>, SchemaError> {
    let offset = numbers::<UInt64Array>(batch, "offset", "UInt64")?;
    let id = Texts::of(batch, "id")?;
    let task = Texts::of(batch, "task")?;
    let input = Texts::of(batch, "input")?;
    let embedding = numbers::<ListArray>(batch, "embedding", "a list of Float32")?;
    let embedder = Texts::of(batch, "embedder")?;
    let teacher = Texts::of(batch, "teacher")?;
    let ground_truth = Texts::of(batch, "ground_truth")?;
    let timestamp =
        numbers::<TimestampMillisecondArray>(batch, "timestamp", "Timestamp in milliseconds")?;
    let metadata = Texts::of(batch, "metadata")?;
    let routings = Routings::of(batch)?;
    let withheld = withheld::Columns::of(batch)?;

    let mut rows = Vec::with_capacity(batch.num_rows());
    // Rows are sorted by task: a name is parsed once a run, not once a row.
    let mut last_task: Option<TaskName> = None;
    for row in 0..batch.num_rows() {
        let name = task.required(row)?;
        let task = match last_task.take().filter(|last| last.as_str() == name) {
            Some(task) => task,
            None => TaskName::new(name).map_err(|error| bad("task", row, &error))?,
        };
        last_task = Some(task.clone());
        let metadata = match metadata.get(row) {
            Some(text) => {
                serde_json::from_str(text).map_err(|error| bad("metadata", row, &error))?
            }
            None => std::collections::BTreeMap::new(),
        };
        let timestamp = (!timestamp.is_null(row)).then(|| {
            DateTime::from_timestamp_millis(timestamp.value(row))
                .ok_or_else(|| bad("timestamp", row, &timestamp.value(row)))
        });
        rows.push(StoredTrace {
            offset: offset.value(row),
            trace: Trace {
                id: id.required(row)?.to_owned(),
                task,
                input: input.get(row).map(ToOwned::to_owned),
                withheld: match &withheld {
                    Some(columns) => columns.get(row)?,
                    None => None,
                },
                embedding: embedding_at(embedding, row)?,
                embedder: embedder.get(row).map(ToOwned::to_owned),
                teacher: teacher.required(row)?.to_owned(),
                ground_truth: ground_truth.get(row).map(ToOwned::to_owned),
                timestamp: timestamp.transpose()?,
                metadata,
                routing: routings.get(row)?,
            },
        });
    }
    Ok(rows)
}

fn embedding_at(column: &ListArray, row: usize) -> Result<Option<Vec<f32>>, SchemaError> {
    if column.is_null(row) {
        return Ok(None);
    }
    let values = column.value(row);
    let values = values
        .as_any()
        .downcast_ref::<Float32Array>()
        .ok_or_else(|| SchemaError::WrongType {
            column: "embedding",
            expected: "a list of Float32",
            got: column.data_type().clone(),
        })?;
    if values.null_count() > 0 {
        return Err(bad("embedding", row, &"has a null among its values"));
    }
    Ok(Some(values.values().to_vec()))
}

struct Routings<'a> {
    version: &'a UInt64Array,
    decision: Texts<'a>,
    label: Texts<'a>,
    score: &'a Float32Array,
    audit: &'a BooleanArray,
    propensity: &'a Float64Array,
}

impl<'a> Routings<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, SchemaError> {
        Ok(Self {
            version: numbers(batch, "routing_pipeline_version", "UInt64")?,
            decision: Texts::of(batch, "routing_decision")?,
            label: Texts::of(batch, "routing_label")?,
            score: numbers(batch, "routing_score", "Float32")?,
            audit: numbers(batch, "routing_audit", "Boolean")?,
            propensity: numbers(batch, "routing_propensity", "Float64")?,
        })
    }

    /// A trace was routed exactly when it has a decision.
    fn get(&self, row: usize) -> Result<Option<Routing>, SchemaError> {
        let Some(decision) = self.decision.get(row) else {
            return Ok(None);
        };
        let decision = match decision {
            "handled" => Decision::Handled,
            "deferred" => Decision::Deferred,
            other => return Err(bad("routing_decision", row, &other)),
        };
        Ok(Some(Routing {
            pipeline_version: self.version.value(row),
            decision,
            label: self.label.get(row).map(ToOwned::to_owned),
            score: (!self.score.is_null(row)).then(|| self.score.value(row)),
            audit: self.audit.value(row),
            propensity: self.propensity.value(row),
        }))
    }
}

fn bad(column: &'static str, row: usize, detail: &impl ToString) -> SchemaError {
    SchemaError::BadValue {
        column,
        row,
        detail: detail.to_string(),
    }
}

fn numbers<'a, A: Array + 'static>(
    batch: &'a RecordBatch,
    column: &'static str,
    expected: &'static str,
) -> Result<&'a A, SchemaError> {
    let array = batch
        .column_by_name(column)
        .ok_or(SchemaError::MissingColumn(column))?;
    array
        .as_any()
        .downcast_ref::<A>()
        .ok_or_else(|| SchemaError::WrongType {
            column,
            expected,
            got: array.data_type().clone(),
        })
}

/// A text column, plain or as a dictionary: other writers may choose either.
struct Texts<'a> {
    column: &'static str,
    keys: Option<&'a DictionaryArray<Int32Type>>,
    values: &'a StringArray,
}

impl<'a> Texts<'a> {
    fn of(batch: &'a RecordBatch, column: &'static str) -> Result<Self, SchemaError> {
        let array = batch
            .column_by_name(column)
            .ok_or(SchemaError::MissingColumn(column))?;
        let keys = array.as_any().downcast_ref::<DictionaryArray<Int32Type>>();
        let values = keys.map_or(array, DictionaryArray::values);
        let values = values
            .as_any()
            .downcast_ref()
            .ok_or_else(|| SchemaError::WrongType {
                column,
                expected: "Utf8 or a dictionary of it",
                got: array.data_type().clone(),
            })?;
        Ok(Self {
            column,
            keys,
            values,
        })
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        let row = match self.keys {
            Some(keys) => keys.key(row)?,
            None => row,
        };
        (!self.values.is_null(row)).then(|| self.values.value(row))
    }

    fn required(&self, row: usize) -> Result<&'a str, SchemaError> {
        self.get(row)
            .ok_or_else(|| bad(self.column, row, &"is null"))
    }
}
