import os

import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # workers side by side have one thread each
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Tables of sites are kept in a folder of this run, never in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
