//! What a shard keeps of an input whose text it may not have: columns beside the others.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ListArray, RecordBatch, StringArray, UInt32Array,
    builder::{ListBuilder, StringBuilder, UInt32Builder},
};
use arrow_schema::{DataType, Field};

use crate::parquet_schema::{SchemaError, typed};

/// What takes the place of an input's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithheldInput {
    /// A hash of the normalised text, in hexadecimal.
    pub hash: String,
    /// How the text was cut and hashed into buckets.
    pub scheme: String,
    /// The buckets of its n-grams, ascending, and how often each occurs.
    pub counts: Vec<(u32, u32)>,
}

impl WithheldInput {
    /// Bytes beside the value itself.
    pub fn heap_bytes(&self) -> usize {
        self.hash.len() + self.scheme.len() + self.counts.len() * size_of::<(u32, u32)>()
    }
}

const HASH: &str = "input_hash";
const SCHEME: &str = "input_scheme";
const BUCKETS: &str = "input_buckets";
const COUNTS: &str = "input_counts";

pub(crate) const NAMES: [&str; 4] = [HASH, SCHEME, BUCKETS, COUNTS];

fn item() -> Field {
    Field::new("item", DataType::UInt32, false)
}

pub(crate) fn fields() -> [Field; COLUMNS] {
    let list = || DataType::List(Arc::new(item()));
    [
        Field::new(HASH, DataType::Utf8, true),
        Field::new(SCHEME, DataType::Utf8, true),
        Field::new(BUCKETS, list(), true),
        Field::new(COUNTS, list(), true),
    ]
}

/// How many [`columns`] there are.
pub(crate) const COLUMNS: usize = 4;

pub(crate) fn columns<'a>(
    inputs: impl Iterator<Item = Option<&'a WithheldInput>>,
) -> [ArrayRef; COLUMNS] {
    let (mut hashes, mut schemes) = (StringBuilder::new(), StringBuilder::new());
    let list = || ListBuilder::new(UInt32Builder::new()).with_field(item());
    let (mut buckets, mut counts) = (list(), list());
    for withheld in inputs {
        hashes.append_option(withheld.map(|w| &w.hash));
        schemes.append_option(withheld.map(|w| &w.scheme));
        for &(bucket, count) in withheld.map_or(&[][..], |w| &w.counts) {
            buckets.values().append_value(bucket);
            counts.values().append_value(count);
        }
        buckets.append(withheld.is_some());
        counts.append(withheld.is_some());
    }
    [
        Arc::new(hashes.finish()),
        Arc::new(schemes.finish()),
        Arc::new(buckets.finish()),
        Arc::new(counts.finish()),
    ]
}

/// The columns of a batch. Shards of before have none.
pub(crate) struct Columns<'a> {
    hashes: &'a StringArray,
    schemes: &'a StringArray,
    buckets: &'a ListArray,
    counts: &'a ListArray,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Option<Self>, SchemaError> {
        if batch.column_by_name(HASH).is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            hashes: typed(batch, HASH, "Utf8")?,
            schemes: typed(batch, SCHEME, "Utf8")?,
            buckets: typed(batch, BUCKETS, "a list of UInt32")?,
            counts: typed(batch, COUNTS, "a list of UInt32")?,
        }))
    }

    pub(crate) fn get(&self, row: usize) -> Result<Option<Box<WithheldInput>>, SchemaError> {
        if self.hashes.is_null(row) {
            return Ok(None);
        }
        let bad = |column, detail: &str| SchemaError::BadValue {
            column,
            row,
            detail: detail.to_owned(),
        };
        if self.schemes.is_null(row) {
            return Err(bad(SCHEME, "is null beside a hash"));
        }
        let buckets =
            numbers(self.buckets, row).ok_or_else(|| bad(BUCKETS, "is no list of numbers"))?;
        let counts =
            numbers(self.counts, row).ok_or_else(|| bad(COUNTS, "is no list of numbers"))?;
        if buckets.len() != counts.len() {
            return Err(bad(COUNTS, "are not as many as the buckets"));
        }
        Ok(Some(Box::new(WithheldInput {
            hash: self.hashes.value(row).to_owned(),
            scheme: self.schemes.value(row).to_owned(),
            counts: buckets.into_iter().zip(counts).collect(),
        })))
    }
}

fn numbers(list: &ListArray, row: usize) -> Option<Vec<u32>> {
    if list.is_null(row) {
        return None;
    }
    let values = list.value(row);
    let values = values.as_any().downcast_ref::<UInt32Array>()?;
    (values.null_count() == 0).then(|| values.values().to_vec())
}
