# SPDX-License-Identifier: Apache-2.0
"""Several processes in step: real ones, joined by gloo on this machine."""

import subprocess
import sys

import pytest
import torch

from bundle.pyraseg.core import first_to_fail, gather, process_count, process_rank, start_processes
from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.evaluation.scores import count_overlap, mean_dice, summarize
from bundle.pyraseg.networks.pspnet import PSPNet
from bundle.pyraseg.networks.torchvision_ops import import_with_torchvision
from bundle.pyraseg.training.parallel import CaseShare, distribute
from tests.helpers.commands import ROOT
from tests.helpers.two_processes import CASES, CLASSES, EPOCHS, LEARNING, Network, batches, cases

pytestmark = pytest.mark.slow


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program beside this file in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tests.helpers.two_processes", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict]:
    """Return what two processes leave behind."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


def learns(name: str, epoch: int) -> bool:
    return name.split(".")[0] in LEARNING[epoch]


@pytest.mark.slow
def test_parameters_and_statistics_are_identical_after_every_epoch(ranks):
    for kind in ("states", "averages"):
        first, second = (rank["training"][kind] for rank in ranks)
        for epoch in range(EPOCHS):
            assert all(torch.equal(value, second[epoch][name]) for name, value in first[epoch].items())


@pytest.mark.slow
def test_a_part_moves_in_the_epochs_in_which_it_learns(ranks):
    torch.manual_seed(0)
    states = [Network().state_dict(), *ranks[1]["training"]["states"]]
    for epoch in range(EPOCHS):
        for name, value in states[epoch + 1].items():
            # The head stands still in the last epoch: neither weights nor statistics may move.
            assert torch.equal(value, states[epoch][name]) == (not learns(name, epoch)), (epoch, name)


def test_the_mean_of_batch_norm_is_that_of_all_batches(ranks):
    """The body stands still in the first epoch, so what the head's batch norm sees there is known."""
    torch.manual_seed(0)
    network = Network().eval()
    mean = torch.zeros(4)
    with torch.no_grad():
        for batch in batches():
            mean = 0.9 * mean + 0.1 * network.body(batch).mean(dim=(0, 2, 3))
    torch.testing.assert_close(ranks[0]["training"]["states"][0]["head.0.running_mean"], mean)


def test_dropout_differs_between_processes_and_epochs(ranks):
    drawn = [number for rank in ranks for number in rank["training"]["drawn"]]
    assert len(set(drawn)) == 2 * EPOCHS


def test_the_score_of_an_odd_number_of_cases_is_that_of_one_process(ranks):
    counts = torch.stack([count_overlap(case["image"], case["label"], 3) for case in cases()])
    for rank in ranks:
        assert torch.equal(rank["evaluation"]["counts"], counts)
        assert rank["evaluation"]["score"] == torch.tensor(mean_dice(summarize(counts, CLASSES))).item()
    assert ranks[0]["evaluation"]["mine"] + ranks[1]["evaluation"]["mine"] == list(range(CASES))


def test_one_case_for_two_processes_counts_once(ranks):
    (case, *_) = cases()
    for rank in ranks:
        assert torch.equal(rank["one case"]["counts"][0], count_overlap(case["image"], case["label"], 3))
        assert len(rank["one case"]["counts"]) == 1


def test_the_second_takes_its_turn_after_the_first(ranks):
    assert [rank["turns"][0] for rank in ranks] == [[], ["turn_0"]]
    assert [rank["gathered"] for rank in ranks] == [["p0", "p1"]] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "message"), [("all", "There is no data."), ("second", "One case is broken.")])
def test_one_message_and_no_hang_where_processes_fail(tmp_path, fails, message):
    done = torchrun(str(tmp_path), fails)
    assert done.returncode != 0
    assert done.stderr.count(f"pyraseg: {message}") == done.stderr.count("pyraseg: ") == 1
    assert done.stderr.count("Traceback") == 1 and "ChildFailedError" in done.stderr  # torchrun's own
    assert list(tmp_path.iterdir()) == []


# --- in one process ---


@pytest.mark.parametrize("total", [0, 1, 2, 3, 5, 8, 17])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_of_the_cases_are_in_order_and_even(total, count):
    shares = [list(CaseShare(range(total), rank=rank, processes=count)) for rank in range(count)]
    together = [case for share in shares for case in share]
    assert together[:total] == list(range(total))
    assert set(together[total:]) <= {total - 1}
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert not total or min(map(len, shares)) >= 1  # all take part in what is gathered


def test_batch_norm_across_gpus_computes_the_same_and_keeps_the_names():
    options = {"encoder": "test_efficientnet", "pretrained": False, "output_stride": 32, "dropout": 0.0}
    network = PSPNet(**options).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before, names = network(image), list(network.state_dict())
        converted = import_with_torchvision("timm").layers.convert_sync_batchnorm(network)
        assert converted is network and list(network.state_dict()) == names
        assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in network.encoder.modules())
        torch.testing.assert_close(network(image), before)


def test_a_network_with_frozen_parts_is_not_distributed():
    network = Network()
    network.freeze("body")
    with pytest.raises(RuntimeError, match=r"4 parameters are frozen and would never be synchronized, as body\.0"):
        distribute(network)


def test_without_torchrun_the_message_names_it(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(PyrasegError, match="torchrun did not start this one"):
        start_processes("cpu")
    assert (process_rank(), process_count(), gather(3)) == (0, 1, [3])
    assert first_to_fail() and first_to_fail()
