"""What the benchmarks share: data, runs of the binary, results and tables."""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- Data ---------------------------------------------------------------------


@dataclass
class Rows:
    """Traces, a JSON line each, and their embeddings."""

    lines: list
    embeddings: np.ndarray

    def __len__(self):
        return len(self.lines)

    def take(self, which):
        return Rows([self.lines[i] for i in which], self.embeddings[which])

    def first(self, n):
        return Rows(self.lines[:n], self.embeddings[:n])

    def last(self, n):
        return Rows(self.lines[-n:], self.embeddings[-n:])

    def write(self, folder, name):
        """Writes name.jsonl and name.npy, and gives their paths."""
        traces, embeddings = Path(folder, f"{name}.jsonl"), Path(folder, f"{name}.npy")
        traces.write_text("\n".join(self.lines) + "\n", encoding="utf-8")
        np.save(embeddings, np.ascontiguousarray(self.embeddings, dtype=np.float32))
        return str(traces), str(embeddings)


def data_path(name):
    """The path of a file of data. Ends the program where it is not there."""
    path = Path(os.environ.get("TRACER_BENCH_DATA", ""), name)
    if not os.environ.get("TRACER_BENCH_DATA"):
        sys.exit("TRACER_BENCH_DATA is not set: start this with bench/run")
    if not path.is_file():
        sys.exit(f"{path} is missing: TRACER_BENCH_DATA must name a folder that has it")
    return path


def load(name, most=0):
    """Reads name.jsonl and name.minilm.npy, the first `most` rows where it is not 0."""
    traces = data_path(f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [line for line in traces if line.strip()]
    embeddings = np.load(data_path(f"{name}.minilm.npy"))
    if len(lines) != len(embeddings):
        sys.exit(f"{name}: {len(lines)} traces but {len(embeddings)} embeddings")
    rows = Rows(lines, embeddings)
    return rows.first(most) if most else rows


def holdout(rows, seed, share=0.2):
    """A random share of the rows as test; the rest in a random order of arrival."""
    order = np.random.default_rng(seed).permutation(len(rows))
    test = int(len(rows) * share)
    return rows.take(order[test:]), rows.take(order[:test])


def files_per_seed(folder, names, seeds, rows, train_rows=0):
    """Writes a holdout a data set and seed into `folder`; the files by (name, seed).
    A fifth of the rows is the test; more where only `train_rows` are to train on."""
    files = {}
    for name in names:
        data = load(f"{name}-traces", rows)
        share = max(0.2, 1 - train_rows / len(data)) if train_rows else 0.2
        for seed in range(seeds):
            train, test = holdout(data, seed, share)
            files[name, seed] = {
                "traces": train.write(folder, f"{name}-{seed}-train"),
                "test": test.write(folder, f"{name}-{seed}-test"),
            }
    return files


# --- Runs ---------------------------------------------------------------------


def measured(command, time_limit=0.0, threads=None):
    """Runs a command. Its standard output, and what it took."""
    environment = dict(os.environ)
    if threads:
        environment["RAYON_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
        taken = Path(folder, "taken.json")
        launcher = [sys.executable, "-I", str(HERE / "measured.py"), str(taken), str(time_limit)]
        done = subprocess.run(
            launcher + [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
        if not taken.exists():
            raise RuntimeError(f"{command[0]} could not be started: {done.stderr.decode()}")
        took = read_json(taken)
    return done.stdout.decode(), done.stderr.decode(), took


def backtest(files, alphas, *options, threads=None, time_limit=0.0):
    """`tracer backtest` on (traces, embeddings) files by role. Its document, with
    what the whole process took in `took`."""
    command = [os.environ["TRACER"], "backtest", "--json", "--alpha", ",".join(map(str, alphas))]
    for role, (traces, embeddings) in files.items():
        flag = "--embeddings" if role == "traces" else f"--{role}-embeddings"
        command += [f"--{role}", traces, flag, embeddings]
    output, errors, took = measured(command + list(options), time_limit, threads)
    if took["code"] != 0 and not took["timed_out"]:
        sys.exit(f"failed: {' '.join(map(str, command + list(options)))}\n{errors}")
    document = {"runs": []} if took["timed_out"] else json.loads(output)
    return {**document, "took": took}


def in_parallel(jobs, work, keep):
    """Runs `work` on each job, a core each, and hands each result to `keep`. For
    what is not timed: a refit uses two cores less well than two refits do."""
    started, total = time.monotonic(), len(jobs)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(work, jobs), 1):
            keep(result)
            left = (time.monotonic() - started) / done * (total - done)
            say(f"  {done} of {total}, about {left / 60:.0f} min to go")


# --- Results ------------------------------------------------------------------


class Results:
    """A benchmark's runs, written to disk after each."""

    def __init__(self, name, settings):
        self.path = results_path(name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.document = {"machine": machine(), "settings": settings, "runs": []}

    def add(self, run):
        self.document["runs"].append(run)
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(self.document, indent=1), encoding="utf-8")
        draft.replace(self.path)


def results_path(name):
    cache = os.environ.get("TRACER_BENCH_CACHE") or Path.home() / ".cache/tracer-bench"
    return Path(cache, "results", f"{name}.json")


def machine():
    def first(path, key):
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except OSError:
            return "unknown"
        return next((x.split(":", 1)[1].strip() for x in lines if x.startswith(key)), "unknown")

    def output(*command):
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=HERE).stdout.strip()
        except OSError:
            return ""

    return {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": first("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "commit": output("git", "rev-parse", "--short", "HEAD"),
        "binary": os.environ.get("TRACER", ""),
    }


def machine_line(document):
    m = document["machine"]
    return (
        f"{m['cores']} cores ({m['processor']}), {m['memory']}, load {m['load_before']:.1f} "
        f"before the start, commit {m['commit'] or 'unknown'}, {m['when']}."
    )


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value, digits=3):
    return "–" if value is None else f"{value:,.{digits}f}"


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def mean_and_error(values):
    """The mean and its standard error; of two values at least."""
    return statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))


def groups(runs, *keys):
    """Runs by the values of some of their keys, in order of appearance."""
    found = {}
    for run in runs:
        found.setdefault(tuple(run[k] for k in keys), []).append(run)
    return found


def surely_below(agreement, handled, alpha, level=0.05):
    """Whether so few agreements would be seen with probability below `level` if the
    true agreement were α: an exact binomial test. `agreement` of `handled` rows."""
    agreed = round(agreement * handled)
    if agreed >= alpha * handled:
        return False
    log = [
        math.lgamma(handled + 1)
        - math.lgamma(k + 1)
        - math.lgamma(handled - k + 1)
        + k * math.log(alpha)
        + (handled - k) * math.log1p(-alpha)
        for k in range(agreed + 1)
    ]
    top = max(log)
    return top + math.log(sum(math.exp(x - top) for x in log)) < math.log(level)


def kept(runs):
    """Of runs with `alpha`, `coverage`, `agreement` and `n`: how many were refused,
    how many have a test agreement below α, and how many surely."""
    passed = [r for r in runs if r["agreement"] is not None]
    below = [r for r in passed if r["agreement"] < r["alpha"]]
    surely = [
        r for r in below if surely_below(r["agreement"], round(r["coverage"] * r["n"]), r["alpha"])
    ]
    refused = sum(r["verdict"] == "refused" for r in runs)
    return refused, len(below), len(surely)


def kept_line(runs):
    refused, below, surely = kept(runs)
    return (
        f"Of {len(runs)} (run, α) pairs {refused} were refused; the test agreement is below α in "
        f"{below} ({below / max(1, len(runs)):.1%}), and below it by more than chance "
        f"(exact binomial test, 5 %) in {surely}."
    )


# --- The program --------------------------------------------------------------


def program(name, about, collect, show, add_options=lambda parser: None):
    """A benchmark's command line: measures, and prints the tables."""
    parser = argparse.ArgumentParser(prog=f"bench/run {name}", description=about)
    parser.add_argument("--show", action="store_true", help="print the last result again")
    add_options(parser)
    args = parser.parse_args()
    path = results_path(name)
    if not args.show:
        started = time.monotonic()
        settings = {k: v for k, v in vars(args).items() if k != "show"}
        collect(args, Results(name, settings))
        say(f"{name}: {(time.monotonic() - started) / 60:.1f} min; results in {path}")
    if not path.exists():
        sys.exit(f"{path} is missing: run bench/run {name} first")
    document = read_json(path)
    print(machine_line(document), end="\n\n")
    print(show(document))


def seeds_and_rows(seeds):
    """Options that most benchmarks have."""

    def add(parser):
        parser.add_argument("--seeds", type=int, default=seeds, help="random holdouts (%(default)s)")
        parser.add_argument("--rows", type=int, default=0, help="only the first so many of the data")

    return add
