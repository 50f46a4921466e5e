"""What each of the acceptor's cues adds, on random holdouts of Banking77 and CLINC150."""

import tempfile

import common

ALPHAS = (0.95, 0.98)
# The snake_case names of `Cue` in libs/learn/src/confidence.rs.
PAPER = ("top1", "top2", "margin", "entropy")
MORE = ("log_odds", "least_component", "components_agree", "reliability", "foreignness")
# Those that win with the whole pool as well; the rest of it costs time and changes nothing.
POOL = "dense_logistic,fused_logistic"


def cue_sets():
    every = PAPER + MORE
    sets = {"the paper's four": PAPER}
    sets |= {f"+ {cue}": (*PAPER, cue) for cue in MORE}
    sets["all nine"] = every
    sets |= {f"all − {cue}": tuple(c for c in every if c != cue) for cue in every}
    return sets


def options(parser):
    common.seeds_and_rows(10)(parser)
    parser.add_argument("--only", default=POOL, help="the pool (%(default)s)")
    parser.add_argument(
        "--train", type=int, default=4000, help="training rows, 0 for all but a fifth (%(default)s)"
    )
    parser.add_argument("--data", default="banking77,clinc150", help="(%(default)s)")


def collect(args, results):
    names = args.data.split(",")
    with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
        files = common.files_per_seed(folder, names, args.seeds, args.rows, args.train)
        # The sets innermost: if it is stopped early, whole seeds are there.
        jobs = [(d, s, label) for s in range(args.seeds) for d in names for label in cue_sets()]

        def work(job):
            data, seed, label = job
            flags = ["--only", args.only, "--seed", str(seed), "--cues", ",".join(cue_sets()[label])]
            return job, common.backtest(files[data, seed], ALPHAS, *flags, threads=1)

        def keep(result):
            (data, seed, label), document = result
            for run in document["runs"]:
                results.add(
                    {
                        "data": data,
                        "seed": seed,
                        "cues": label,
                        "alpha": run["alpha"],
                        "verdict": run["verdict"],
                        "family": run["family"],
                        "surrogate": run["surrogate"],
                        **{k: run["test"][k] for k in ("coverage", "agreement", "n")},
                    }
                )

        common.in_parallel(jobs, work, keep)


def show(document):
    runs, settings = document["runs"], document["settings"]
    columns = list(common.groups(runs, "data", "alpha"))
    rows = [
        [label] + [cell(runs, data, alpha, label) for data, alpha in columns]
        for (label,) in common.groups(runs, "cues")
    ]
    head = ["cues"] + [f"{data}, α {alpha:.2f}" for data, alpha in columns]
    train = f"{settings['train']:,} training rows" if settings["train"] else "80 % of the rows"
    return "\n\n".join(
        [
            f"Median test coverage over {settings['seeds']} holdouts ({train}, the others are the test); "
            "in brackets the mean difference to the paper's four on the same holdouts, in points, "
            f"± its standard error. Pool: {settings['only']}.",
            common.table(head, rows),
            common.kept_line(runs),
        ]
    )


def cell(runs, data, alpha, label):
    def coverage(cues):
        return {
            r["seed"]: r["coverage"]
            for r in runs
            if (r["data"], r["alpha"], r["cues"]) == (data, alpha, cues)
        }

    mine, paper = coverage(label), coverage("the paper's four")
    middle = common.number(common.median(mine.values()))
    gains = [100 * (mine[seed] - paper[seed]) for seed in mine if seed in paper]
    if label == "the paper's four" or len(gains) < 2:
        return middle
    mean, error = common.mean_and_error(gains)
    return f"{middle} ({mean:+.2f} ± {error:.2f})"


if __name__ == "__main__":
    common.program("ablation", __doc__, collect, show, options)
