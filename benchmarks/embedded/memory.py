"""Whether the embedded TensorFlow Serving API keeps memory: a million requests, half of them over each protocol.

python -m benchmarks.embedded.memory [--requests 1000000] [--rate 3000]
"""

import argparse

import numpy as np
from scipy import stats

from benchmarks.embedded.split import PROTOCOLS, load
from infscale.deployment import deploy

SETTLED = 0.2
"""The share of the requests after which growth counts: caches and pools fill up before."""


def main() -> None:
    """Measure and print the resident memory after each part, and its growth per request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=3000)
    options = parser.parse_args()
    done, counts, sizes = 0, [], []
    scheme = {"rest": "http", "grpc": "grpc"}
    with deploy("tfserving", "mlp") as endpoint:
        pools = {p: endpoint.payload(p) for p in PROTOCOLS}
        while done < options.requests:
            for p in PROTOCOLS:
                url = f"{scheme[p]}://{endpoint.address(p)}{pools[p].path}"
                done += load(url, list(pools[p].bodies), dict(pools[p].headers), options.rate, 10.0, done)
            counts.append(done)
            sizes.append(sum(process.memory_info().rss for process in endpoint.processes()))
            print(f"{done:9,} requests: {sizes[-1] / 2**20:8.2f} MiB", flush=True)
    after = np.array(counts) >= SETTLED * options.requests
    fit = stats.linregress(np.array(counts)[after], np.array(sizes)[after])
    half = float(stats.t.ppf(0.975, after.sum() - 2) * fit.stderr)
    print(
        f"growth {fit.slope:.2f} bytes per request, 95 % interval ±{half:.2f}; the parts of a run are not independent"
    )


if __name__ == "__main__":
    main()
