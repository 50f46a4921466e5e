"""Time and peak memory of a refit as traces grow, and what an incremental one saves."""

import os
import shutil
import tempfile
from pathlib import Path

import common
import synthetic

ALPHA = 0.95
# Incremental refits are compared after each of so many equal parts of the traces.
BATCHES = 10
SIZES = "2000,10000,50000,200000,1000000"
TEST_ROWS = 10_000
# A row's embedding and its text and label in a trace, generously.
BYTES_A_ROW = 4 * synthetic.DIMENSIONS + 200


def options(parser):
    parser.add_argument("--sizes", default=SIZES, help="traces (%(default)s)")
    parser.add_argument(
        "--features", default="dense", choices=("auto", "dense", "lexical"), help="(%(default)s)"
    )
    parser.add_argument(
        "--time-limit", type=float, default=1200, help="seconds for one refit (%(default)s)"
    )
    parser.add_argument(
        "--incremental", default="20000", help="traces of the incremental refits (%(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of the incremental refits (%(default)s)")


def collect(args, results):
    sizes = sorted(int(n) for n in args.sizes.split(","))
    needed, free = max(sizes) * BYTES_A_ROW, shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.2 * needed:
        raise SystemExit(
            f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free; "
            f"{max(sizes):,} traces need {1.2 * needed / 1e9:.1f} GB: set TMPDIR, or --sizes"
        )
    uncapped = Uncapped(args.time_limit)
    for rows in sizes:
        with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
            common.say(f"  making {rows:,} traces")
            files = synthetic.write_clusters(folder, rows)
            common.say(f"  fitting {rows:,} traces")
            capped = fit(files, args, rows, folder)
            results.add({"what": "fit", "cap": "default", **capped})
            if capped["not_sampled"]:
                results.add({"what": "fit", "cap": "none", **uncapped.fit(files, args, rows, folder)})
            else:
                # No cap was reached, so none would have made no difference.
                uncapped.learn(capped)
    for data, folder_files in incremental_data(args):
        compare_incremental(data, folder_files, args, results)


def fit(files, args, rows, folder, *flags):
    """One `tracer fit`. The whole process counts: it reads, fits, writes."""
    traces, embeddings = files
    out = Path(folder, "out")
    command = [os.environ["TRACER"], "fit", "--traces", traces, "--embeddings", embeddings]
    command += ["--alpha", ALPHA, "--features", args.features, "--out", out, *flags]
    _, errors, took = common.measured(command, args.time_limit)
    run = {"traces": rows, **took}
    if took["timed_out"] or took["code"] not in (0, 1):
        return run | {"verdict": "timed out" if took["timed_out"] else f"ended with {took['code']}"}
    if not (out / "report.json").exists():
        raise SystemExit(f"tracer fit failed:\n{errors}")
    return run | report(out / "report.json", took["code"], rows)


def report(path, code, rows):
    document = common.read_json(path)
    trained, shadow = document["training_traces"], document["shadow"]
    return {
        "verdict": "refused" if code else "passed",
        "training_traces": trained,
        # A few rows are left out for other reasons, such as a label of their own.
        "not_sampled": trained + shadow["n"] < 0.99 * rows,
        "coverage": shadow["coverage"],
        "agreement_lower": shadow["agreement_lower"],
    }


class Uncapped:
    """Fits without the cap while time and memory are expected to do."""

    def __init__(self, time_limit):
        self.time_limit = time_limit
        self.last = None

    def learn(self, run):
        if run.get("verdict") in ("passed", "refused"):
            self.last = run

    def fit(self, files, args, rows, folder):
        if why := self.hopeless(rows):
            common.say(f"  {rows:,} traces without a cap: not tried, {why}")
            return {"traces": rows, "verdict": f"not tried: {why}"}
        common.say(f"  fitting {rows:,} traces without a cap")
        run = fit(files, args, rows, folder, "--max-fit-traces", "0")
        self.learn(run)
        return run

    def hopeless(self, rows):
        if self.last is None:
            return None
        factor = rows / self.last["traces"]
        seconds, mib = self.last["seconds"] * factor, self.last["peak_mib"] * factor
        memory = available_mib()
        if seconds > self.time_limit:
            return f"{seconds:,.0f} s expected of {self.time_limit:,.0f} s allowed"
        if mib > 0.9 * memory:
            return f"{mib:,.0f} MiB expected of {memory:,.0f} MiB there are"
        return None


def available_mib():
    """Memory that could be had without swapping (Linux)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/meminfo has no MemAvailable")


def incremental_data(args):
    """Names, and what writes the files of a seed into a folder."""
    for rows in (int(n) for n in args.incremental.split(",") if n):

        def synthetic_files(folder, seed, rows=rows):
            # Rows of its own for each seed, far behind those of any size.
            first = 1000 * (seed + 1)
            return {
                "traces": synthetic.write_clusters(folder, rows, "train", first),
                "test": synthetic.write_clusters(folder, TEST_ROWS, "test", first + 500),
            }

        yield f"synthetic, {rows:,}", synthetic_files
    if not os.environ.get("TRACER_BENCH_DATA"):
        common.say("  banking77: skipped, TRACER_BENCH_DATA is not set")
        return

    def banking_files(folder, seed):
        train, test = common.holdout(common.load("banking77-traces"), seed)
        return {"traces": train.write(folder, "train"), "test": test.write(folder, "test")}

    yield "banking77", banking_files


def compare_incremental(data, files_of, args, results):
    features = args.features if data.startswith("synthetic") else "auto"
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
            files = files_of(folder, seed)
            kinds = {"from scratch": (), "incremental": ("--incremental",)}
            # In turn, so that neither has the quieter machine.
            for kind in list(kinds) if seed % 2 == 0 else list(kinds)[::-1]:
                common.say(f"  {data}, seed {seed}: {kind}")
                flags = ["--batches", str(BATCHES), "--seed", str(seed)]
                flags += ["--features", features, *kinds[kind]]
                document = common.backtest(files, (ALPHA,), *flags, time_limit=args.time_limit)
                for run in document["runs"]:
                    results.add(
                        {
                            "what": "refit",
                            "data": data,
                            "kind": kind,
                            "seed": seed,
                            **{k: run[k] for k in ("batch", "traces", "alpha", "verdict")},
                            "seconds": run["fit_seconds"],
                            **{k: run["test"][k] for k in ("coverage", "agreement", "n")},
                        }
                    )


def show(document):
    runs = document["runs"]
    fits = [r for r in runs if r["what"] == "fit"]
    refits = [r for r in runs if r["what"] == "refit"]
    parts = [
        f"`tracer fit` at α {ALPHA} on rows × {synthetic.DIMENSIONS} × {synthetic.CLASSES}, "
        f"features {document['settings']['features']}; the whole process, reading included.",
        sizes_table(fits),
    ]
    if refits:
        parts += [
            f"Refits after each of {BATCHES} equal parts of the traces, medians over {document['settings']['seeds']} seeds:",
            refits_table(refits),
            common.kept_line(refits),
        ]
    return "\n\n".join(parts)


def sizes_table(runs):
    rows = []
    for run in runs:
        measured = "seconds" in run
        rows.append(
            [
                f"{run['traces']:,}",
                run["cap"],
                f"{run['training_traces']:,}" if "training_traces" in run else "–",
                common.number(run.get("seconds"), 1),
                common.number(run.get("cpu_seconds"), 1),
                common.number(run.get("peak_mib"), 0),
                common.number(1e6 * run["seconds"] / run["traces"], 0) if measured else "–",
                common.number(run.get("coverage")),
                run["verdict"],
            ]
        )
    head = [
        "traces",
        "cap",
        "trained on",
        "seconds",
        "CPU seconds",
        "peak MiB",
        "µs a trace",
        "shadow coverage",
        "verdict",
    ]
    return common.table(head, rows)


def refits_table(runs):
    rows = []
    for (data, batch), group in common.groups(runs, "data", "batch").items():
        by = {kind: runs for (kind,), runs in common.groups(group, "kind").items()}
        scratch, more = by.get("from scratch", []), by.get("incremental", [])
        seconds = [common.median(r["seconds"] for r in side) for side in (scratch, more)]
        rows.append(
            [
                data,
                f"{group[0]['traces']:,}",
                *(common.number(s, 2) for s in seconds),
                f"{seconds[0] / seconds[1]:.1f}×" if all(seconds) else "–",
                *(common.number(common.median(r["coverage"] for r in s)) for s in (scratch, more)),
                *(common.number(common.median(r["agreement"] for r in s)) for s in (scratch, more)),
            ]
        )
    head = [
        "data",
        "traces",
        "seconds from scratch",
        "incremental",
        "faster",
        "test coverage from scratch",
        "incremental",
        "test agreement from scratch",
        "incremental",
    ]
    return common.table(head, rows)


if __name__ == "__main__":
    common.program("growth", __doc__, collect, show, options)
