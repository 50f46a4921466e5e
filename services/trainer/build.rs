//! Tells the code which revision it is: `TRACER_REVISION`, or what git says.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=TRACER_REVISION");
    // Moves with every commit, also in a worktree.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let given = env::var("TRACER_REVISION").ok().filter(|r| !r.is_empty());
    let revision = given.or_else(|| git(&["rev-parse", "HEAD"]));
    println!(
        "cargo::rustc-env=TRACER_REVISION={}",
        revision.unwrap_or_default()
    );
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
