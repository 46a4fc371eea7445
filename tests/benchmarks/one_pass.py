"""One pass of a learner over encoded arrays, for benchmarks that ask it questions afterwards."""

import time

import numpy as np

from ctr.data.examples import Chunk


def one_pass(learner, ids, numeric, labels, side=None):
    """Learns whole launches of ``labels`` float32[n] in order.

    Returns:
        float64[m], progressive predictions of the m <= n rows learned, and CPU us per row.
    """
    k, b = learner.chunk_shape
    probs = []
    start = time.process_time()
    for at in range(0, len(labels) - k * b + 1, k * b):
        part = slice(at, at + k * b)

        def shaped(x, part=part):
            return np.ascontiguousarray(x[part].reshape(k, b, *x.shape[1:]))

        chunk = Chunk(
            shaped(ids), shaped(numeric), shaped(labels[:, None]), np.ones((k, b), np.float32),
            {name: shaped(values) for name, values in (side or {}).items()},
        )  # fmt: skip
        probs.append(learner.learn(chunk).reshape(-1))
    cpu = time.process_time() - start
    prob = np.concatenate(probs).astype(np.float64)
    return prob, 1e6 * cpu / len(prob)


def log_loss(prob, labels):
    """Returns the mean log loss in nats."""
    return -(labels * np.log(prob) + (1 - labels) * np.log1p(-prob)).mean()
