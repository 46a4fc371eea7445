import numpy as np
import pytest

from ctr.simulator import Simulated, WorldConfig, simulate_examples


@pytest.fixture(scope="session")
def config():
    return WorldConfig()


@pytest.fixture(scope="session")
def simulated(config) -> Simulated:
    return simulate_examples(240_000, 7, config)


@pytest.fixture(scope="session")
def truth(simulated) -> dict[str, np.ndarray]:
    return {name: simulated.truth[name].to_numpy() for name in simulated.truth.column_names}


@pytest.fixture(scope="session")
def labels(simulated, config) -> dict[str, np.ndarray]:
    return {x.name: simulated.examples[x.name].to_numpy() for x in config.labels}
