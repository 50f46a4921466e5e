"""Three-class inference on embeddings that can't carry it: refused, or the promise kept."""

import tempfile

import common
import synthetic

ALPHAS = (0.85, 0.90, 0.95)
TEST_ROWS = 5000


def options(parser):
    parser.add_argument("--seeds", type=int, default=5, help="sets of pairs (%(default)s)")
    parser.add_argument(
        "--sizes", default="2000,5000,10000", help="traces, separated by commas (%(default)s)"
    )
    parser.add_argument(
        "--easy", default="0,0.1,0.3", help="shares of pairs that give it away (%(default)s)"
    )


def collect(args, results):
    sizes = [int(n) for n in args.sizes.split(",")]
    shares = [float(e) for e in args.easy.split(",")]
    jobs = [(s, n, e) for s in range(args.seeds) for n in sizes for e in shares]

    def work(job):
        seed, n, easy = job
        with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
            files = {
                "traces": synthetic.write_pairs(folder, "train", n, easy, seed),
                "test": synthetic.write_pairs(folder, "test", TEST_ROWS, easy, 1000 + seed),
            }
            flags = ["--features", "dense", "--seed", str(seed)]
            return job, common.backtest(files, ALPHAS, *flags, threads=1)

    def keep(result):
        (seed, n, easy), document = result
        for run in document["runs"]:
            results.add(
                {
                    "seed": seed,
                    "traces": n,
                    "easy": easy,
                    "alpha": run["alpha"],
                    "verdict": run["verdict"],
                    "reason": run["reason"],
                    "family": run["family"],
                    "surrogate": run["surrogate"],
                    **{k: run["test"][k] for k in ("coverage", "agreement", "n")},
                }
            )

    common.in_parallel(jobs, work, keep)


def show(document):
    rows = []
    runs = document["runs"]
    for (easy, n, alpha), group in sorted(common.groups(runs, "easy", "traces", "alpha").items()):
        passed = [r for r in group if r["verdict"] == "passed"]
        refused, below, surely = common.kept(group)
        rows.append(
            [
                f"{easy:.0%}",
                f"{n:,}",
                f"{alpha:.2f}",
                f"{refused} of {len(group)}",
                common.number(common.median(r["coverage"] for r in passed)),
                common.number(common.median(r["agreement"] for r in passed)),
                common.number(min((r["agreement"] for r in passed), default=None)),
                f"{below} ({surely})",
            ]
        )
    head = [
        "easy pairs",
        "traces",
        "α",
        "refused",
        "coverage of the others",
        "test agreement",
        "least",
        "below α (surely)",
    ]
    settings = document["settings"]
    return "\n\n".join(
        [
            f"{settings['seeds']} sets of pairs, {TEST_ROWS:,} test pairs each.",
            common.table(head, rows),
            common.kept_line(runs),
        ]
    )


if __name__ == "__main__":
    common.program("nli", __doc__, collect, show, options)
