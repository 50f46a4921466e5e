"""Reads shards as their users do: with pyarrow, DuckDB and Polars.

check.py STORE LIST EMBEDDINGS TRACES TASKS

STORE is the directory of a store, LIST the document of `tracer shards list --json`,
EMBEDDINGS f32 or f16. The traces are those that tests/shards.rs writes: TRACES of
them, of TASKS tasks in turn; a tenth has no embedding, a tenth one of two values and
the rest one of four.
"""

import json
import pathlib
import sys

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq

store, listed, embeddings, traces, tasks = sys.argv[1:]
traces, tasks = int(traces), int(tasks)
shards = json.loads(pathlib.Path(listed).read_text())["partitions"][0]["shards"]
files = [str(pathlib.Path(store, shard["path"])) for shard in shards]
value = pa.float32() if embeddings == "f32" else pa.float16()


def embedding(n):
    return {0: None, 1: [1.5, -2.0]}.get(n % 10, [n, 0.25, -0.5, 1e-3])


def near(a, b):
    if a is None or b is None:
        return a is b
    bits = 24 if embeddings == "f32" else 11
    return len(a) == len(b) and all(abs(x - y) <= abs(y) * 2.0**-bits for x, y in zip(a, b))


seen = {}
for shard, path in zip(shards, files):
    file = pq.ParquetFile(path)
    schema, metadata = file.schema_arrow, file.metadata
    text = pa.dictionary(pa.int32(), pa.string())
    assert schema.field("offset").type == pa.uint64(), schema
    for name in ["task", "teacher", "ground_truth", "routing_label"]:
        assert schema.field(name).type == text, (name, schema)
    assert schema.field("timestamp").type == pa.timestamp("ms", "UTC"), schema
    assert schema.field("embedding").type.value_type == value, schema
    assert pa.types.is_fixed_size_list(schema.field("embedding").type), schema
    assert schema.field("embedding").type.list_size == 4, schema
    assert schema.field("embedding_other").type.value_type == pa.float32(), schema

    pairs = {key.decode(): text.decode() for key, text in metadata.metadata.items()}
    assert int(pairs["tracer.base_offset"]) == shard["base_offset"]
    assert int(pairs["tracer.next_offset"]) == shard["next_offset"]
    assert json.loads(pairs["tracer.rows_by_task"]) == shard["rows_by_task"]

    table = file.read()
    keys = list(zip(table["task"].to_pylist(), table["offset"].to_pylist()))
    assert keys == sorted(keys), "not in order"
    # The statistics of every row group tell its tasks and offsets.
    start = 0
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        rows = keys[start : start + group.num_rows]
        start += group.num_rows
        by_name = {group.column(c).path_in_schema: group.column(c) for c in range(group.num_columns)}
        task, offset = by_name["task"].statistics, by_name["offset"].statistics
        assert (task.min, task.max) == (rows[0][0], rows[-1][0])
        assert (offset.min, offset.max) == (min(o for _, o in rows), max(o for _, o in rows))
        assert "RLE_DICTIONARY" in by_name["teacher"].encodings
        assert all(column.compression == "ZSTD" for column in by_name.values())
    assert start == table.num_rows == sum(shard["rows_by_task"].values())
    own, other = table["embedding"].to_pylist(), table["embedding_other"].to_pylist()
    for row, id in enumerate(table["id"].to_pylist()):
        assert id not in seen, id
        assert own[row] is None or other[row] is None
        found = other[row] if own[row] is None else own[row]
        seen[id] = (found if found is None else [float(v) for v in found], keys[row][0])
assert len(seen) == traces, len(seen)
for n in range(traces):
    found, task = seen[f"id-{n}"]
    assert task == f"task-{n % tasks}" and near(found, embedding(n)), (n, task, found)

expected = {f"task-{t}": len(range(t, traces, tasks)) for t in range(tasks)}
rows = duckdb.sql(
    f"select task, count(*), count(embedding), count(embedding_other), min(len(embedding)), "
    f"max(len(embedding)) from read_parquet({files}, union_by_name = true) group by task order by task"
).fetchall()
assert {row[0]: row[1] for row in rows} == expected, rows
assert sum(row[2] for row in rows) == traces * 8 // 10, rows
assert sum(row[3] for row in rows) == traces // 10, rows
assert all(row[4:] == (4, 4) for row in rows), rows

frame = polars.scan_parquet(files)
counts = frame.group_by("task").len().collect()
assert dict(zip(counts["task"].cast(polars.String), counts["len"])) == expected, counts
third = frame.filter(polars.col("task").cast(polars.String) == "task-1").select("id", "embedding").collect()
assert third.height == expected["task-1"] and third["embedding"].dtype.shape == (4,), third
print(len(files), "shards")
