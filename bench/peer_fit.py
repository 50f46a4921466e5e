"""One fit of tracer-llm, and its router on test rows.

    python peer_fit.py TRACES EMBEDDINGS TEST TEST_EMBEDDINGS TARGET FRONTIER

Its defaults, but for gradient boosting, which takes hours on 77 classes. Prints one
JSON line. The clock and the peak memory are those of tracer.fit alone: they leave
out the imports and the routing of the test rows.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tracer
from tracer.api import fit, load_router
from tracer.config import FitConfig
from tracer.policy.artifacts import load_pipeline


def main():
    traces, embeddings, test, test_embeddings, target, frontier = sys.argv[1:]
    config = FitConfig(
        target_teacher_agreement=float(target),
        frontier_targets=tuple(float(a) for a in frontier.split(",")),
        skip_candidates=("gbt",),
        verbose=False,
    )
    x = np.load(embeddings)
    with tempfile.TemporaryDirectory(prefix="tracer-bench.") as folder:
        started, cpu = time.perf_counter(), time.process_time()
        result = fit(traces, folder, embeddings=x, config=config)
        taken = {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        chosen = result.manifest.selected_method
        scored = score(load_router(folder), test, np.load(test_embeddings)) if chosen else refusal(test)
        surrogate = surrogate_of(folder) if chosen else None
    print(
        json.dumps(
            {
                "version": tracer.__version__,
                "verdict": "passed" if chosen else "refused",
                "family": chosen,
                "surrogate": surrogate,
                **scored,
                **taken,
            }
        )
    )


def surrogate_of(folder):
    stages = load_pipeline(Path(folder))["pipeline"]["stages"]
    return "+".join(stage["model_name"] for stage in stages)


def labels_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["teacher"] for line in file if line.strip()]


def score(router, test, x):
    teacher, routed = labels_of(test), router.predict_batch(x)
    handled = [i for i, h in enumerate(routed["handled"]) if h]
    agreed = sum(routed["labels"][i] == teacher[i] for i in handled)
    return {
        "coverage": len(handled) / len(teacher),
        "agreement": agreed / len(handled) if handled else None,
        "n": len(teacher),
    }


def refusal(test):
    return {"coverage": 0.0, "agreement": None, "n": len(labels_of(test))}


if __name__ == "__main__":
    main()
