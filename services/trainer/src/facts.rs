//! What a fit's bytes depend on besides its configuration: the rows, the code, its
//! libraries, the machine.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256, digest};
use tracer_learn::Dataset;
use tracer_store::Provenance;

use crate::refit::Fitted;

/// What the libraries of this build were taken from.
const LOCK: &str = include_str!("../../../Cargo.lock");

/// Libraries that compute: a fit's bytes may change with their versions.
const COMPUTING: [&str; 10] = [
    "argmin",
    "libm",
    "linfa",
    "linfa-logistic",
    "matrixmultiply",
    "ndarray",
    "pulp",
    "rayon",
    "safetensors",
    "statrs",
];

/// What it takes to make a version again.
pub(crate) fn provenance(fitted: &Fitted) -> Provenance {
    let (rows, base) = (&fitted.rows, fitted.base.as_ref());
    Provenance {
        traces: rows.read as u64,
        dedup_window_ms: fitted.window,
        sampled: fitted.sampled,
        rows: rows.data.len() as u64,
        rows_sha256: rows_sha256(&rows.data),
        embedder: fitted.embedder.clone(),
        base: base.map(|base| base.version),
        base_sha256: base.map(|base| base.sha256.clone()),
        ..here()
    }
}

/// This code on this machine.
pub(crate) fn here() -> Provenance {
    Provenance {
        revision: env!("TRACER_REVISION").to_owned(),
        lock_sha256: hex(digest(&SHA256, LOCK.as_bytes()).as_ref()),
        libraries: libraries(LOCK),
        instructions: tracer_learn::instructions(),
        ..Provenance::default()
    }
}

/// The versions of the computing libraries in a lock file; of several, all.
fn libraries(lock: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::<String, String>::new();
    let mut name = "";
    for line in lock.lines() {
        let value = |key: &str| {
            let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
            rest.strip_suffix('"')
        };
        if let Some(value) = value("name") {
            name = value;
        } else if let Some(version) = value("version")
            && COMPUTING.contains(&name)
        {
            let versions = found.entry(name.to_owned()).or_default();
            if !versions.is_empty() {
                versions.push_str(", ");
            }
            versions.push_str(version);
        }
    }
    found
}

/// SHA-256 over the rows as the learner gets them, in their order.
pub(crate) fn rows_sha256(data: &Dataset) -> String {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    let mut values = Vec::new();
    for row in 0..data.len() {
        part(data.label_names()[data.label(row) as usize].as_bytes());
        part(data.text(row).unwrap_or_default().as_bytes());
        part(data.withheld(row).map_or("", |kept| &kept.hash).as_bytes());
        values.clear();
        let embedding = data.embedding(row).unwrap_or_default();
        values.extend(embedding.iter().flat_map(|value| value.to_le_bytes()));
        part(&values);
        part(&data.weight(row).to_le_bytes());
    }
    hex(context.finish().as_ref())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use tracer_learn::Row;

    use super::*;

    #[test]
    fn the_lock_file_tells_the_versions() {
        let lock = "version = 4\n[[package]]\nname = \"ndarray\"\nversion = \"0.16.1\"\n\n[[package]]\nname = \"ndarray\"\nversion = \"0.17.0\"\n[[package]]\nname = \"other\"\nversion = \"1\"\n";
        let expected = BTreeMap::from([("ndarray".to_owned(), "0.16.1, 0.17.0".to_owned())]);
        assert_eq!(libraries(lock), expected);
        let here = here();
        assert!(here.libraries.contains_key("ndarray"), "{here:?}");
        assert_eq!(here.lock_sha256.len(), 64);
    }

    #[test]
    fn every_part_of_a_row_counts_and_so_does_the_order() {
        type Part<'a> = (Option<&'a str>, Option<&'a [f32]>, &'a str);
        let of = |rows: &[Part<'_>]| {
            let mut data = Dataset::new();
            for &(text, embedding, label) in rows {
                let row = Row {
                    text,
                    embedding,
                    label,
                };
                data.push(row).unwrap();
            }
            rows_sha256(&data)
        };
        let first = (Some("a"), Some(&[1.0_f32, 2.0][..]), "x");
        let second = (Some("b"), None, "y");
        let all = [
            of(&[first, second]),
            of(&[second, first]),
            of(&[first]),
            of(&[(Some("a"), Some(&[1.0, 2.5]), "x"), second]),
            of(&[(Some("ab"), Some(&[1.0, 2.0]), "x"), second]),
            of(&[(Some("a"), Some(&[1.0, 2.0]), "z"), second]),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(all[0], of(&[first, second]));
    }
}
