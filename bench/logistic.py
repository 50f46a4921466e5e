"""The logistic solver and scikit-learn's lbfgs on the same rows in turn, to the same loss."""

import os
import re
import subprocess
import sys

import common

PROBLEM = re.compile(r"^(?P<problem>\w+): (?P<shape>.+), C (?P<c>[\d.]+), tolerance")
FIT = re.compile(
    r"^\s+(?P<who>tracer|scikit-learn)\s+(?P<seconds>[\d.]+) s \((?P<cpu>[\d.]+) s CPU\)\s+"
    r"(?P<steps>\d+) \w+\s+loss (?P<loss>[\d.]+)"
)


def options(parser):
    parser.add_argument("--rows", type=int, default=8000, help="the first so many (%(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="fits of each (%(default)s)")


def collect(args, results):
    problems = {"synthetic": {}}
    if not os.environ.get("TRACER_BENCH_DATA"):
        common.say("  banking77, clinc150: skipped, TRACER_BENCH_DATA is not set")
    else:
        for name in ("banking77", "clinc150"):
            problems[name] = {
                "LOGISTIC_X": str(common.data_path(f"{name}-traces.minilm.npy")),
                "LOGISTIC_TRACES": str(common.data_path(f"{name}-traces.jsonl")),
                "LOGISTIC_LEXICAL": "1",
            }
    for name, files in problems.items():
        for run in bench(name, args, files):
            results.add(run)


def bench(data, args, files):
    """Runs the solver's own benchmark, which starts scikit-learn after each fit."""
    common.say(f"  {data}")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOGISTIC_")} | {
        "LOGISTIC_SKLEARN": sys.executable,
        "LOGISTIC_ROWS": str(args.rows),
        "LOGISTIC_REPEAT": str(args.repeat),
        **files,
    }
    done = subprocess.run(
        ["cargo", "bench", "-q", "-p", "tracer-learn", "--bench", "logistic"],
        cwd=common.HERE.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"cargo bench failed with {done.returncode}")
    runs = list(parse(data, done.stdout))
    if not runs:
        sys.exit(f"cargo bench printed nothing this program understands:\n{done.stdout}")
    return runs


def parse(data, text):
    problem = None
    for line in text.splitlines():
        if found := PROBLEM.match(line):
            problem = found.groupdict()
        elif (found := FIT.match(line)) and problem:
            fit = found.groupdict()
            yield {
                "data": data,
                **problem,
                "who": fit["who"],
                "seconds": float(fit["seconds"]),
                "cpu_seconds": float(fit["cpu"]),
                "steps": int(fit["steps"]),
                "loss": float(fit["loss"]),
            }


def show(document):
    rows = []
    for (data, problem), group in common.groups(document["runs"], "data", "problem").items():
        by = {who: fits for (who,), fits in common.groups(group, "who").items()}
        ours = common.median(r["seconds"] for r in by["tracer"])
        for who, fits in by.items():
            seconds = common.median(r["seconds"] for r in fits)
            rows.append(
                [
                    data,
                    f"{problem}, {fits[0]['shape']}, C {fits[0]['c']}",
                    who,
                    common.number(seconds),
                    common.number(common.median(r["cpu_seconds"] for r in fits), 2),
                    fits[0]["steps"],
                    f"{fits[0]['loss']:.6f}",
                    f"{seconds / ours:.1f}×",
                ]
            )
    head = ["data", "problem", "who", "seconds", "CPU seconds", "steps", "loss", "time over ours"]
    return common.table(head, rows)


if __name__ == "__main__":
    common.program("logistic", __doc__, collect, show, options)
