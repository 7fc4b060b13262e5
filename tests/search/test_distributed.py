import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from together import CASES

from search.distributed import Together, open_store

ROOT = Path(__file__).parent.parent.parent
PROCESSES = 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What each of two processes says of every case."""
    place = tmp_path_factory.mktemp("together") / "rank"
    store = open_store()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, together.__file__, str(rank), str(PROCESSES), str(store.port), place],
            env=environment,
        )
        for rank in range(PROCESSES)
    ]
    try:
        codes = [process.wait(120) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0, 0]
    return [torch.load(f"{place}-{rank}.pt") for rank in range(PROCESSES)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", [case for case in CASES if case != "wild"])
def test_two_processes_end_as_one_does(ended, case):
    curve, state, _, ending = together.trained(case)
    first = ended[0][case]
    assert first[3] == ending == "trained"
    assert len(first[0]) == len(curve) == (1 if "residual" in case else 2)
    for one, two in zip(curve, first[0], strict=True):
        assert two == pytest.approx(one, rel=2e-4, abs=2e-5)
    for name, tensor in state.items():
        torch.testing.assert_close(first[1][name], tensor, rtol=1e-3, atol=2e-5)


def test_batch_norms_are_those_of_the_whole_batch(ended):
    losses, state = together.stepped()
    for found in ended:
        assert found["stepped"][0] == pytest.approx(losses, rel=1e-6)
        for name, tensor in state.items():
            torch.testing.assert_close(found["stepped"][1][name], tensor, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_network(ended, case):
    one, other = (found[case] for found in ended)
    assert one[3] == other[3]
    for name, tensor in one[1].items():
        torch.testing.assert_close(other[1][name], tensor, rtol=0, atol=0, equal_nan=True)


def test_the_first_process_alone_reports_and_keeps(ended):
    assert [len(found["plain"][0]) for found in ended] == [2, 0]
    assert [found["plain"][2] for found in ended] == [1, 0]


def test_a_loss_that_is_no_number_ends_all_processes_at_once(ended):
    assert [found["wild"][3] for found in ended] == ["diverged", "diverged"]


def test_a_batch_that_cannot_be_shared_is_refused():
    batch = (torch.zeros(5, 1, 2, 2), torch.zeros(5), torch.zeros(5), 1.0)
    with pytest.raises(ValueError, match="5 images cannot be shared by 2 processes.*multiple of 2"):
        Together(0, 2).share(batch)


def test_shares_are_the_rows_of_the_batch_in_their_order():
    images, labels = torch.arange(6.0), torch.arange(6)
    shares = [Together(rank, 3).share((images, labels, labels.flip(0), 0.3)) for rank in range(3)]
    assert torch.cat([share[0] for share in shares]).tolist() == images.tolist()
    assert [share[2].tolist() for share in shares] == [[5, 4], [3, 2], [1, 0]]
    assert {share[3] for share in shares} == {0.3}
