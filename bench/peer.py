"""tracer-llm 0.3.3 and Tracer on the same rows in turn: time, memory, coverage."""

import json
import sys
import tempfile

import common

ALPHAS = (0.90, 0.95, 0.98)
DAY_ONE = 2001
# What each fit of the peer is set beside; the first is the one that counts.
OURS = {
    "Tracer": (),
    "Tracer, embeddings alone": ("--features", "dense"),
    "Tracer, guard off": ("--ood-budget", "0"),
}


def options(parser):
    parser.add_argument("--seed", type=int, default=0, help="of the holdout (%(default)s)")
    parser.add_argument("--rows", type=int, default=0, help="only the first so many of the data")
    parser.add_argument("--repeat", type=int, default=1, help="how often each is run (%(default)s)")
    parser.add_argument(
        "--data",
        default="day1,banking77,clinc150",
        help="which of them, separated by commas (%(default)s)",
    )


def jobs_of(name):
    """The sets of targets asked of one fit: each alone, and all at once. CLINC150 at
    the default target only: the peer takes minutes for each."""
    if name == "banking77":
        return [(a,) for a in ALPHAS] + [ALPHAS]
    return [(0.95,)]


def collect(args, results):
    with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
        for name in args.data.split(","):
            files = files_of(folder, name, args)
            for alphas in jobs_of(name):
                for turn in range(args.repeat):
                    for contestant in in_turn(turn):
                        common.say(f"  {name}, α {targets(alphas)}: {contestant}")
                        for run in fit(contestant, files, alphas):
                            results.add(
                                {"data": name, "targets": targets(alphas), "who": contestant, **run}
                            )


def files_of(folder, name, args):
    if name == "day1":
        data = common.load("banking77-traces", args.rows)
        day = min(DAY_ONE, len(data) // 2)
        train, test = data.first(day), data.last(day)
    elif name in ("banking77", "clinc150"):
        train, test = common.holdout(common.load(f"{name}-traces", args.rows), args.seed)
    else:
        sys.exit(f"--data {name}: expected day1, banking77 or clinc150")
    return {
        "traces": train.write(folder, f"{name}-train"),
        "test": test.write(folder, f"{name}-test"),
    }


def in_turn(turn):
    """Who goes first changes from turn to turn."""
    order = ["tracer-llm", *OURS]
    return order if turn % 2 == 0 else order[::-1]


def targets(alphas):
    return ", ".join(f"{a:.2f}" for a in alphas)


def fit(contestant, files, alphas):
    return peer(files, alphas) if contestant == "tracer-llm" else ours(contestant, files, alphas)


def peer(files, alphas):
    # It deploys, and so can be tested at, one target a fit: of several the middle one.
    target = alphas[len(alphas) // 2]
    command = [
        sys.executable,
        common.HERE / "peer_fit.py",
        *files["traces"],
        *files["test"],
        target,
        ",".join(map(str, alphas)),
    ]
    output, errors, took = common.measured(command)
    if took["code"] != 0:
        sys.exit(f"tracer-llm failed:\n{errors}")
    return [{"alpha": target, "process_seconds": took["seconds"], **json.loads(output)}]


def ours(contestant, files, alphas):
    document = common.backtest(files, alphas, *OURS[contestant])
    return [
        {
            "alpha": run["alpha"],
            "verdict": run["verdict"],
            "family": run["family"],
            "surrogate": run["surrogate"],
            **{k: run["test"][k] for k in ("coverage", "agreement", "n")},
            "fit_seconds": run["fit_seconds"],
            **{k: document["took"][k] for k in ("seconds", "cpu_seconds", "peak_mib")},
        }
        for run in document["runs"]
    ]


def show(document):
    runs = document["runs"]
    return "\n\n".join(
        [
            "Time is tracer.fit alone for tracer-llm (its imports and the test are left out), "
            "and the whole process for Tracer: reading, fitting, testing. Peak memory likewise.",
            times(runs),
            quality(runs),
        ]
    )


def times(runs):
    rows = []
    for (data, asked), group in common.groups(runs, "data", "targets").items():
        by = common.groups(group, "who")
        theirs = by.get(("tracer-llm",))
        for (who,), mine in by.items():
            middle = {k: common.median(r[k] for r in mine) for k in ("seconds", "cpu_seconds", "peak_mib")}
            ratio = "1×"
            if theirs and who != "tracer-llm":
                ratio = f"{common.median(r['seconds'] for r in theirs) / middle['seconds']:.1f}×"
            rows.append(
                [
                    data,
                    asked,
                    who,
                    common.number(middle["seconds"], 1),
                    common.number(middle["cpu_seconds"], 1),
                    ratio,
                    common.number(middle["peak_mib"], 0),
                ]
            )
    head = ["data", "α of one fit", "who", "seconds", "CPU seconds", "faster", "peak MiB"]
    return common.table(head, rows)


def quality(runs):
    rows = []
    # Alone or with others, an α gives the same pipeline: one row stands for both.
    for (data, alpha, who), group in common.groups(runs, "data", "alpha", "who").items():
        one = group[0]
        rows.append(
            [
                data,
                f"{alpha:.2f}",
                who,
                "refused" if one["verdict"] == "refused" else f"{one['family']}, {one['surrogate']}",
                common.number(one["coverage"]),
                common.number(one["agreement"]),
                "–" if one["agreement"] is None else "yes" if one["agreement"] >= alpha else "no",
            ]
        )
    head = ["data", "α", "who", "pipeline", "test coverage", "test agreement", "α reached"]
    return common.table(head, rows)


if __name__ == "__main__":
    common.program("peer", __doc__, collect, show, options)
