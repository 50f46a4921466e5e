"""Made-up traces: rows around one centre a class, and pairs of sentences."""

import json
from pathlib import Path

import numpy as np

CHUNK = 50_000
DIMENSIONS = 384
CLASSES = 77


def normalised(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def centres(generator):
    """One direction a class. Every second one lies close to the one before it, so
    that some pairs of classes are hard to tell apart and a refit has to defer."""
    x = normalised(generator.standard_normal((CLASSES, DIMENSIONS)))
    near = x[:-1:2] + 0.7 * normalised(generator.standard_normal((CLASSES // 2, DIMENSIONS)))
    x[1::2] = normalised(near)
    return x


def cluster_chunk(middle, chunk, n):
    """Chunk number `chunk`: the same rows whatever is asked for besides."""
    generator = np.random.default_rng([chunk, CLASSES])
    # A few classes have most of the traffic, as in life.
    share = 1 / np.arange(3, CLASSES + 3)
    classes = generator.choice(CLASSES, CHUNK, p=share / share.sum())
    # Some rows are far from their centre.
    strength = generator.uniform(0.22, 0.6, (CHUNK, 1))
    noise = generator.standard_normal((CHUNK, DIMENSIONS)) / np.sqrt(DIMENSIONS)
    x = normalised(strength * middle[classes] + noise).astype(np.float32)
    # The teacher is wrong now and then.
    wrong = generator.random(CHUNK) < 0.02
    labels = np.where(wrong, generator.integers(0, CLASSES, CHUNK), classes)
    words = generator.integers(0, 200, (CHUNK, 6))
    texts = [
        f"row {chunk * CHUNK + i} c{classes[i]} " + " ".join(f"w{w}" for w in words[i])
        for i in range(n)
    ]
    return x[:n], labels[:n], texts


def write_clusters(folder, rows, name="train", first=0):
    """Writes name.jsonl and name.npy a chunk at a time, so that memory stays small.
    The first rows of a longer file are those of a shorter one. `first` is the number
    of the first chunk: other numbers, other rows of the same classes."""
    traces, embeddings = Path(folder, f"{name}.jsonl"), Path(folder, f"{name}.npy")
    middle = centres(np.random.default_rng(CLASSES))
    out = np.lib.format.open_memmap(embeddings, "w+", np.float32, (rows, DIMENSIONS))
    with open(traces, "w", encoding="utf-8") as file:
        for begin in range(0, rows, CHUNK):
            n = min(CHUNK, rows - begin)
            x, labels, texts = cluster_chunk(middle, first + begin // CHUNK, n)
            out[begin : begin + n] = x
            file.writelines(trace(t, f"class_{y}") for t, y in zip(texts, labels))
    out.flush()
    return str(traces), str(embeddings)


def trace(text, label):
    return json.dumps({"input": text, "teacher": label}) + "\n"


def pairs(n, easy, seed):
    """Pairs of sentences and how the second relates to the first.

    A sentence is a random direction. The embedding of a pair is the two side by
    side. The label depends on the product of the two through a hidden rotation: no
    linear model sees that, and of a few thousand pairs a perceptron learns next to
    nothing. A tenth of the labels is noise. In a share `easy` of the pairs the second sentence
    carries a mark that gives the label away, as negations do in real inference data;
    these could be handled honestly.
    """
    generator = np.random.default_rng([seed, n])
    half = DIMENSIONS // 2
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((half, half)))[0]
    marks = normalised(np.random.default_rng(4).standard_normal((3, half)))
    premise = normalised(generator.standard_normal((n, half)))
    hypothesis = normalised(generator.standard_normal((n, half)))
    relation = np.einsum("ij,jk,ik->i", premise, rotation, hypothesis) * np.sqrt(half)
    # The thirds of a standard normal distribution.
    labels = np.digitize(relation, (-0.4307, 0.4307))
    marked = generator.random(n) < easy
    hypothesis[marked] = normalised(hypothesis[marked] + marks[labels[marked]])
    wrong = generator.random(n) < np.where(marked, 0.02, 0.1)
    labels = np.where(wrong, generator.integers(0, 3, n), labels)
    x = normalised(np.hstack([premise, hypothesis])).astype(np.float32)
    return x, labels


RELATIONS = ("contradiction", "neutral", "entailment")


def write_pairs(folder, name, n, easy, seed):
    """Writes name.jsonl and name.npy. The texts tell the rows apart and say nothing."""
    traces, embeddings = Path(folder, f"{name}.jsonl"), Path(folder, f"{name}.npy")
    x, labels = pairs(n, easy, seed)
    np.save(embeddings, x)
    with open(traces, "w", encoding="utf-8") as file:
        file.writelines(trace(f"{name} pair {i}", RELATIONS[y]) for i, y in enumerate(labels))
    return str(traces), str(embeddings)
