//! The columns of a shard, and traces to and from record batches.
//!
//! A shard's topic and partition stand in its path and footer, not in columns.
//! Readers find columns by name and ignore those they do not know, so a later
//! version may add some.
//!
//! # Embeddings
//!
//! Most shards have embeddings of one dimension. They stand in `embedding`, lists of
//! that fixed size; a shard without embeddings has no such column. What does not fit,
//! because it has another dimension than most of the shard or because a float16 cannot
//! hold it, stands in `embedding_other`, float32 lists of any length, a column that is
//! there only when it is needed. A row has its embedding in one of the two, or none.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, FixedSizeListArray,
    Float16Array, Float32Array, Float64Array, ListArray, PrimitiveArray, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt64Array,
    builder::{Float32Builder, ListBuilder, StringBuilder, StringDictionaryBuilder},
    new_null_array,
    types::{Float16Type, Float32Type, Int32Type, UInt64Type},
};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::{
    Decision, Routing, Rows, TaskName, Trace,
    rows::{Names, Row},
    withheld,
};

/// The version of these columns, for the shard's footer.
///
/// Version 1 had every embedding in `embedding`, as float32 lists of any length.
pub const SCHEMA_VERSION: u32 = 2;

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// How the values of embeddings are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Embeddings {
    /// As they come.
    #[default]
    F32,
    /// Rounded to 11 significant bits, in half the space; float32 again when they are read.
    F16,
}

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

const EMBEDDING: &str = "embedding";
const OTHER: &str = "embedding_other";
/// The columns of the routing echo.
const ROUTING_COLUMNS: usize = 6;
/// The name of a list's values.
const ITEM: &str = "item";

/// The columns of one shard, which depend on the embeddings of its rows.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The dimension of `embedding`; without one there is no such column.
    dimension: Option<usize>,
    half: bool,
    /// Whether there is `embedding_other`.
    others: bool,
    schema: SchemaRef,
    /// The values of the dictionaries.
    tasks: ArrayRef,
    labels: ArrayRef,
    embedders: ArrayRef,
}

impl Layout {
    /// The layout for these rows.
    pub fn of(rows: &Rows, embeddings: Embeddings) -> Self {
        let half = embeddings == Embeddings::F16;
        let embedded = || rows.list.iter().filter_map(|row| rows.embedding(row));
        let mut dimensions = BTreeMap::<usize, usize>::new();
        for embedding in embedded() {
            *dimensions.entry(embedding.len()).or_default() += 1;
        }
        let dimension = dimensions
            .into_iter()
            .filter(|(dimension, _)| i32::try_from(*dimension).is_ok())
            .max_by_key(|(_, rows)| *rows)
            .map(|(dimension, _)| dimension);
        let others = embedded().any(|embedding| !fits(embedding, dimension, half));
        let names =
            |names: &Names| -> ArrayRef { Arc::new(StringArray::from_iter_values(&names.list)) };
        Self {
            dimension,
            half,
            others,
            schema: schema(dimension, half, others),
            tasks: names(&rows.tasks),
            labels: names(&rows.labels),
            embedders: names(&rows.embedders),
        }
    }

    /// The arrow schema.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The Parquet columns of the values of embeddings, and whether the encoding that
    /// splits the bytes of floats suits them: of float16 not every reader knows it.
    pub fn float_columns(&self) -> impl Iterator<Item = ([&'static str; 3], bool)> {
        let own = self
            .dimension
            .map(|_| ([EMBEDDING, "list", ITEM], !self.half));
        let other = self.others.then_some(([OTHER, "list", ITEM], true));
        own.into_iter().chain(other)
    }

    /// Some of the rows that the layout was made for as one batch, by their numbers and
    /// in the order given.
    pub fn to_batch(&self, rows: &Rows, order: &[u32]) -> Result<RecordBatch, SchemaError> {
        let part = Part { rows, order };
        let mut columns: Vec<ArrayRef> = vec![
            part.required::<UInt64Type>(|row| row.offset),
            part.texts(|row| Some(rows.id(row))),
            part.dictionary(&self.tasks, |row| Some(row.task))?,
            part.texts(|row| rows.input(row)),
        ];
        if let Some(dimension) = self.dimension {
            let fitting = part.iter().map(|row| {
                let embedding = rows.embedding(row);
                embedding.filter(|embedding| fits(embedding, self.dimension, self.half))
            });
            columns.push(if self.half {
                fixed_size::<Float16Type>(dimension, order.len(), fitting, Half::from_f32)?
            } else {
                fixed_size::<Float32Type>(dimension, order.len(), fitting, |value| value)?
            });
        }
        if self.others {
            let mut lists = ListBuilder::new(Float32Builder::new()).with_field(item(false));
            for row in part.iter() {
                let embedding = rows.embedding(row);
                let other = embedding.filter(|e| !fits(e, self.dimension, self.half));
                if let Some(embedding) = other {
                    lists.values().append_slice(embedding);
                }
                lists.append(other.is_some());
            }
            columns.push(Arc::new(lists.finish()));
        }
        columns.extend([
            part.dictionary(&self.embedders, |row| row.embedder)?,
            part.dictionary(&self.labels, |row| Some(row.teacher))?,
            part.dictionary(&self.labels, |row| row.ground_truth)?,
            part.times(),
            part.texts(|row| rows.metadata(row)),
        ]);
        part.routings(&self.schema, &mut columns)?;
        part.withheld(&self.schema, &mut columns);
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }
}

/// Some rows in some order, as columns. What no row has is cheaper without a builder.
struct Part<'a> {
    rows: &'a Rows,
    order: &'a [u32],
}

impl<'a> Part<'a> {
    fn iter(&self) -> impl Iterator<Item = &'a Row> + Clone {
        let rows = &self.rows.list;
        self.order.iter().map(|index| &rows[*index as usize])
    }

    fn required<T: ArrowPrimitiveType>(&self, value: impl Fn(&Row) -> T::Native) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from_iter_values(
            self.iter().map(value),
        ))
    }

    fn texts(&self, text: impl Fn(&'a Row) -> Option<&'a str>) -> ArrayRef {
        let bytes = self.iter().filter_map(&text).map(str::len).sum();
        let mut builder = StringBuilder::with_capacity(self.order.len(), bytes);
        for row in self.iter() {
            builder.append_option(text(row));
        }
        Arc::new(builder.finish())
    }

    fn dictionary(
        &self,
        names: &ArrayRef,
        name: impl Fn(&Row) -> Option<u32>,
    ) -> Result<ArrayRef, SchemaError> {
        let keys = self.iter().map(|row| Some(name(row)? as i32)).collect();
        let dictionary = DictionaryArray::<Int32Type>::try_new(keys, Arc::clone(names))?;
        Ok(Arc::new(dictionary))
    }

    fn times(&self) -> ArrayRef {
        let times: TimestampMillisecondArray = self.iter().map(|row| row.timestamp).collect();
        Arc::new(times.with_timezone("UTC"))
    }

    fn routings(&self, schema: &Schema, columns: &mut Vec<ArrayRef>) -> Result<(), SchemaError> {
        if self.iter().all(|row| row.routing().is_none()) {
            self.nulls(schema, ROUTING_COLUMNS, columns);
            return Ok(());
        }
        let routings = || self.iter().map(Row::routing);
        let decisions = routings().map(|routing| {
            routing.map(|routing| match routing.decision {
                Decision::Handled => "handled",
                Decision::Deferred => "deferred",
            })
        });
        columns.extend([
            column::<UInt64Array, _>(routings().map(|r| r.map(|r| r.pipeline_version))),
            dictionary(decisions)?,
            dictionary(routings().map(|r| r?.label.as_deref()))?,
            column::<Float32Array, _>(routings().map(|r| r?.score)),
            column::<BooleanArray, _>(routings().map(|r| r.map(|r| r.audit))),
            column::<Float64Array, _>(routings().map(|r| r.map(|r| r.propensity))),
        ]);
        Ok(())
    }

    fn withheld(&self, schema: &Schema, columns: &mut Vec<ArrayRef>) {
        if self.iter().all(|row| row.withheld().is_none()) {
            self.nulls(schema, withheld::COLUMNS, columns);
        } else {
            columns.extend(withheld::columns(self.iter().map(Row::withheld)));
        }
    }

    /// The next columns of the schema, without a value.
    fn nulls(&self, schema: &Schema, count: usize, columns: &mut Vec<ArrayRef>) {
        let next = schema.fields().iter().skip(columns.len()).take(count);
        columns.extend(next.map(|field| new_null_array(field.data_type(), self.order.len())));
    }
}

fn schema(dimension: Option<usize>, half: bool, others: bool) -> SchemaRef {
    let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("offset", DataType::UInt64, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("task", dictionary(), false),
        Field::new("input", DataType::Utf8, true),
    ];
    if let Some(dimension) = dimension {
        let list = DataType::FixedSizeList(item(half), dimension as i32);
        fields.push(Field::new(EMBEDDING, list, true));
    }
    if others {
        fields.push(Field::new(OTHER, DataType::List(item(false)), true));
    }
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    fields.extend([
        Field::new("embedder", dictionary(), true),
        Field::new("teacher", dictionary(), false),
        Field::new("ground_truth", dictionary(), true),
        Field::new("timestamp", time, true),
        Field::new("metadata", DataType::Utf8, true),
        Field::new("routing_pipeline_version", DataType::UInt64, true),
        Field::new("routing_decision", dictionary(), true),
        Field::new("routing_label", dictionary(), true),
        Field::new("routing_score", DataType::Float32, true),
        Field::new("routing_audit", DataType::Boolean, true),
        Field::new("routing_propensity", DataType::Float64, true),
    ]);
    fields.extend(withheld::fields());
    Arc::new(Schema::new(fields))
}

fn item(half: bool) -> Arc<Field> {
    let value = if half {
        DataType::Float16
    } else {
        DataType::Float32
    };
    Arc::new(Field::new(ITEM, value, false))
}

/// Whether an embedding can stand in `embedding`.
fn fits(embedding: &[f32], dimension: Option<usize>, half: bool) -> bool {
    Some(embedding.len()) == dimension
        && (!half
            || embedding
                .iter()
                .all(|value| value.abs() <= Half::MAX.to_f32()))
}

/// A column of lists of one size.
fn fixed_size<'a, T: ArrowPrimitiveType>(
    dimension: usize,
    rows: usize,
    lists: impl Iterator<Item = Option<&'a [f32]>>,
    value: impl Fn(f32) -> T::Native,
) -> Result<ArrayRef, SchemaError> {
    let mut values = Vec::with_capacity(rows * dimension);
    let mut valid = Vec::with_capacity(rows);
    for list in lists {
        match list {
            Some(list) => values.extend(list.iter().map(|number| value(*number))),
            None => values.resize(values.len() + dimension, T::Native::default()),
        }
        valid.push(list.is_some());
    }
    let values = PrimitiveArray::<T>::new(values.into(), None);
    let nulls = NullBuffer::from(valid);
    let item = Arc::new(Field::new(ITEM, T::DATA_TYPE, false));
    Ok(Arc::new(FixedSizeListArray::try_new(
        item,
        dimension as i32,
        Arc::new(values),
        // Its writer is quick where it need not look.
        Some(nulls).filter(|nulls| nulls.null_count() > 0),
    )?))
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

/// Which columns are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// All.
    All,
    /// What a refit reads: no ground truth.
    Learning,
    /// Of these all but the embeddings, which take the most space by far.
    Surveying,
    /// Of those of [`Columns::Learning`] what is learned from alone: no metadata and no echo
    /// of a route, which tell of the traffic.
    Fitting,
    /// What an audit is judged by: the teacher's label and the echo of the route.
    Auditing,
}

impl Columns {
    /// Whether a column of a shard, by its name at the top level, is among them.
    pub fn has(self, column: &str) -> bool {
        let learned = [
            "offset",
            "id",
            "task",
            "input",
            "embedder",
            "teacher",
            "timestamp",
        ];
        let small = learned.contains(&column) || withheld::NAMES.contains(&column);
        let embeddings = [EMBEDDING, OTHER].contains(&column);
        let of_calls = column == "metadata" || column.starts_with("routing_");
        match self {
            Self::All => true,
            Self::Learning => small || of_calls || embeddings,
            Self::Surveying => small || of_calls,
            Self::Fitting => small || embeddings,
            Self::Auditing => {
                ["offset", "id", "task", "teacher"].contains(&column)
                    || column.starts_with("routing_")
            }
        }
    }
}

/// The traces of a batch, a row each, in its order.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<StoredTrace>, SchemaError> {
    traces_of(batch, Columns::All)
}

/// The traces of a batch of which these columns alone were read. What was not read is as
/// if no trace had it.
pub fn traces_of(batch: &RecordBatch, columns: Columns) -> Result<Vec<StoredTrace>, SchemaError> {
    let all = columns == Columns::All;
    let routed = columns != Columns::Fitting;
    let learned = columns != Columns::Auditing;
    let offset = typed::<UInt64Array>(batch, "offset", "UInt64")?;
    let id = Texts::of(batch, "id")?;
    let task = Texts::of(batch, "task")?;
    let input = learned.then(|| Texts::of(batch, "input")).transpose()?;
    let embedding = Lists::of(batch, EMBEDDING)?;
    let other = Lists::of(batch, OTHER)?;
    let embedder = learned.then(|| Texts::of(batch, "embedder")).transpose()?;
    let teacher = Texts::of(batch, "teacher")?;
    let ground_truth = all.then(|| Texts::of(batch, "ground_truth")).transpose()?;
    let millis = "Timestamp in milliseconds";
    let timestamp = learned
        .then(|| typed::<TimestampMillisecondArray>(batch, "timestamp", millis))
        .transpose()?;
    let metadata = (routed && learned).then(|| Texts::of(batch, "metadata"));
    let metadata = metadata.transpose()?;
    let routings = routed.then(|| Routings::of(batch)).transpose()?;
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
        let metadata = match metadata.as_ref().and_then(|metadata| metadata.get(row)) {
            Some(text) => {
                serde_json::from_str(text).map_err(|error| bad("metadata", row, &error))?
            }
            None => BTreeMap::new(),
        };
        let timestamp = timestamp
            .filter(|times| !times.is_null(row))
            .map(|timestamp| {
                DateTime::from_timestamp_millis(timestamp.value(row))
                    .ok_or_else(|| bad("timestamp", row, &timestamp.value(row)))
            });
        rows.push(StoredTrace {
            offset: offset.value(row),
            trace: Trace {
                id: id.required(row)?.to_owned(),
                task,
                input: input
                    .as_ref()
                    .and_then(|column| column.get(row))
                    .map(ToOwned::to_owned),
                withheld: match &withheld {
                    Some(columns) => columns.get(row)?,
                    None => None,
                },
                embedding: match Lists::get(embedding.as_ref(), row)? {
                    None => Lists::get(other.as_ref(), row)?,
                    embedding => embedding,
                },
                embedder: embedder
                    .as_ref()
                    .and_then(|column| column.get(row))
                    .map(ToOwned::to_owned),
                teacher: teacher.required(row)?.to_owned(),
                ground_truth: ground_truth
                    .as_ref()
                    .and_then(|column| column.get(row))
                    .map(ToOwned::to_owned),
                timestamp: timestamp.transpose()?,
                metadata,
                routing: match &routings {
                    Some(routings) => routings.get(row)?,
                    None => None,
                },
            },
        });
    }
    Ok(rows)
}

/// A column of lists of floats, of one size or of any: it is as its writer chose.
struct Lists<'a> {
    column: &'static str,
    array: &'a dyn Array,
}

impl<'a> Lists<'a> {
    const EXPECTED: &'static str = "a list of Float32 or Float16";

    /// `None` where the batch has no such column: no row has such a list then.
    fn of(batch: &'a RecordBatch, column: &'static str) -> Result<Option<Self>, SchemaError> {
        let Some(array) = batch.column_by_name(column) else {
            return Ok(None);
        };
        match array.data_type() {
            DataType::List(_) | DataType::FixedSizeList(..) => Ok(Some(Self {
                column,
                array: array.as_ref(),
            })),
            other => Err(SchemaError::WrongType {
                column,
                expected: Self::EXPECTED,
                got: other.clone(),
            }),
        }
    }

    fn get(lists: Option<&Self>, row: usize) -> Result<Option<Vec<f32>>, SchemaError> {
        let Some(lists) = lists.filter(|lists| !lists.array.is_null(row)) else {
            return Ok(None);
        };
        let any = lists.array.as_any();
        let values = match (
            any.downcast_ref::<ListArray>(),
            any.downcast_ref::<FixedSizeListArray>(),
        ) {
            (Some(list), _) => list.value(row),
            (None, Some(list)) => list.value(row),
            (None, None) => return Err(lists.wrong_type()),
        };
        if values.null_count() > 0 {
            return Err(bad(lists.column, row, &"has a null among its values"));
        }
        let any = values.as_any();
        if let Some(values) = any.downcast_ref::<Float32Array>() {
            return Ok(Some(values.values().to_vec()));
        }
        let values = any
            .downcast_ref::<Float16Array>()
            .ok_or_else(|| lists.wrong_type())?;
        Ok(Some(
            values.values().iter().map(|value| value.to_f32()).collect(),
        ))
    }

    fn wrong_type(&self) -> SchemaError {
        SchemaError::WrongType {
            column: self.column,
            expected: Self::EXPECTED,
            got: self.array.data_type().clone(),
        }
    }
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
            version: typed(batch, "routing_pipeline_version", "UInt64")?,
            decision: Texts::of(batch, "routing_decision")?,
            label: Texts::of(batch, "routing_label")?,
            score: typed(batch, "routing_score", "Float32")?,
            audit: typed(batch, "routing_audit", "Boolean")?,
            propensity: typed(batch, "routing_propensity", "Float64")?,
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

/// A column of one type of array.
pub(crate) fn typed<'a, A: Array + 'static>(
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
