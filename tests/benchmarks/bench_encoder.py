"""Rows per CPU second of the encoder: 26 columns of 8-byte strings, plain and dictionary.

Run as ``python tests/benchmarks/bench_encoder.py [rows]``; the best of some rounds is printed.
"""

import sys
import time

import numpy as np
import pyarrow as pa

from ctr.encoding import Encoder
from ctr.hashing import fingerprint64
from ctr.schema import Feature, Label, Schema

N_COLUMNS = 26
ROUNDS = 7


def cpu_seconds(function):
    def once():
        start = time.process_time()
        function()
        return time.process_time() - start

    return min(once() for _ in range(ROUNDS))


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 65_536
    rng = np.random.default_rng(0)
    names = [f"C{i + 1}" for i in range(N_COLUMNS)]
    # Zipf ids, so that dictionaries are shorter than the column, as in click logs.
    plain = [pa.array([f"{x:08x}" for x in rng.zipf(1.2, n) & 0xFFFFFFFF]) for _ in names]
    holes = [pa.array(np.where(rng.random(n) < 0.1, "", np.array(a.to_pylist()))) for a in plain]
    encoder = Encoder(Schema("bench", tuple(map(Feature, names)), (Label("click"),)), 1 << 20)
    columns = {
        "plain": plain,
        "plain, 10 % empty": holes,
        "dictionary": [a.dictionary_encode() for a in plain],
    }
    for title, arrays in columns.items():
        batch = pa.RecordBatch.from_arrays(arrays, names=names)
        hashing = cpu_seconds(lambda arrays=arrays: [fingerprint64(a) for a in arrays])
        whole = cpu_seconds(lambda batch=batch: encoder.encode(batch))
        print(f"{title:>18}: hash {n / hashing:12,.0f} rows/s, encode {n / whole:12,.0f} rows/s")


if __name__ == "__main__":
    main()
