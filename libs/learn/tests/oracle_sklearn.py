"""The losses that tests/oracle.rs expects of scikit-learn's solver.

    python libs/learn/tests/oracle_sklearn.py

makes the rows of `problem` in tests/oracle.rs and prints the loss at scikit-learn's
optimum, on the objective of `Logistic::fit`, for equal and for unequal row weights.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

N, D, K, C = 300, 8, 5, 2.0


def noise(i):
    z = (np.asarray(i, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


x = noise(np.arange(N * D)).reshape(N, D)
centres = noise(1_000_000 + np.arange(K * D)).reshape(K, D) * 2.0
y = (x @ centres.T + 0.5 * noise(2_000_000 + np.arange(N * K)).reshape(N, K)).argmax(axis=1)
for name, w in [("equal", np.ones(N)), ("unequal", 0.5 + np.arange(N) % 4)]:
    w = w / w.mean()
    m = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(x, y, sample_weight=w)
    s = x @ m.coef_.T + m.intercept_
    cross_entropy = np.log(np.exp(s).sum(axis=1)) - s[np.arange(N), y]
    print(name, (w * cross_entropy).mean() + (m.coef_**2).sum() / (2 * C * N))
