# SPDX-License-Identifier: Apache-2.0
"""What the writers write about a letter F and about the phantom lies where the image files say.

The truth is made of the files by pydicom and the formula of PS3.3 C.7.6.2.1.1 alone; the results are read by highdicom,
dcmqi, trimesh and plain pydicom.
"""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import highdicom as hd
import itk
import numpy as np
import pydicom
import pytest
import torch
import trimesh
from monai.data import MetaTensor
from monai.transforms import LoadImage
from scipy.spatial import cKDTree
from skimage.measure import grid_points_in_poly

from bundle.pyraseg.core.errors import PyrasegError
from bundle.pyraseg.inference.algorithm import Algorithm
from bundle.pyraseg.inference.prediction import Prediction
from bundle.pyraseg.inference.sources import SourceImages
from bundle.pyraseg.inference.writers.mesh import MeshWriter
from bundle.pyraseg.inference.writers.segmentation import SegmentationWriter
from bundle.pyraseg.inference.writers.structure_set import StructureSetWriter
from bundle.pyraseg.inference.writers.volumes import VolumeTable
from bundle.pyraseg.labels.seg_writer import SegmentClass
from bundle.pyraseg.transforms.label import LoadLabeld
from bundle.pyraseg.transforms.reader import MedicalImageReader
from bundle.pyraseg_tools.datasets.phantom.cases import PLANS, phantom_case
from bundle.pyraseg_tools.datasets.phantom.dicom_writer import write_series as write_phantom
from tests.helpers.dicom_files import write_series
from tests.transforms.test_round_trip import PATIENT, STACKS, letter_f

NAMES = ["background", "liver", "lesion", "spleen", "kidney"]
TERMINOLOGY = {
    "liver": {"type": ["10200004", "SCT", "Liver"]},
    "lesion": {
        "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
        "type": ["52988006", "SCT", "Lesion"],
        "region": ["10200004", "SCT", "Liver"],
        "modifier": ["24028007", "SCT", "Right"],
    },
    "spleen": {"type": ["78961009", "SCT", "Spleen"]},
    "kidney": {"type": ["64033007", "SCT", "Kidney"]},
}
SPACING = (0.9, 0.7)
PHANTOMS = {plan: next(i for i, p in enumerate(PLANS) if plan in p.traits) for plan in
            ("reversed", "oblique", "wide", "tilted", "multiframe", "jpeg2000")}  # fmt: skip


@dataclass
class Case:
    """A prediction, and the truth about it from the files: for each slice and class the centers of its voxels."""

    prediction: Prediction
    frames: dict[tuple[str, int], np.ndarray]  # by SOP instance UID and frame, (rows, columns) label values
    planes: dict[tuple[str, int], tuple[np.ndarray, ...]]  # position, vector to the next row, to the next column

    def points(self, value: int) -> np.ndarray:
        """Return the voxel centers of a class, (n, 3) LPS mm."""
        found = []
        for key, labels in self.frames.items():
            position, down, right = self.planes[key]
            rows, columns = np.nonzero(labels == value)
            found.append(position + rows[:, None] * down + columns[:, None] * right)
        return np.concatenate(found)


def make_case(folder: Path, labels_of: Callable[[int], np.ndarray], out: Path) -> Case:
    """Read a series with our reader, as inference does, and put on each slice the labels of its InstanceNumber."""
    frames, planes = {}, {}
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        shared = dataset.get("SharedFunctionalGroupsSequence")
        for index in range(int(dataset.get("NumberOfFrames", 1))):
            place = spacing = orientation = dataset
            number = dataset.InstanceNumber
            if shared:
                place = dataset.PerFrameFunctionalGroupsSequence[index].PlanePositionSequence[0]
                spacing, orientation = shared[0].PixelMeasuresSequence[0], shared[0].PlaneOrientationSequence[0]
                number = index + 1
            cosines = np.reshape(orientation.ImageOrientationPatient, (2, 3)).astype(float)
            key = (str(dataset.SOPInstanceUID), index + 1)
            position = np.array(place.ImagePositionPatient, float)
            planes[key] = (position, cosines[1] * spacing.PixelSpacing[0], cosines[0] * spacing.PixelSpacing[1])
            frames[key] = labels_of(int(number) - 1)
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(folder)
    uids = {str(path): str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir()}
    keys = zip((uids[file] for file in image.meta["files"]), image.meta["frame_numbers"], strict=True)
    slices = np.stack([frames[key] for key in keys])
    labels = MetaTensor(torch.from_numpy(slices.T.copy())[None], meta=image.meta)
    return Case(Prediction("case", out / "case", labels, image), frames, planes)


def letters() -> np.ndarray:
    """Return the letter F as class 1 with a hole, and a block of class 3 at the border; classes 2 and 4 are missing."""
    labels = letter_f()[:, ::2, ::2].astype(np.uint8)
    labels[:, 20:24, 8:14] = 0
    labels[:, 50:72, 40:56] = 3
    return labels


@pytest.fixture(scope="module", params=[*STACKS, *PHANTOMS])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    if request.param in STACKS:
        orientation, step = STACKS[request.param]
        labels = letters()
        where = {"orientation": orientation, "slice_step": step, "origin": (-31.5, 42.25, 100.75)}
        write_series(folder / "in", labels.astype(np.int16), **where, spacing=SPACING, SliceThickness=4, **PATIENT)
    else:
        phantom = phantom_case(1, PHANTOMS[request.param], size=96)
        labels = phantom.labels
        write_phantom(folder / "in", phantom, seed=1, number=1)
    return make_case(folder / "in", lambda number: labels[number], folder)


@pytest.fixture(scope="module")
def algorithm(tmp_path_factory: pytest.TempPathFactory) -> Algorithm:
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    weights.write_bytes(b"weights")
    return Algorithm(name="Pyraseg", model_file=weights)


def segmentation_writer(algorithm: Algorithm, **options: bool) -> SegmentationWriter:
    sources = SourceImages(complete_headers=options.get("complete_headers", False))
    return SegmentationWriter(class_names=NAMES, terminology=TERMINOLOGY, algorithm=algorithm, sources=sources)


def structure_set_writer(algorithm: Algorithm) -> StructureSetWriter:
    return StructureSetWriter(class_names=NAMES, algorithm=algorithm, sources=SourceImages(complete_headers=False))


def complaints(path: Path) -> list[str]:
    """Return the errors that dciodvfy reports."""
    assert shutil.which("dciodvfy"), "dicom3tools is not installed"
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert "Segmentation" in done.stderr or "RTStructureSet" in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def assert_same_points(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert len(ours) == len(theirs)
    if len(ours):
        distances, partners = cKDTree(theirs).query(ours)
        assert distances.max() < 2e-3 and len(set(partners.tolist())) == len(ours)


def test_segmentation(case: Case, algorithm: Algorithm) -> None:
    (path,) = segmentation_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    segmentation = hd.seg.segread(path)
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == NAMES[1:]
    uids = sorted({uid for uid, _ in case.frames})
    if len(uids) > 1:
        pixels = segmentation.get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        expected = [case.frames[uid, 1] for uid in uids]
    else:
        numbers = sorted(number for _, number in case.frames)
        pixels = segmentation.get_pixels_by_source_frame(
            uids[0], numbers, combine_segments=True, ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )  # fmt: skip
        expected = [case.frames[uids[0], number] for number in numbers]
    np.testing.assert_array_equal(pixels, expected)
    readers = [points_by_pydicom] if is_tilted(case) else [points_by_pydicom, points_by_dcmqi]
    for read in readers:
        found = read(path)
        for value in range(1, len(NAMES)):
            assert_same_points(case.points(value), found.get(value, np.empty((0, 3))))


def is_tilted(case: Case) -> bool:
    """Return whether the stack is sheared, which no ITK image can be, and so nothing that dcmqi writes."""
    return case.prediction.geometry.is_tilted


def points_by_pydicom(path: Path) -> dict[int, np.ndarray]:
    """Return the voxel centers of every segment by the places of its frames."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    found: dict[int, list[np.ndarray]] = {}
    for group, mask in zip(dataset.PerFrameFunctionalGroupsSequence, dataset.pixel_array, strict=True):
        rows, columns = np.nonzero(mask)
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        points = position + rows[:, None] * column * spacing[0] + columns[:, None] * row * spacing[1]
        found.setdefault(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber, []).append(points)
    return {number: np.concatenate(points) for number, points in found.items()}


def points_by_dcmqi(path: Path) -> dict[int, np.ndarray]:
    """Return the voxel centers of every segment as dcmqi and ITK see them."""
    with TemporaryDirectory() as folder:
        command = ["segimage2itkimage", "--inputDICOM", str(path), "--outputDirectory", folder, "-t", "nrrd"]
        subprocess.run(command, check=True, capture_output=True)
        found = {}
        for file in Path(folder).glob("*.nrrd"):
            image = itk.imread(file)
            to_mm = np.asarray(image.GetDirection()) * np.asarray(image.GetSpacing())
            indices = np.argwhere(itk.array_from_image(image))[:, ::-1]
            found[int(file.stem)] = np.asarray(image.GetOrigin()) + indices @ to_mm.T
    return found


def test_structure_set(case: Case, algorithm: Algorithm) -> None:
    (path,) = structure_set_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    dataset = pydicom.dcmread(path)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == NAMES[1:]
    for value, roi in enumerate(dataset.ROIContourSequence, 1):
        assert roi.ReferencedROINumber == value
        truth = {key: labels == value for key, labels in case.frames.items()}
        found = {key: np.zeros(mask.shape, int) for key, mask in truth.items()}
        for contour in roi.get("ContourSequence", []):
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            image = contour.ContourImageSequence[0]
            key = (str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber", 1)))
            position, down, right = case.planes[key]
            offsets = np.reshape(contour.ContourData, (-1, 3)).astype(float) - position
            polygon = np.stack([offsets @ step / (step @ step) for step in (down, right)], axis=1)
            in_plane = polygon[:, :1] * down + polygon[:, 1:] * right
            np.testing.assert_allclose(offsets, in_plane, atol=2e-4)  # the contour lies in its image
            found[key] += grid_points_in_poly(truth[key].shape, polygon)
        ours, theirs = (np.stack([masks[key] for key in truth]) for masks in (truth, found))
        theirs = theirs % 2 == 1
        assert ours.any() == bool(roi.get("ContourSequence"))
        if ours.any():
            assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.99
            centroids = [np.argwhere(mask).mean(axis=0)[1:] for mask in (ours, theirs)]
            assert np.abs(centroids[0] - centroids[1]).max() < 0.1
    item = {"image": case.prediction.original, "label": path}
    ours = LoadLabeld("label", class_names=NAMES)(item)["label"]
    assert torch.equal(ours.as_tensor(), case.prediction.labels.as_tensor())  # and our own reader agrees


@pytest.mark.parametrize("suffix", ["stl", "ply"])
def test_mesh(case: Case, suffix: str) -> None:
    written = MeshWriter(class_names=NAMES, format=suffix)(case.prediction)
    found = [value for value in range(1, len(NAMES)) if len(case.points(value))]
    assert [path.name for path in written] == [f"case_{NAMES[value]}.{suffix}" for value in found]
    positions = np.array([position for position, *_ in case.planes.values()])
    _, down, right = next(iter(case.planes.values()))
    normal = np.cross(right, down)
    heights = np.sort(positions @ normal / np.linalg.norm(normal))
    voxel = np.linalg.norm(normal) * np.diff(heights).mean()
    for value, path in zip(found, written, strict=True):
        mesh, points = trimesh.load(path), case.points(value)
        assert mesh.is_watertight and mesh.is_winding_consistent
        assert mesh.volume == pytest.approx(len(points) * voxel, rel=0.02) and mesh.volume > 0
        off = np.abs(mesh.center_mass - points.mean(axis=0)).max()
        assert off < 0.1 * max(np.linalg.norm(right), np.diff(heights).mean())


def test_volumes(case: Case, tmp_path: Path) -> None:
    table = VolumeTable(output_dir=tmp_path, class_names=NAMES)
    _, down, right = next(iter(case.planes.values()))
    normal = np.cross(right, down)
    heights = np.sort([position @ normal / np.linalg.norm(normal) for position, *_ in case.planes.values()])
    for value, row in enumerate(table.measure(case.prediction), 1):
        count = len(case.points(value))
        assert row["voxels"] == count
        expected = count * np.linalg.norm(normal) * np.diff(heights).mean() / 1000
        assert float(row["volume_ml"]) == pytest.approx(expected, abs=1e-3)


def test_nothing_found_is_an_explicit_result(algorithm: Algorithm, tmp_path: Path) -> None:
    labels = np.zeros((3, 20, 24), np.int16)
    write_series(tmp_path / "in", labels, SliceThickness=1, **PATIENT)
    case = make_case(tmp_path / "in", lambda number: labels[number].astype(np.uint8), tmp_path)
    (path,) = segmentation_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    segmentation = hd.seg.segread(path)
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == NAMES[1:]
    assert not segmentation.pixel_array.any() and segmentation.NumberOfFrames == 3 * (len(NAMES) - 1)
    (path,) = segmentation_writer(algorithm)(case.prediction)
    assert pydicom.dcmread(path).SOPInstanceUID != segmentation.SOPInstanceUID  # another run, another result
    (path,) = structure_set_writer(algorithm)(case.prediction)
    assert complaints(path) == []
    assert [roi.ROIName for roi in pydicom.dcmread(path).StructureSetROISequence] == NAMES[1:]
    rows = VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(case.prediction)
    assert [(row["class"], row["voxels"], float(row["volume_ml"])) for row in rows] == [(n, 0, 0) for n in NAMES[1:]]
    stale = tmp_path / "case_liver.stl"
    stale.write_bytes(b"from a run before")
    assert MeshWriter(class_names=NAMES)(case.prediction) == [] and not stale.exists()


def test_the_header_says_what_segmented_what(case: Case, algorithm: Algorithm) -> None:
    (path,) = segmentation_writer(algorithm)(case.prediction)
    segmentation = pydicom.dcmread(path)
    lesion = segmentation.SegmentSequence[1]
    kind = lesion.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue) == ("52988006", "24028007")
    assert lesion.AnatomicRegionSequence[0].CodeValue == "10200004"
    identification = lesion.SegmentationAlgorithmIdentificationSequence[0]
    assert identification.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert identification.AlgorithmName == "Pyraseg"
    assert identification.AlgorithmVersion.endswith("weights 9a129038d9a0")  # sha256sum of "weights"
    referenced = segmentation.ReferencedSeriesSequence[0]
    source = pydicom.dcmread(case.prediction.source_files[0], stop_before_pixels=True)
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == {
        uid for uid, _ in case.frames
    }


def test_uneven_slices(tmp_path: Path) -> None:
    """A slice is missing: its neighbors stand for the gap, and the mesh is as large as they are."""
    labels = np.zeros((6, 24, 20), np.uint8)
    labels[:, 6:18, 5:15] = 1
    heights = [0, 2, 4, 8, 10, 12]
    for k, height in enumerate(heights):
        write_series(tmp_path / "in", labels[k : k + 1].astype(np.int16), origin=(0, 0, height), names=[f"{k}.dcm"],
                     InstanceNumber=k + 1)  # fmt: skip
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    assert case.prediction.slice_widths.tolist() == [2, 2, 3, 3, 2, 2]
    assert case.prediction.volumes[1] == 120 * 14
    (path,) = MeshWriter(class_names=NAMES)(case.prediction)
    assert trimesh.load(path).volume == pytest.approx(120 * 14, rel=0.02)


def test_a_lone_slice_has_no_volume(tmp_path: Path) -> None:
    labels = np.ones((1, 8, 9), np.uint8)
    write_series(tmp_path / "in", labels.astype(np.int16), SliceThickness=5)
    case = make_case(tmp_path / "in", lambda number: labels[number], tmp_path)
    rows = VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(case.prediction)
    assert (rows[0]["voxels"], rows[0]["volume_ml"]) == (72, "")
    assert MeshWriter(class_names=NAMES)(case.prediction) is None


def test_incomplete_headers(algorithm: Algorithm, tmp_path: Path) -> None:
    labels = letters()
    missing = {"StudyInstanceUID": None, "SeriesInstanceUID": None, "SOPClassUID": None, "FrameOfReferenceUID": None}
    write_series(tmp_path / "in", labels.astype(np.int16), slice_step=4.0, SliceThickness=4, meta=False,
                 per_slice=lambda k: {"SOPInstanceUID": None}, **missing, **PATIENT)  # fmt: skip
    files = sorted((tmp_path / "in").iterdir())
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(tmp_path / "in")
    prediction = Prediction(
        "case", tmp_path / "case", MetaTensor(torch.from_numpy(labels.T.copy())[None], meta=image.meta), image
    )
    with pytest.raises(PyrasegError, match=r"no SOPClassUID, SOPInstanceUID, .*FrameOfReferenceUID .*complete_headers"):
        segmentation_writer(algorithm)(prediction)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in"]
    before = [file.read_bytes() for file in files]
    uids = []
    for _ in range(2):  # a second run makes the same copy
        (path,) = segmentation_writer(algorithm, complete_headers=True)(prediction)
        copies = [pydicom.dcmread(tmp_path / "case_series" / file.name) for file in files]
        uids.append([copy.SOPInstanceUID for copy in copies])
    assert uids[0] == uids[1] and len(set(uids[0])) == len(files)
    assert [file.read_bytes() for file in files] == before
    assert complaints(path) == []
    segmentation = hd.seg.segread(path)
    pixels = segmentation.get_pixels_by_source_instance(
        uids[0], combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, labels)
    np.testing.assert_array_equal(np.stack([copy.pixel_array for copy in copies]), labels)


def test_a_projection_is_referred_to_without_a_place(algorithm: Algorithm, real_data: Path, tmp_path: Path) -> None:
    file = real_data / "dicom_robustness" / "RG3_J2KR.dcm"  # a radiograph without a frame of reference
    image = LoadImage(reader=MedicalImageReader(), ensure_channel_first=True, image_only=True)(file)[..., 0]
    labels = torch.zeros(image.shape, dtype=torch.uint8)
    labels[0, 300:700, 200:900] = 1
    prediction = Prediction("case", tmp_path / "case", MetaTensor(labels, meta=image.meta), image)
    (path,) = segmentation_writer(algorithm)(prediction)
    assert complaints(path) == []
    segmentation, source = hd.seg.segread(path), pydicom.dcmread(file)
    pixels = segmentation.get_pixels_by_source_instance(
        [source.SOPInstanceUID], combine_segments=True, ignore_spatial_locations=True
    )
    np.testing.assert_array_equal(pixels[0], labels[0].numpy().T)
    assert structure_set_writer(algorithm)(prediction) is None
    assert VolumeTable(output_dir=tmp_path, class_names=NAMES).measure(prediction)[0]["volume_ml"] == ""


def test_codes_are_asked_for_before_anything_is_segmented(algorithm: Algorithm) -> None:
    sources = SourceImages(complete_headers=False)
    with pytest.raises(PyrasegError, match=r"has none for tumor\. Give them"):
        SegmentationWriter(class_names=["background", "tumor"], terminology={}, algorithm=algorithm, sources=sources)
    for codes, message in (({"typ": []}, "has typ; it needs a type"), ({"type": ["1", "SCT"]}, "The type of 'x'")):
        with pytest.raises(PyrasegError, match=message):
            SegmentClass.from_codes("x", codes)
    with pytest.raises(PyrasegError, match="no mesh format 'obj'"):
        MeshWriter(class_names=NAMES, format="obj")
