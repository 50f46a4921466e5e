//! Traces on their way into a shard.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use crate::{Routing, StoredTrace, TaskName, TraceView, WithheldInput};

/// Traces with their offsets, packed: texts stand one after another in one allocation and
/// so do embeddings, names that come again are kept once, and a row is where its parts
/// are. Traces of their own take half a dozen allocations each, and most of the time that
/// it takes to gather and to drop them.
#[derive(Debug, Default)]
pub struct Rows {
    pub(crate) list: Vec<Row>,
    text: String,
    floats: Vec<f32>,
    pub(crate) tasks: Names,
    pub(crate) labels: Names,
    pub(crate) embedders: Names,
}

/// A row: numbers of names, and where its parts are.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) offset: u64,
    /// Where its texts begin: the id, the input and the metadata, in this order.
    text: usize,
    id: u32,
    input: Length,
    metadata: Length,
    pub(crate) task: u32,
    pub(crate) teacher: u32,
    pub(crate) ground_truth: Option<u32>,
    pub(crate) embedder: Option<u32>,
    /// Where its embedding begins.
    floats: usize,
    dimension: Length,
    /// In epoch milliseconds.
    pub(crate) timestamp: Option<i64>,
    /// What few rows have.
    pub(crate) rest: Option<Box<Rest>>,
}

/// The length of what may be absent.
type Length = Option<u32>;

#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) routing: Option<Routing>,
    pub(crate) withheld: Option<WithheldInput>,
}

impl Rows {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The offset of each, in the order in which they came.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        self.list.iter().map(|row| row.offset)
    }

    /// Bytes in memory, near enough to bound them: the sum of what `push` answers.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let names = self.tasks.bytes + self.labels.bytes + self.embedders.bytes;
        let rest: usize = self
            .list
            .iter()
            .filter_map(|row| row.rest.as_deref())
            .map(Rest::bytes)
            .sum();
        self.list.len() * size_of::<Row>()
            + self.text.len()
            + self.floats.len() * size_of::<f32>()
            + names
            + rest
    }

    /// Appends a trace. Answers by how many bytes that is more.
    pub fn push(&mut self, offset: u64, trace: TraceView<'_>) -> usize {
        let names = |rows: &Self| rows.tasks.bytes + rows.labels.bytes + rows.embedders.bytes;
        let (text, floats, named) = (self.text.len(), self.floats.len(), names(self));
        self.text.push_str(trace.id);
        if let Some(input) = trace.input {
            self.text.push_str(input);
        }
        let mut metadata = None;
        if !trace.metadata.is_empty() {
            let json = serde_json::json!(trace.metadata).to_string();
            self.text.push_str(&json);
            metadata = Some(json.len() as u32);
        }
        if let Some(embedding) = trace.embedding {
            self.floats.extend_from_slice(embedding);
        }
        let rest = (trace.routing.is_some() || trace.withheld.is_some()).then(|| {
            Box::new(Rest {
                routing: trace.routing.cloned(),
                withheld: trace.withheld.cloned(),
            })
        });
        let more = rest.as_deref().map_or(0, Rest::bytes);
        let row = Row {
            offset,
            text,
            // Texts have limits far below four gigabytes.
            id: trace.id.len() as u32,
            input: trace.input.map(|input| input.len() as u32),
            metadata,
            task: self.tasks.number(trace.task),
            teacher: self.labels.number(trace.teacher),
            ground_truth: trace.ground_truth.map(|name| self.labels.number(name)),
            embedder: trace.embedder.map(|name| self.embedders.number(name)),
            floats,
            dimension: trace.embedding.map(|embedding| embedding.len() as u32),
            timestamp: trace.timestamp.map(|time| time.timestamp_millis()),
            rest,
        };
        self.list.push(row);
        size_of::<Row>()
            + (self.text.len() - text)
            + (self.floats.len() - floats) * size_of::<f32>()
            + (names(self) - named)
            + more
    }

    /// How many rows each task has.
    pub fn by_task(&self) -> BTreeMap<TaskName, u64> {
        let mut counts = vec![0; self.tasks.list.len()];
        for row in &self.list {
            counts[row.task as usize] += 1;
        }
        let names = self.tasks.list.iter();
        names
            .zip(counts)
            .map(|(name, rows)| (TaskName::of_checked(name), rows))
            .collect()
    }

    /// The numbers of the rows by task and offset; rows of one offset keep their order.
    pub fn sorted(&self) -> Vec<u32> {
        let mut by_name: Vec<u32> = (0..self.tasks.list.len() as u32).collect();
        by_name.sort_unstable_by_key(|task| &self.tasks.list[*task as usize]);
        let mut rank = vec![0; by_name.len()];
        for (place, task) in by_name.into_iter().enumerate() {
            rank[task as usize] = place;
        }
        let mut order: Vec<u32> = (0..self.list.len() as u32).collect();
        // What is sorted already, as it is of one task, costs a look.
        order.sort_by_key(|index| {
            let row = &self.list[*index as usize];
            (rank[row.task as usize], row.offset)
        });
        order
    }

    pub(crate) fn id(&self, row: &Row) -> &str {
        &self.text[row.texts()[0].clone()]
    }

    pub(crate) fn input(&self, row: &Row) -> Option<&str> {
        row.input.map(|_| &self.text[row.texts()[1].clone()])
    }

    /// As a JSON object.
    pub(crate) fn metadata(&self, row: &Row) -> Option<&str> {
        row.metadata.map(|_| &self.text[row.texts()[2].clone()])
    }

    pub(crate) fn embedding(&self, row: &Row) -> Option<&[f32]> {
        let dimension = row.dimension? as usize;
        Some(&self.floats[row.floats..row.floats + dimension])
    }
}

impl Row {
    fn texts(&self) -> [Range<usize>; 3] {
        let input = self.text + self.id as usize;
        let metadata = input + self.input.unwrap_or(0) as usize;
        let end = metadata + self.metadata.unwrap_or(0) as usize;
        [self.text..input, input..metadata, metadata..end]
    }

    pub(crate) fn routing(&self) -> Option<&Routing> {
        self.rest.as_ref()?.routing.as_ref()
    }

    pub(crate) fn withheld(&self) -> Option<&WithheldInput> {
        self.rest.as_ref()?.withheld.as_ref()
    }
}

impl Rest {
    fn bytes(&self) -> usize {
        let label = self.routing.as_ref().and_then(|r| r.label.as_ref());
        size_of::<Self>()
            + label.map_or(0, String::len)
            + self.withheld.as_ref().map_or(0, WithheldInput::heap_bytes)
    }
}

impl<'a> Extend<&'a StoredTrace> for Rows {
    fn extend<I: IntoIterator<Item = &'a StoredTrace>>(&mut self, traces: I) {
        for stored in traces {
            self.push(stored.offset, TraceView::from(&stored.trace));
        }
    }
}

impl<'a> FromIterator<&'a StoredTrace> for Rows {
    fn from_iter<I: IntoIterator<Item = &'a StoredTrace>>(traces: I) -> Self {
        let mut rows = Self::new();
        rows.extend(traces);
        rows
    }
}

/// Names by the order in which they first came.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) list: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
    /// The one that came last: tasks come in long runs.
    last: u32,
    bytes: usize,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if self
            .list
            .get(self.last as usize)
            .is_some_and(|last| **last == *name)
        {
            return self.last;
        }
        self.last = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.add(name),
        };
        self.last
    }

    fn add(&mut self, name: &str) -> u32 {
        let number = self.list.len() as u32;
        let name: Arc<str> = name.into();
        // Its text, and what two collections take for it.
        self.bytes += name.len() + 6 * size_of::<Arc<str>>();
        self.list.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Limits, Origin, decode};

    fn rows(traces: &[(u64, &str)]) -> Rows {
        let mut rows = Rows::new();
        let mut bytes = 0;
        for (offset, json) in traces {
            let origin = Origin {
                topic: "t",
                partition: 0,
                offset: *offset,
                timestamp_ms: None,
            };
            let trace = decode(json.as_bytes(), &origin, Format::Json, &Limits::default()).unwrap();
            bytes += rows.push(*offset, TraceView::from(&trace));
            assert_eq!(bytes, rows.bytes());
        }
        rows
    }

    #[test]
    fn the_parts_of_a_row_are_found_again() {
        let rows = rows(&[
            (
                3,
                r#"{"input":"a","teacher":"x","id":"1","metadata":{"k":"v"},"embedder":"m"}"#,
            ),
            (
                4,
                r#"{"embedding":[1,2],"teacher":"y","id":"","ground_truth":"x"}"#,
            ),
            (
                5,
                r#"{"input":"c","embedding":[3],"teacher":"x","routing":{"decision":"deferred","propensity":1,"label":"z"}}"#,
            ),
        ]);
        let [a, b, c] = [0, 1, 2].map(|index| &rows.list[index]);
        assert_eq!(
            (rows.id(a), rows.id(b), rows.id(c)),
            ("1", "t-0-4", "t-0-5")
        );
        assert_eq!(
            (rows.input(a), rows.input(b), rows.input(c)),
            (Some("a"), None, Some("c"))
        );
        assert_eq!(
            (rows.metadata(a), rows.metadata(b)),
            (Some(r#"{"k":"v"}"#), None)
        );
        assert_eq!(
            (rows.embedding(a), rows.embedding(b), rows.embedding(c)),
            (None, Some(&[1.0, 2.0][..]), Some(&[3.0][..]))
        );
        assert_eq!((a.teacher, b.teacher, c.teacher), (0, 1, 0));
        assert_eq!(
            (b.ground_truth, a.embedder, b.embedder),
            (Some(0), Some(0), None)
        );
        assert!(a.routing().is_none() && c.routing().is_some());
    }

    #[test]
    fn rows_are_sorted_by_task_and_offset() {
        let task = |task: &str| format!(r#"{{"input":"a","teacher":"x","task":"{task}"}}"#);
        let (a, b) = (task("a"), task("b"));
        let rows = rows(&[(1, &b), (2, &a), (2, &b), (2, &a), (1, &a)]);
        assert_eq!(rows.sorted(), [4, 1, 3, 0, 2]);
        let counts: Vec<_> = rows.by_task().into_iter().collect();
        let name = |name| TaskName::new(name).unwrap();
        assert_eq!(counts, [(name("a"), 3), (name("b"), 2)]);
    }
}
