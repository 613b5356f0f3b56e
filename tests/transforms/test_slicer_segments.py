# SPDX-License-Identifier: Apache-2.0
"""Segmentations of 3D Slicer: names and codes decide, layers overlap by the same rule as those of a DICOM SEG."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.datalists.collecting import classes_present
from tests.helpers.labeled_images import F, load, nifti

AFFINE = np.array([[-2.0, 0, 0, 20], [0, 0, -3, 30], [0, 4, 0, -10], [0, 0, 0, 1]])  # coronal, to RAS mm
CODED = (
    "Segmentation.Status:inprogress|TerminologyEntry:Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^{type}~^^~Anatomic codes - DICOM master list~^^~^^|"
)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return nifti(np.zeros(F.shape, np.int16), AFFINE, tmp_path / "image.nii.gz")


def seg_nrrd(
    path: Path, layers: Sequence[np.ndarray], segments: Sequence[dict], start: Sequence[int] = (0, 0, 0)
) -> Path:
    """Write layers (W, H, D) as 3D Slicer does, their first voxel being one of the image's."""
    to_lps = np.diag([-1, -1, 1, 1]) @ AFFINE
    vectors = [f"({','.join(map(str, step))})" for step in to_lps[:3, :3].T]
    origin = ",".join(map(str, (to_lps @ [*start, 1])[:3]))
    several = len(layers) > 1
    voxels = np.stack(layers) if several else layers[0]
    lines = [
        "NRRD0004", "# Complete NRRD file format specification at:", "type: uint8", f"dimension: {voxels.ndim}",
        "space: left-posterior-superior", f"sizes: {' '.join(map(str, voxels.shape))}",
        f"space directions: {'none ' if several else ''}{' '.join(vectors)}",
        f"kinds: {'list ' if several else ''}domain domain domain", "encoding: raw", f"space origin: ({origin})",
    ]  # fmt: skip
    for number, segment in enumerate(segments):
        lines += [f"Segment{number}_{key}:={value}" for key, value in segment.items()]
    lines += ["Segmentation_MasterRepresentation:=Binary labelmap", f"Segmentation_ReferenceImageExtentOffset:={start}"]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + voxels.astype(np.uint8).tobytes(order="F"))
    return path


def segment(name: str, value: int, layer: int = 0, **more: str) -> dict:
    return {"ID": f"Segment_{name}", "Name": name, "LabelValue": value, "Layer": layer, **more}


def test_names_decide_and_not_values(image: Path, tmp_path: Path) -> None:
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [F], [segment("LIVER", 1), segment("spleen", 3)])
    assert np.array_equal(load(image, path)[1][0], np.select([F == 1, F == 3], [2, 1], 0))
    assert classes_present(path) == {"LIVER", "spleen"}


def test_other_names_codes_and_the_background(image: Path, tmp_path: Path) -> None:
    coded = segment("Segment_1", 1, Tags=CODED.format(type="10200004^Liver"))
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [F], [coded, segment("body", 3)])
    names = {"Liver": [["SCT", "10200004"]], "background": ["body"]}
    assert np.array_equal(load(image, path, label_names=names)[1][0], 2 * (F == 1))
    with pytest.raises(PyrasegError, match=r"has segments named \['Segment_1', 'body'\], .*'Segment_1' \(SCT 10200004"):
        load(image, path)


def test_layers_overlap_as_those_of_a_seg(image: Path, tmp_path: Path) -> None:
    whole, part = F > 0, F == 3
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [whole, part], [segment("Liver", 1), segment("lesion", 1, 1)])
    with pytest.raises(PyrasegError, match=rf"'Liver' and 'lesion' in {part.sum()} pixels overlap"):
        load(image, path)
    _, label = load(image, path, overlap_order=["Liver", "lesion"])
    assert np.array_equal(label[0], np.select([part, whole], [3, 2], 0))
    assert classes_present(path) == {"Liver", "lesion"}


def test_segments_without_values_are_layers(image: Path, tmp_path: Path) -> None:
    """As 3D Slicer wrote them before 2020."""
    segments = [{"ID": "a", "Name": "spleen"}, {"ID": "b", "Name": "Liver"}]
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [F == 3, F == 1], segments)
    assert np.array_equal(load(image, path)[1][0], np.select([F == 3, F == 1], [1, 2], 0))


@pytest.mark.parametrize("more", [0, 1])
def test_a_cropped_segmentation_goes_to_its_voxels(image: Path, tmp_path: Path, more: int) -> None:
    """It may also reach beyond the image, with nothing there."""
    segments = [segment("spleen", 1), segment("lesion", 3)]
    box = np.argwhere(F).min(axis=0) - more, np.argwhere(F).max(axis=0) + 1 + more
    padded = np.pad(F, 2)[tuple(slice(first + 2, end + 2) for first, end in zip(*box, strict=True))]
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [padded], segments, box[0].tolist())
    assert np.array_equal(load(image, path)[1][0], F)
    nameless = seg_nrrd(tmp_path / "b.seg.nrrd", [padded], [], box[0].tolist())
    assert np.array_equal(load(image, nameless)[1][0], F)


def test_voxels_beyond_the_image_are_not_lost(image: Path, tmp_path: Path) -> None:
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [F > 0], [segment("spleen", 1)], [0, 0, 1])
    lost = (F[..., -1] > 0).sum()
    with pytest.raises(PyrasegError, match=f"has {lost} voxels outside of its image"):
        load(image, path)


def test_half_a_voxel_beside_is_refused(image: Path, tmp_path: Path) -> None:
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [F > 0], [segment("spleen", 1)], [0.5, 0, 0])
    with pytest.raises(PyrasegError, match=r"0\.5 voxels beside its image"):
        load(image, path)


def test_what_the_header_does_not_name_is_refused(image: Path, tmp_path: Path) -> None:
    path = seg_nrrd(tmp_path / "a.seg.nrrd", [F], [segment("spleen", 1)])
    with pytest.raises(
        PyrasegError, match=rf"holds the values 3 \({(F == 3).sum()} voxels\), which its header does not"
    ):
        load(image, path)
    path = seg_nrrd(tmp_path / "b.seg.nrrd", [F], [segment("spleen", 1), segment("lesion", 3, 1)])
    with pytest.raises(PyrasegError, match="has 1 layers, and segment 'lesion' is in layer 1"):
        load(image, path)


def test_other_files_are_not_cropped(image: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(F[1:], AFFINE @ nib.affines.from_matvec(np.eye(3), [1, 0, 0])), tmp_path / "a.nii.gz")
    with pytest.raises(PyrasegError, match="another size than its image"):
        load(image, tmp_path / "a.nii.gz")
