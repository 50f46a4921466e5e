//! Servers in processes of their own: the same binary, started for the benchmark.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// What a server of the benchmark prints once it answers.
pub(super) const READY: &str = "ready at ";

/// Clock ticks a second in `/proc`: 100 on every Linux that runs this.
const TICKS: f64 = 100.0;

/// A running server. It ends with this value, and with this process.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// `host:port` of its gRPC.
    pub(super) addr: String,
}

impl Server {
    /// Starts `tracer bench serve ARGS` and waits until it answers.
    pub(super) async fn start(args: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program has no path")?;
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let mut child = Command::new(program)
                .args(["bench", "serve"])
                .args(&args)
                // The log of the command that is measured is no part of it.
                .env("TRACER__TELEMETRY__LOG_FILTER", "error")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start a server")?;
            let stdout = child.stdout.take().context("a pipe was asked for")?;
            // From here on whatever goes wrong ends the child.
            let mut server = Self {
                child,
                addr: String::new(),
            };
            for line in BufReader::new(stdout).lines() {
                if let Some(addr) = line?.strip_prefix(READY) {
                    addr.clone_into(&mut server.addr);
                    return Ok(server);
                }
            }
            bail!("a server ended before it was ready")
        })
        .await?
    }

    /// Processor seconds it has used so far; `None` where the system does not say.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name, in parentheses, may contain anything. Time in user and in
        // kernel mode are the 12th and the 13th field after it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
        Some((ticks(11)? + ticks(12)?) / TICKS)
    }

    /// Memory it holds, in MiB; `None` where the system does not say.
    pub(super) fn resident_mib(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its standard input ends, and it with that; kill makes sure of it.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
