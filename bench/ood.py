"""CLINC150's out-of-scope queries against the guard, and what it costs in coverage."""

import tempfile

import common

ALPHA = 0.95
FEATURES = {"auto": "dense and lexical", "dense": "dense", "lexical": "lexical"}
BUDGETS = (0.0, 0.02, 0.03, 0.05)


def options(parser):
    common.seeds_and_rows(5)(parser)
    parser.add_argument("--only", default="", help="candidates, separated by commas (all)")


def collect(args, results):
    with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
        files = common.files_per_seed(folder, ("clinc150",), args.seeds, args.rows)
        foreign = common.load("clinc150-oos").write(folder, "oos")
        jobs = [(s, f, b) for s in range(args.seeds) for f in FEATURES for b in BUDGETS]

        def work(job):
            seed, features, budget = job
            flags = ["--features", features, "--seed", str(seed), "--ood-budget", str(budget)]
            if args.only:
                flags += ["--only", args.only]
            roles = {**files["clinc150", seed], "ood": foreign}
            return job, common.backtest(roles, (ALPHA,), *flags, threads=1)

        def keep(result):
            (seed, features, budget), document = result
            run = document["runs"][0]
            results.add(
                {
                    "seed": seed,
                    "features": features,
                    "budget": budget,
                    "alpha": ALPHA,
                    "verdict": run["verdict"],
                    "family": run["family"],
                    "surrogate": run["surrogate"],
                    **{k: run["test"][k] for k in ("coverage", "agreement", "n")},
                    # A refit that ends before the gate has nothing to say of them.
                    "foreign": run.get("ood"),
                }
            )

        common.in_parallel(jobs, work, keep)


def show(document):
    runs = document["runs"]
    without = {(r["features"], r["seed"]): r["coverage"] for r in runs if r["budget"] == 0}
    rows = []
    for (features, budget), group in common.groups(runs, "features", "budget").items():
        shares = [r["foreign"]["handled"] / r["foreign"]["n"] for r in group if r["foreign"]]
        lost = [
            without[features, r["seed"]] - r["coverage"]
            for r in group
            if (features, r["seed"]) in without
        ]
        rows.append(
            [
                FEATURES[features],
                f"{budget:.0%}" if budget else "no guard",
                common.number(common.median(shares)),
                f"{min(shares):.3f}–{max(shares):.3f}" if shares else "–",
                common.number(common.median(r["coverage"] for r in group)),
                common.number(common.median(lost)) if budget else "",
                common.number(common.median(r["agreement"] for r in group)),
            ]
        )
    head = [
        "features",
        "budget",
        "out-of-scope handled",
        "range",
        "test coverage",
        "coverage lost",
        "test agreement",
    ]
    settings = document["settings"]
    return "\n\n".join(
        [
            f"α {ALPHA}, medians over {settings['seeds']} holdouts. Candidates: {settings['only'] or 'all'}.",
            common.table(head, rows),
            common.kept_line(runs),
        ]
    )


if __name__ == "__main__":
    common.program("ood", __doc__, collect, show, options)
