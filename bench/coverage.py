"""Coverage and kept promises on random holdouts of Banking77 and CLINC150."""

import tempfile

import common

ALPHAS = (0.90, 0.95, 0.98)
DAY_ONE = 2001
FEATURES = {"auto": "dense and lexical", "lexical": "lexical"}
GUARDS = {"off": ("--ood-budget", "0"), "default": ()}


def collect(args, results):
    with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
        files = common.files_per_seed(folder, ("banking77", "clinc150"), args.seeds, args.rows)
        files.update(day_one_files(folder, args))
        jobs = [
            (data, seed, features, guard)
            for data, seed in files
            for features in FEATURES
            for guard in GUARDS
        ]

        def work(job):
            data, seed, features, guard = job
            options = ["--features", features, "--seed", str(seed), *GUARDS[guard]]
            if guard == "off":
                # It knows no guard: once a holdout is enough.
                options.append("--baseline")
            return job, common.backtest(files[data, seed], ALPHAS, *options, threads=1)

        def keep(result):
            for run in flat(*result):
                results.add(run)

        common.in_parallel(jobs, work, keep)


def day_one_files(folder, args):
    """The first traces of Banking77 as they arrived, tested on the last ones. The
    rows are the same for every seed; it varies the splits alone."""
    data = common.load("banking77-traces", args.rows)
    day = min(DAY_ONE, len(data) // 2)
    files = {
        "traces": data.first(day).write(folder, "day-one-train"),
        "test": data.last(day).write(folder, "day-one-test"),
    }
    return {(f"banking77, day 1 ({day:,} traces)", seed): files for seed in range(args.seeds)}


def flat(job, document):
    data, seed, features, guard = job
    hindsight = {b["alpha"]: b for b in document.get("baseline", [])}
    for run in document["runs"]:
        yield {
            "data": data,
            "seed": seed,
            "features": features,
            "guard": guard,
            "alpha": run["alpha"],
            "verdict": run["verdict"],
            "family": run["family"],
            "surrogate": run["surrogate"],
            "shadow": run["shadow"],
            **{k: run["test"][k] for k in ("coverage", "agreement", "n")},
            "baseline": hindsight.get(run["alpha"]),
        }


def show(document):
    runs = document["runs"]
    head = [
        "data",
        "features",
        "α",
        "test coverage, guard off",
        "at its default",
        "hindsight baseline",
        "test agreement, guard off",
        "at its default",
        "runs below α (surely)",
        "refused",
        "most often",
    ]
    rows = [
        row(*key, group) for key, group in common.groups(runs, "data", "features", "alpha").items()
    ]
    return "\n\n".join(
        [
            f"Medians over {document['settings']['seeds']} holdouts of 20 %, the range in brackets.",
            common.table(head, rows),
            common.kept_line(runs),
            *plot(runs),
        ]
    )


def row(data, features, alpha, group):
    guards = {guard: [r for r in group if r["guard"] == guard] for guard in GUARDS}
    hindsight = [r["baseline"]["coverage"] for r in group if r["baseline"]]
    refused, below, surely = common.kept(group)
    return [
        data,
        FEATURES[features],
        f"{alpha:.2f}",
        *(spread([r["coverage"] for r in runs]) for runs in guards.values()),
        common.number(common.median(hindsight)),
        *(common.number(common.median(r["agreement"] for r in runs)) for runs in guards.values()),
        f"{below} ({surely}) of {len(group)}",
        refused,
        most_common(pipeline(r) for r in group),
    ]


def spread(values):
    if not values:
        return "–"
    return f"{common.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def pipeline(run):
    if run["verdict"] == "refused":
        return "refused"
    return f"{run['family']}, {run['surrogate']}"


def most_common(names):
    names = list(names)
    return max(sorted(set(names)), key=names.count)


def plot(runs):
    """Coverage by α, as an SVG beside the results, where there is matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    data = list(common.groups(runs, "data"))
    figure = Figure(figsize=(4 * len(data), 3.5), layout="constrained")
    for axes, (name,) in zip(figure.subplots(1, len(data), squeeze=False)[0], data):
        lines = common.groups((r for r in runs if r["data"] == name), "features", "guard")
        for (features, guard), group in lines.items():
            points = common.groups(group, "alpha")
            axes.plot(
                [alpha for (alpha,) in points],
                [common.median(r["coverage"] for r in at) for at in points.values()],
                marker="o",
                label=f"{FEATURES[features]}, guard {guard}",
            )
        axes.set(title=name, xlabel="α", ylabel="test coverage", ylim=(0, 1.02))
        axes.legend(fontsize=7, loc="lower left")
    path = common.results_path("coverage").with_suffix(".svg")
    figure.savefig(path)
    return [f"Plot: {path}"]


if __name__ == "__main__":
    common.program("coverage", __doc__, collect, show, common.seeds_and_rows(5))
