# SPDX-License-Identifier: Apache-2.0
"""The phases of a series: what numbers them, and one of them read; values are compared with what was written."""

import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.dicom.frames import find_phases
from bundle.pyraseg.dicom.scan import find_series
from bundle.pyraseg.dicom.series import SeriesStream, read_series
from bundle.pyraseg.dicom.wanted import ChosenPath, read_phase
from tests.helpers.dicom_files import refusal, uid
from tests.helpers.phased import trigger_times, values, write_enhanced_cine, write_phases

#: What tells phases apart, the attribute that is to be found, and whether phase n is the n-th value of each place.
FORMS = {
    "cine, a heart rate for each place": (trigger_times, "TriggerTime", True),
    "cine, one heart rate": (lambda n, k: {"TriggerTime": 30.0 * n}, "TriggerTime", False),
    "cine, numbered alone": (
        lambda n, k: {"CardiacNumberOfImages": 4, "InstanceNumber": 4 * k + n + 1}, "InstanceNumber", True,
    ),
    "trigger delays": (
        lambda n, k: {"NominalCardiacTriggerDelayTime": n * (30.0 + k)}, "NominalCardiacTriggerDelayTime", True,
    ),
    "dynamic contrast": (
        lambda n, k: {"TemporalPositionIdentifier": n + 1, "AcquisitionNumber": 7, "TriggerTime": 3.0 * k + n},
        "TemporalPositionIdentifier", False,
    ),
    "acquisitions": (lambda n, k: {"AcquisitionNumber": 2 * n + 1}, "AcquisitionNumber", False),
    "times of the day": (
        lambda n, k: {"AcquisitionTime": f"0959{15 * n + k:02d}.250000", "AcquisitionNumber": 1},
        "AcquisitionTime", True,
    ),
    "b-values, each an acquisition": (
        lambda n, k: {"DiffusionBValue": 250.0 * n, "AcquisitionNumber": n}, "DiffusionBValue", False,
    ),
    "echoes": (lambda n, k: {"EchoTime": 1.15 * (n + 1), "EchoNumbers": n + 1}, "EchoTime", False),
}  # fmt: skip


def found_in(folder, select=None):
    (series,) = find_series(folder, keywords=select or ()).series
    return find_phases(series, select or {})


@pytest.mark.parametrize("form", FORMS)
def test_what_numbers_phases_is_found_and_each_is_read(tmp_path, form):
    of, keyword, ranked = FORMS[form]
    write_phases(tmp_path, of)
    phases = found_in(tmp_path)
    assert (phases.keyword, phases.ranked, len(phases), phases.incomplete) == (keyword, ranked, 4, ())
    for number in range(1, 5):
        image = read_series(tmp_path, phase=number)
        np.testing.assert_array_equal(image.pixels, values()[number - 1])
        assert image.phase == number
        chosen = read_series(ChosenPath(tmp_path, phase=str(number)))
        np.testing.assert_array_equal(chosen.pixels, image.pixels)
    message = refusal(tmp_path)
    assert "Segment one with --phase 1 to --phase 4, or each with --phase all" in message
    assert f"by {'the n-th ' * ranked}{keyword}" in message


def test_the_frames_of_an_enhanced_cine(tmp_path):
    path = write_enhanced_cine(tmp_path / "cine.dcm")
    phases = found_in(path)
    assert (phases.keyword, phases.ranked, len(phases)) == ("NominalCardiacTriggerDelayTime", True, 4)
    for number in range(1, 5):
        image = read_series(path, phase=number)
        np.testing.assert_array_equal(image.pixels, values()[number - 1])
        assert image.frame_numbers == tuple(4 * place + 5 - number for place in range(3))
    (series,) = find_series(path).series
    parts = phases.phases[2].by_file()
    files = [file.in_phase(3, parts[str(file)]) for file in series.found]
    stream = SeriesStream(files, select={"EchoTime": 9})  # the choice was made when the phase was found
    np.testing.assert_array_equal(list(stream.slices()), values()[2])


def test_an_incomplete_phase_is_named_and_read_with_a_warning(tmp_path, caplog):
    gaps = ((3, 1), (3, 2))
    write_phases(tmp_path, lambda n, k: {"TemporalPositionIdentifier": n + 1}, left_out=gaps)
    phases = found_in(tmp_path)
    assert [(phase.number, phase.missing) for phase in phases.incomplete] == [(4, 2)]
    assert "incomplete: 4 (2 slices missing)" in refusal(tmp_path)
    np.testing.assert_array_equal(read_series(tmp_path, phase=4).pixels, values()[3, :1])
    assert "phase 4 has no slice in 2 places" in caplog.text


def test_ranks_need_as_many_slices_in_each_place(tmp_path):
    """The third time in a place that lacks one is not the third phase."""
    write_phases(tmp_path, trigger_times, left_out=((1, 2),))
    with pytest.raises(PyrasegError, match="slices lie in 3 places"):
        found_in(tmp_path)


def test_a_step_in_the_trigger_times_is_told(tmp_path):
    late = {"TriggerTime": 900.0}
    write_phases(tmp_path, lambda n, k: late if (n, k) == (3, 1) else trigger_times(n, k))
    assert "a time seems to be missing beside" in str(found_in(tmp_path))


def test_a_rank_does_not_mix_kinds_of_images(tmp_path):
    """Two echoes at two times of the heart: by time they would be four phases, of two kinds."""
    write_phases(tmp_path, lambda n, k: {"EchoTime": 2.0 + n % 2, "TriggerTime": 10.0 * n + k})
    assert "--phase" not in refusal(tmp_path)
    chosen = {"EchoTime": 3}
    phases = found_in(tmp_path, chosen)
    assert (len(phases), phases.keyword) == (2, "TriggerTime")
    np.testing.assert_array_equal(read_series(tmp_path, select=chosen, phase=2).pixels, values()[3])


def test_positions_alone_are_believed_only_where_the_user_says_so(tmp_path):
    write_phases(tmp_path, lambda n, k: {**trigger_times(n, k), "FrameOfReferenceUID": uid(n, k)})
    given = "--select FrameOfReferenceUID=any"
    advice = f"Segment one with {given} --phase 1 to --phase 4, or each with {given} --phase all"
    assert advice in refusal(tmp_path, phase=2)
    found = read_series(tmp_path, select="FrameOfReferenceUID=any", phase=2)
    np.testing.assert_array_equal(found.pixels, values()[1])


def test_one_stack_is_phase_1(tmp_path):
    write_phases(tmp_path, lambda n, k: {}, pixels=values()[:1])
    assert found_in(tmp_path) is None
    np.testing.assert_array_equal(read_series(tmp_path, phase=1).pixels, values()[0])
    assert "has no phase 2: it has one stack" in refusal(tmp_path, phase=2)


def test_numbers_that_are_none(tmp_path):
    write_phases(tmp_path, trigger_times)
    assert "has no phase 5: it has 4 phases of the heart beat" in refusal(tmp_path, phase=5)
    assert "Give its number" in refusal(tmp_path, phase="all")
    for odd in ("0", "-1", "first", 1.5, True):
        with pytest.raises(PyrasegError, match="a number from 1 on, or all"):
            read_phase(odd)


def test_a_real_cine(real_data):
    """Twelve breath-holds; by the names of the files, which number the images place by place, phases are known."""
    folder = real_data / "mr_heart_dicom" / "images"
    select = {"FrameOfReferenceUID": "any"}
    phases = found_in(folder, select)
    assert (len(phases), phases.keyword, phases.ranked, phases.uneven) == (20, "TriggerTime", True, "")
    for phase in phases.phases:
        numbers = sorted(int(frame.file.stem) for frame in phase.frames)
        assert numbers == [phase.number + 20 * place for place in range(12)]
    image = read_series(folder, select=select, phase=8)
    assert image.pixels.shape == (12, 256, 256)
