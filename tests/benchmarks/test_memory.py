# SPDX-License-Identifier: Apache-2.0
"""Peak memory of inference and validation does not grow with the number of classes; the benchmark measures it."""

import json

import numpy as np
import pytest

from benchmarks.memory import ROOT, SIDE, Measurement, differing, label_maps, main, write_series_of, write_weights

SLICES, FEW, MANY = 20, 5, 105
#: What one more class would take if all classes were held on the grid of the input, in MB.
OF_CLASS = 4 * SIDE**2 * SLICES / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inferring", "validating"])
def test_memory_does_not_grow_with_classes(tmp_path, kind):
    peaks, maps = {}, {}
    for classes in (FEW, MANY):
        folder = tmp_path / str(classes)
        write_series_of(folder, SLICES, classes)
        write_weights(folder / "model.pt", classes)
        measured = getattr(Measurement(ROOT, folder, folder / "model.pt", classes=classes, threads=1), kind)()
        peaks[classes] = measured["peak_mb"]
        maps[classes] = label_maps(folder, kind)
    assert peaks[MANY] - peaks[FEW] < 0.25 * OF_CLASS * (MANY - FEW), peaks
    if kind == "inferring":
        assert len(np.unique(maps[MANY]["new"])) > FEW  # the labels vary


def test_label_maps_are_compared_voxel_by_voxel():
    one = np.zeros((3, 4), np.uint8)
    other = one.copy()
    other[1, 2] = 7
    assert differing(one, other) == {"voxels": 12, "differ": 1, "classes": 1}
    with pytest.raises(Exception, match="cannot be compared"):
        differing(one, other[:2])


@pytest.mark.slow
def test_the_benchmark_measures_this_revision(tmp_path):
    output = tmp_path / "memory.json"
    sizes = ["--slices", "6", "--old-slices", "3", "--classes", "9", "--megapixels", "1"]
    main([*sizes, "--output", str(output)])
    report = json.loads(output.read_text(encoding="utf-8"))
    assert {(row["kind"], row.get("slices", row.get("megapixels"))) for row in report["rows"]} == {
        *((kind, count) for kind in ("inferring", "runtime", "validating") for count in (3, 6)),
        ("photograph", 1.0),
    }
    assert all(row["base_mb"] > 50 and row["peak_mb"] > 0 for row in report["rows"])
    assert [row["kind"] for row in report["labels"]] == ["inferring", "runtime"]
    assert all(row["differ"] == 0 and row["voxels"] == 2 * SIDE**2 for row in report["labels"])
