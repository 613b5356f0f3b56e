# SPDX-License-Identifier: Apache-2.0
"""Counts against closed forms and published figures, and the page in docs/ against the networks as they are."""

import json

import pytest
import torch
from torch import nn

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg_tools.commands.network_table import (
    ENCODERS,
    HEADS,
    count,
    encoder_rows,
    main,
    network_rows,
    replace_between_markers,
    tables,
)
from tests.helpers.commands import ROOT

PAGE = ROOT / "docs" / "networks.md"
REPORT = ROOT / "benchmarks" / "results" / "networks_table.json"


@pytest.fixture(scope="module")
def report() -> dict:
    return json.loads(REPORT.read_text())


def test_counts_of_a_small_network_are_those_worked_by_hand():
    with torch.device("meta"):
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 5, padding=2, groups=8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        )
    assert count(network) == {
        "parameters": 8 * 27 + 16 + (8 * 25 + 8) + 90,
        "multiply_adds_224": (8 * 27 + 8 * 25) * 112**2 + 80,
        "multiply_adds_512": (8 * 27 + 8 * 25) * 256**2 + 80,
    }


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [  # torchvision's documentation of its own ImageNet weights: parameters and GFLOPS (multiply-adds) at 224
        ("resnet18", 11_689_512, 1.81),
        ("resnet50", 25_557_032, 4.09),
        ("resnet101", 44_549_160, 7.80),
        ("convnext_tiny", 28_589_128, 4.46),
        ("mobilenetv3_large_100", 5_483_032, 0.22),
        ("efficientnet_b0", 5_288_548, 0.39),
    ],
)
def test_whole_classifiers_are_as_published(report, name, parameters, multiply_adds):
    whole, *_ = (row for row in report["encoders"] if row["encoder"] == name)
    assert whole["parameters"] == parameters
    assert whole["multiply_adds_224"] / 1e9 == pytest.approx(multiply_adds, abs=0.006)


@pytest.mark.slow
def test_results_are_those_of_the_networks_as_they_are(report):
    for name in ("tf_efficientnet_lite0", "mobilenetv3_large_100"):
        assert [row for row in report["encoders"] if row["encoder"] == name] == encoder_rows(name)
        assert [row for row in report["networks"] if row["encoder"] == name] == network_rows(name)


def test_page_shows_the_results_and_every_pair(report):
    page = PAGE.read_text(encoding="utf-8")
    for table in tables(report).values():
        assert table in page
    pairs = {(row["encoder"], row["head"]) for row in report["networks"]}
    assert pairs == {(encoder, head) for encoder in ENCODERS for head in HEADS}


def test_only_what_is_between_the_markers_is_replaced():
    page = "before\n<!-- begin a -->\nold\n<!-- end a -->\nafter\n"
    assert replace_between_markers(page, "a", "new") == "before\n<!-- begin a -->\nnew\n<!-- end a -->\nafter\n"
    with pytest.raises(PyrasegError, match="begin b"):
        replace_between_markers(page, "b", "new")


def test_an_absent_page_is_refused(tmp_path):
    with pytest.raises(PyrasegError, match="no page"):
        main(["--page", str(tmp_path / "absent.md")])
