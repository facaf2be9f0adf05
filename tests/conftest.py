import os

import pytest
import torch

# The tensors of the tests are small: threads would only wait for each other. `make test` runs two workers instead.
torch.set_num_threads(int(os.environ.get("SYMSKEW_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def tiny_scorers(tmp_path_factory):
    """Tiny weights of all published metrics, by name."""
    import scorers

    return scorers.weights(tmp_path_factory.mktemp("scorers"))
