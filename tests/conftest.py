import os

import torch

# The tensors of the tests are small: threads would only wait for each other. `make test` runs two workers instead.
torch.set_num_threads(int(os.environ.get("SYMSKEW_TEST_THREADS", "1")))
