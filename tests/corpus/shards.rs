//! Shards to begin with: as Tracer writes them, and as others would. What stands in a
//! compressed page cannot be changed by a fuzzer but to rubbish, so most are not compressed.

use std::{collections::BTreeMap, fs, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BinaryArray, Int64Array, LargeStringArray, ListArray, RecordBatch,
    StringArray, StringViewArray, StructArray, TimestampMicrosecondArray, UInt64Array,
    types::{Float32Type, Float64Type},
};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder,
        arrow_writer::ArrowWriterOptions,
    },
    basic::{Compression, Encoding},
    file::{
        metadata::{
            ColumnChunkMetaDataBuilder, KeyValue, ParquetMetaData, ParquetMetaDataReader,
            ParquetMetaDataWriter,
        },
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion},
    },
};
use serde_json::Value;
use tracer_store::{ShardLog, Store};
use tracer_trace::{
    Format, Limits, Offset, OffsetRange, PartitionId, StoredTrace, decode,
    parquet_schema::Embeddings,
};

/// What they cover.
const END: u64 = 8;

/// Names and contents.
pub(crate) async fn all(plain: &[u8], whole: Value) -> Vec<(String, Vec<u8>)> {
    let mut made = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| made.push((name.to_owned(), bytes));
    let plain = std::str::from_utf8(plain).unwrap();
    let one = vec![row(0, &whole.to_string())];
    let two = vec![
        row(1, plain),
        row(2, r#"{"task":"other","embedding":[1,2],"teacher":"x"}"#),
    ];
    // Of several tasks, of which the one that is asked for is in the middle; with and without
    // whatever a trace may have.
    let mut many = vec![
        row(0, r#"{"task":"mail","input":"a","teacher":"x"}"#),
        row(1, plain),
        row(2, &whole.to_string()),
        row(3, &whole.to_string()),
        row(
            4,
            r#"{"task":"support","input":"b","teacher":"x","embedding":[1]}"#,
        ),
        row(
            5,
            r#"{"task":"tickets","input":"","teacher":"x","embedding":[1,2,3]}"#,
        ),
    ];
    "b-1".clone_into(&mut many[3].trace.id);
    for (name, rows, embeddings) in [
        ("one", one.clone(), Embeddings::F32),
        ("two", two, Embeddings::F32),
        ("half", one, Embeddings::F16),
        ("none", Vec::new(), Embeddings::F32),
        ("many", many.clone(), Embeddings::F32),
    ] {
        add(name, written(rows, embeddings).await);
    }
    let shard = Shard::of(written(many, Embeddings::F32).await);
    for (name, way) in WAYS {
        add(&format!("way-{name}"), shard.write(way, false));
    }
    // Without the types of Arrow in its footer: whoever reads it makes them up.
    add("way-bare", shard.write(WAYS[0].1, true));
    add("way-bare-dictionary", shard.write(WAYS[1].1, true));
    for (name, column, array) in strange_columns(&shard.batch) {
        let batch = with_column(&shard.batch, column, array);
        add(
            &format!("column-{name}"),
            shard.with(batch).write(flat, false),
        );
    }
    for (name, pairs) in FOOTERS {
        let mut shard = shard.clone();
        shard.replace(pairs);
        add(&format!("footer-{name}"), shard.write(flat, false));
    }
    let whole = shard.write(flat, false);
    for (name, bytes) in damaged(&whole, &shard.write(zstd, false)) {
        add(&format!("damaged-{name}"), bytes);
    }
    made
}

fn row(offset: u64, json: &str) -> StoredTrace {
    let origin = tracer_trace::Origin {
        offset,
        ..super::origin()
    };
    let trace = decode(json.as_bytes(), &origin, Format::Json, &Limits::default());
    StoredTrace {
        offset,
        trace: trace.unwrap(),
    }
}

/// As Tracer writes them.
async fn written(rows: Vec<StoredTrace>, embeddings: Embeddings) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &BTreeMap::new()).unwrap();
    let log = ShardLog::new(store).with_embeddings(embeddings);
    let partition = PartitionId::new("traces".parse().unwrap(), 0);
    let range = OffsetRange::new(Offset(0), Offset(END)).unwrap();
    log.append(&partition, range, rows).await.unwrap();
    let file = "traces/traces/00000/00000000000000000000.parquet";
    fs::read(folder.path().join(file)).unwrap()
}

/// A shard that can be written again in another way.
#[derive(Clone)]
struct Shard {
    batch: RecordBatch,
    pairs: Vec<KeyValue>,
}

impl Shard {
    fn of(bytes: Vec<u8>) -> Self {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        let pairs = reader.metadata().file_metadata().key_value_metadata();
        let mut pairs = pairs.unwrap().clone();
        // Its writer adds it.
        pairs.retain(|pair| pair.key != "ARROW:schema");
        let batch = reader.build().unwrap().next().unwrap().unwrap();
        // Not among its columns as well.
        let schema = Schema::new(batch.schema().fields().clone());
        let batch = RecordBatch::try_new(Arc::new(schema), batch.columns().to_vec()).unwrap();
        Self { batch, pairs }
    }

    fn with(&self, batch: RecordBatch) -> Self {
        let pairs = self.pairs.clone();
        Self { batch, pairs }
    }

    fn replace(&mut self, pairs: &[(&str, Option<&str>)]) {
        for (key, value) in pairs {
            self.pairs.retain(|pair| pair.key != *key);
            if let Some(value) = value {
                let pair = KeyValue::new((*key).to_owned(), (*value).to_owned());
                self.pairs.push(pair);
            }
        }
    }

    fn write(&self, way: Way, bare: bool) -> Vec<u8> {
        let properties = way(WriterProperties::builder())
            .set_key_value_metadata(Some(self.pairs.clone()))
            .build();
        let options = ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(bare);
        let mut writer =
            ArrowWriter::try_new_with_options(Vec::new(), self.batch.schema(), options).unwrap();
        // One row after the other: some settings count batches.
        for row in 0..self.batch.num_rows() {
            writer.write(&self.batch.slice(row, 1)).unwrap();
        }
        writer.into_inner().unwrap()
    }
}

type Way = fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder;

const WAYS: [(&str, Way); 8] = [
    ("flat", flat),
    ("dictionary", |to| flat(to).set_dictionary_enabled(true)),
    ("groups", |to| flat(to).set_max_row_group_row_count(Some(1))),
    ("pages", |to| {
        flat(to)
            .set_dictionary_enabled(true)
            .set_data_page_row_count_limit(1)
            .set_write_batch_size(1)
    }),
    ("pages-2", |to| {
        flat(to)
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_dictionary_enabled(true)
            .set_max_row_group_row_count(Some(3))
            .set_data_page_row_count_limit(2)
            .set_write_batch_size(1)
    }),
    ("differences", |to| {
        // What is not for a column's type is not used for it.
        let mut to = flat(to).set_writer_version(WriterVersion::PARQUET_2_0);
        for (column, encoding) in [
            ("offset", Encoding::DELTA_BINARY_PACKED),
            ("timestamp", Encoding::DELTA_BINARY_PACKED),
            ("id", Encoding::DELTA_BYTE_ARRAY),
            ("input", Encoding::DELTA_LENGTH_BYTE_ARRAY),
            ("routing_score", Encoding::BYTE_STREAM_SPLIT),
            ("routing_audit", Encoding::RLE),
        ] {
            to = to.set_column_encoding(column.into(), encoding);
        }
        to
    }),
    ("statistics", |to| {
        flat(to)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_bloom_filter_enabled(true)
            .set_bloom_filter_max_ndv(2)
    }),
    ("zstd-2", |to| {
        zstd(to).set_writer_version(WriterVersion::PARQUET_2_0)
    }),
];

fn flat(to: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
    to.set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
}

fn zstd(to: WriterPropertiesBuilder) -> WriterPropertiesBuilder {
    flat(to).set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()))
}

/// Columns of other types than they must be, and values that may not stand in them.
fn strange_columns(batch: &RecordBatch) -> Vec<(&'static str, &'static str, Option<ArrayRef>)> {
    let rows = batch.num_rows();
    let texts = |text: &'static str| std::iter::repeat_n(text, rows);
    let list = |value: Option<f32>| {
        let lists = (0..rows).map(|_| Some(vec![value, Some(1.0)]));
        ListArray::from_iter_primitive::<Float32Type, _, _>(lists)
    };
    let doubles = ListArray::from_iter_primitive::<Float64Type, _, _>(
        (0..rows).map(|_| Some(vec![Some(1.0)])),
    );
    let missing: StringArray = (0..rows).map(|i| (i > 0).then_some("x")).collect();
    let offsets = UInt64Array::from_iter_values((0..rows as u64).map(|i| i + 1000));
    let field = Arc::new(Field::new("a", arrow_schema::DataType::UInt64, false));
    let nested: ArrayRef = Arc::new(offsets.clone());
    let nested = StructArray::from(vec![(field, nested)]);
    vec![
        ("none", "teacher", None),
        (
            "signed",
            "offset",
            Some(Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ),
        ("outside", "offset", Some(Arc::new(offsets))),
        (
            "large",
            "id",
            Some(Arc::new(LargeStringArray::from_iter_values(texts("a")))),
        ),
        (
            "views",
            "input",
            Some(Arc::new(StringViewArray::from_iter_values(texts("a")))),
        ),
        (
            "bytes",
            "teacher",
            Some(Arc::new(BinaryArray::from_iter_values(texts("\u{e9}")))),
        ),
        ("null", "teacher", Some(Arc::new(missing))),
        (
            "task",
            "task",
            Some(Arc::new(StringArray::from_iter_values(texts("no/task")))),
        ),
        ("hole", "embedding", Some(Arc::new(list(None)))),
        ("longer", "embedding", Some(Arc::new(list(Some(f32::NAN))))),
        ("doubles", "embedding_other", Some(Arc::new(doubles))),
        (
            "micros",
            "timestamp",
            Some(Arc::new(TimestampMicrosecondArray::from(vec![
                i64::MIN;
                rows
            ]))),
        ),
        (
            "no-json",
            "metadata",
            Some(Arc::new(StringArray::from_iter_values(texts("{\"a\":[")))),
        ),
        (
            "decision",
            "routing_decision",
            Some(Arc::new(StringArray::from_iter_values(texts("maybe")))),
        ),
        ("nested", "strange", Some(Arc::new(nested))),
    ]
}

/// The batch with another column, or without it.
fn with_column(batch: &RecordBatch, name: &str, array: Option<ArrayRef>) -> RecordBatch {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.name() != name {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    if let Some(array) = array {
        fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
        columns.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

type Pairs = &'static [(&'static str, Option<&'static str>)];

const FOOTERS: [(&str, Pairs); 7] = [
    ("newer", &[("tracer.schema_version", Some("4294967295"))]),
    ("unnamed", &[("tracer.topic", None)]),
    (
        "far",
        &[("tracer.next_offset", Some("18446744073709551615"))],
    ),
    ("back", &[("tracer.next_offset", Some("0"))]),
    (
        "rows",
        &[(
            "tracer.rows_by_task",
            Some(r#"{"mail":18446744073709551615,"support":18446744073709551615}"#),
        )],
    ),
    (
        "other-order",
        &[(
            "tracer.rows_by_task",
            Some(r#"{"a":1,"support":3,"support-2":2}"#),
        )],
    ),
    (
        "compacted",
        &[
            (
                "tracer.last_record",
                Some("7 00112233445566778899aabbccddeeff"),
            ),
            (
                "tracer.written",
                Some(r#"{"first":"2026-03-04T05:06:07Z","last":"2026-03-04T05:06:08Z"}"#),
            ),
            (
                "tracer.bare_ranges",
                Some(r#"[{"start":6,"end":8},{"start":18446744073709551615,"end":0}]"#),
            ),
        ],
    ),
];

/// Files whose footer lies, or that end where they should not.
fn damaged(flat: &[u8], zstd: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let cut = |bytes: usize| flat[..flat.len() - bytes].to_vec();
    let with_end = |end: &[u8]| [&flat[..flat.len() - end.len()], end].concat();
    let column = |change: Change| with_columns(flat, change);
    vec![
        ("cut", cut(9)),
        ("end", with_end(b"PAR2")),
        ("encrypted", with_end(b"PARE")),
        (
            "footer-too-long",
            with_end(&[0xff, 0xff, 0xff, 0x7f, b'P', b'A', b'R', b'1']),
        ),
        ("no-footer", with_end(&[0, 0, 0, 0, b'P', b'A', b'R', b'1'])),
        ("offset", column(|c| c.set_data_page_offset(i64::MAX))),
        ("before", column(|c| c.set_data_page_offset(-1))),
        ("size", column(|c| c.set_total_compressed_size(1 << 50))),
        ("size-0", column(|c| c.set_total_compressed_size(0))),
        ("values", column(|c| c.set_num_values(i64::MAX))),
        (
            "dictionary",
            column(|c| c.set_dictionary_page_offset(Some(4))),
        ),
        (
            "compressed",
            column(|c| c.set_compression(Compression::SNAPPY)),
        ),
        (
            "not-compressed",
            with_columns(zstd, |c| c.set_compression(Compression::UNCOMPRESSED)),
        ),
        ("many-rows", with_rows(flat, 1 << 40)),
        ("negative-rows", with_rows(flat, -1)),
    ]
}

type Change = fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder;

/// The file with another footer, which says something else of every column.
fn with_columns(file: &[u8], change: Change) -> Vec<u8> {
    with_footer(file, |metadata| {
        let groups = metadata.row_groups().iter().map(|group| {
            let columns = group.columns().iter().cloned();
            let columns = columns.map(|column| change(column.into_builder()).build().unwrap());
            let columns = columns.collect();
            let group = group.clone().into_builder();
            group.set_column_metadata(columns).build().unwrap()
        });
        let groups = groups.collect();
        metadata
            .clone()
            .into_builder()
            .set_row_groups(groups)
            .build()
    })
}

/// The file with a footer whose row groups have so many rows.
fn with_rows(file: &[u8], rows: i64) -> Vec<u8> {
    with_footer(file, |metadata| {
        let groups = metadata.row_groups().iter().map(|group| {
            let group = group.clone().into_builder();
            group.set_num_rows(rows).build().unwrap()
        });
        let groups = groups.collect();
        metadata
            .clone()
            .into_builder()
            .set_row_groups(groups)
            .build()
    })
}

fn with_footer(file: &[u8], change: impl Fn(&ParquetMetaData) -> ParquetMetaData) -> Vec<u8> {
    let bytes = Bytes::copy_from_slice(file);
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(&bytes)
        .unwrap();
    let length = u32::from_le_bytes(file[file.len() - 8..file.len() - 4].try_into().unwrap());
    let mut out = file[..file.len() - 8 - length as usize].to_vec();
    let changed = change(&metadata);
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, &changed)
        .finish()
        .unwrap();
    out.append(&mut footer);
    out
}
