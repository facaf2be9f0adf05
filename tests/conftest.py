import os
import signal
import socket

import pytest
import torch

# The tensors of the tests are small: threads would only wait for each other. `make test` runs two workers instead.
torch.set_num_threads(int(os.environ.get("SYMSKEW_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def tiny_scorers(tmp_path_factory):
    """Tiny weights of all published metrics, by name."""
    import scorers

    return scorers.weights(tmp_path_factory.mktemp("scorers"))


@pytest.fixture
def no_network(monkeypatch):
    """Whatever asks for a connection or a name is refused, and in this list."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError("no network in this test")

    for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        monkeypatch.setattr(owner, name, refuse)
    return asked


@pytest.fixture
def heard():
    """Ctrl-C is heard here and in processes begun here, also where a shell had it ignored: in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
