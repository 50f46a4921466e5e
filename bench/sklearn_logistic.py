"""scikit-learn's multinomial logistic regression (lbfgs) on X.npy and Y.npy.

    python bench/sklearn_logistic.py X.npy Y.npy [--c 10] [--loss L]

Prints one JSON line: seconds, processor seconds, iterations and the loss on the objective Tracer
minimises (scikit-learn's divided by C n). With --loss the iterations are bounded
by the least number that reaches that loss within 0.01 %, found by bisection
outside the clock: scikit-learn is not charged for iterations nobody asked for.
"""

import argparse
import json
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore", ConvergenceWarning)


def loss(model, x, y, c):
    scores = x.astype(np.float64) @ model.coef_.T + model.intercept_
    top = scores.max(axis=1)
    log_sum = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
    cross_entropy = (log_sum - scores[np.arange(len(y)), y]).mean()
    return cross_entropy + (model.coef_.astype(np.float64) ** 2).sum() / (2 * c * len(y))


def fit(x, y, c, iterations, tolerance):
    model = LogisticRegression(C=c, max_iter=iterations, tol=tolerance)
    started, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y)
    return model, time.perf_counter() - started, time.process_time() - cpu


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("x")
    parser.add_argument("y")
    parser.add_argument("--c", type=float, default=10.0)
    parser.add_argument("--loss", type=float)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--tol", type=float, default=1e-6)
    args = parser.parse_args()
    x, y = np.load(args.x), np.load(args.y)
    most = args.iterations
    if args.loss is not None:
        least, most = 1, 16
        while most < args.iterations and loss(
            fit(x, y, args.c, most, args.tol)[0], x, y, args.c
        ) > args.loss * 1.0001:
            least, most = most, 2 * most
        while most - least > max(1, most // 16):
            middle = (least + most) // 2
            if loss(fit(x, y, args.c, middle, args.tol)[0], x, y, args.c) > args.loss * 1.0001:
                least = middle
            else:
                most = middle
    model, seconds, cpu = fit(x, y, args.c, most, args.tol)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "iterations": int(model.n_iter_.max()),
                "loss": float(loss(model, x, y, args.c)),
            }
        )
    )


if __name__ == "__main__":
    main()
