//! Bearer tokens: who they are, what they may do, and for which tasks.
//!
//! The file has a line a token: a name, the SHA-256 of the token in hexadecimal digits, its
//! scopes and its tasks, both separated by commas; `*` is all tasks. What stands behind
//! `#` does not count. Only hashes are kept, in the file and in memory.

use std::{collections::BTreeSet, fmt, sync::Arc};

use arc_swap::ArcSwap;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;
use tracer_trace::TaskName;

use super::{SecurityError, files::Named};

/// Most tokens of a file. Every request compares with all of them.
const MOST: usize = 1_024;

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Ask for routes, and see the pipelines.
    Route,
    /// Send traces.
    Record,
    /// See the pipelines, and change what serves, where something is served that does.
    Admin,
}

impl Scope {
    const ALL: [Self; 3] = [Self::Route, Self::Record, Self::Admin];

    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Record => "record",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token's hash.
pub(super) type Digest = [u8; 32];

/// The hash of a token.
pub(super) fn hash(token: &str) -> Digest {
    let mut hash = Digest::default();
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

/// What is known of a token.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Box<str>,
    pub(super) digest: Digest,
    scopes: Vec<Scope>,
    /// `None` is all of them.
    tasks: Option<BTreeSet<Box<str>>>,
}

impl Entry {
    pub(super) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    pub(super) fn is_for(&self, task: &str) -> bool {
        let tasks = self.tasks.as_ref();
        tasks.is_none_or(|tasks| tasks.contains(task))
    }

    pub(super) fn is_for_all(&self) -> bool {
        self.tasks.is_none()
    }
}

/// The tokens of the file, as it was when it was last read.
pub(crate) struct Tokens {
    file: Named,
    current: ArcSwap<Vec<Arc<Entry>>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("file", &self.file.file)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    pub(super) fn open(file: &str) -> Result<Self, SecurityError> {
        let file = Named::new("tokens", file);
        let entries = parse(&file, &file.read()?)?;
        Ok(Self {
            file,
            current: ArcSwap::from_pointee(entries),
        })
    }

    pub(super) fn file(&self) -> &Named {
        &self.file
    }

    /// Knows these tokens from the next request on.
    pub(super) fn replace(&self, contents: &[Vec<u8>]) -> Result<String, SecurityError> {
        let contents = contents.first().map_or(&[][..], Vec::as_slice);
        // Half a rotation, and no wish to lock everybody out: that takes a comment.
        if contents.trim_ascii().is_empty() && !self.current.load().is_empty() {
            return Err(self.file.bad("is empty"));
        }
        let entries = parse(&self.file, contents)?;
        let now = format!("{} tokens", entries.len());
        self.current.store(Arc::new(entries));
        Ok(now)
    }

    /// The token with this hash. All are compared, in a time that does not depend on how
    /// much of a hash is right.
    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Entry>> {
        let mut found = None;
        for entry in self.current.load().iter() {
            if bool::from(entry.digest.ct_eq(digest)) {
                found = Some(Arc::clone(entry));
            }
        }
        found
    }
}

/// Messages give the line, never what is in it: it may be a token by mistake.
fn parse(file: &Named, contents: &[u8]) -> Result<Vec<Arc<Entry>>, SecurityError> {
    let text = std::str::from_utf8(contents).map_err(|_| file.bad("is no UTF-8 text"))?;
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        if line.trim().is_empty() {
            continue;
        }
        let bad = |problem: &str| file.bad(format!("line {number}: {problem}"));
        let mut fields = line.split_whitespace();
        let (Some(name), Some(hash), Some(scopes), Some(tasks), None) = (
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
            fields.next(),
        ) else {
            return Err(bad("there must be a name, a hash, scopes and tasks"));
        };
        let digest = hex(hash).ok_or_else(|| {
            bad("the second word must be the SHA-256 of the token, in 64 hexadecimal digits")
        })?;
        let scope = |word| Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        let scopes: Option<Vec<Scope>> = scopes.split(',').map(scope).collect();
        let scopes = scopes.ok_or_else(|| bad("the scopes are some of route,record,admin"))?;
        let tasks = if tasks == "*" {
            None
        } else {
            let names: Result<BTreeSet<Box<str>>, _> = tasks
                .split(',')
                .map(|task| TaskName::new(task).map(|task| task.as_str().into()))
                .collect();
            Some(names.map_err(|_| bad("the tasks are * or names of tasks, separated by commas"))?)
        };
        if name.len() > 64 {
            return Err(bad("the name is longer than 64 bytes"));
        }
        if entries
            .iter()
            .any(|entry| entry.digest == digest || *entry.name == *name)
        {
            return Err(bad("the name or the token is there already"));
        }
        if entries.len() == MOST {
            return Err(bad("there are more tokens than 1024"));
        }
        entries.push(Arc::new(Entry {
            name: name.into(),
            digest,
            scopes,
            tasks,
        }));
    }
    Ok(entries)
}

fn hex(text: &str) -> Option<Digest> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.as_chunks::<2>().0) {
        let digit = |digit: u8| (digit as char).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s test | sha256sum`
    const TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn parsed(text: &str) -> Result<Vec<Arc<Entry>>, String> {
        let file = Named::new("tokens", "/etc/tokens");
        parse(&file, text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_a_token() {
        let other = TEST.replace('9', "0").to_uppercase();
        let text = format!(
            "# who\n\nshop {TEST} route,record support,eu.billing # the shop\nops\t{other}  admin *\r\n"
        );
        let entries = parsed(&text).unwrap();
        let [shop, ops] = &entries[..] else {
            panic!("{entries:?}");
        };
        assert_eq!((&*shop.name, &*ops.name), ("shop", "ops"));
        assert_eq!(shop.digest, hash("test"));
        assert!(shop.has(Scope::Route) && shop.has(Scope::Record) && !shop.has(Scope::Admin));
        assert!(shop.is_for("support") && shop.is_for("eu.billing"));
        assert!(!shop.is_for("billing") && !shop.is_for_all());
        assert!(ops.is_for("anything") && ops.is_for_all());
        assert!(parsed("").unwrap().is_empty());
    }

    #[test]
    fn an_emptied_file_takes_no_token_away_and_a_comment_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, format!("a {TEST} route *\n")).unwrap();
        let tokens = Tokens::open(path.to_str().unwrap()).unwrap();
        for empty in ["", " \n\n"] {
            let error = tokens.replace(&[empty.into()]).unwrap_err().to_string();
            assert!(error.ends_with("is empty"), "{error}");
            assert!(tokens.find(&hash("test")).is_some());
        }
        tokens.replace(&[b"# none\n".to_vec()]).unwrap();
        assert!(tokens.find(&hash("test")).is_none());
        assert!(tokens.replace(&[Vec::new()]).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_alone() {
        let good = format!("a {TEST} route *\n");
        for (line, problem) in [
            ("hunter2", "there must be"),
            ("a hunter2 route *", "SHA-256"),
            (&format!("b {TEST} route,hunter2 *"), "scopes"),
            (&format!("b {TEST} route hunter2/"), "tasks"),
            (&format!("b {TEST} route *"), "already"),
            (&format!("b {TEST} route * hunter2"), "there must be"),
            (&format!("b {} route *", "é".repeat(32)), "SHA-256"),
        ] {
            let error = parsed(&format!("{good}{line}\n")).err().unwrap_or_default();
            assert!(
                error.starts_with("security.tokens: /etc/tokens: line 2: "),
                "{error}"
            );
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let file = Named::new("tokens", "x");
        assert!(parse(&file, &[0xff]).is_err());
    }
}
