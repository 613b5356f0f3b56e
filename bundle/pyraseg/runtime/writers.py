# SPDX-License-Identifier: Apache-2.0
"""Write labels as they come: PNG, NIfTI, DICOM SEG; of regions, which overlap, one mask each."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bundle.pyraseg.core import PyrasegError, Structures, names_in_files, remove_results, replacing
from bundle.pyraseg.runtime.images import Labels
from bundle.pyraseg.runtime.model import Model

#: Write the labels of an input at a path without a suffix; return the paths.
Writer = Callable[[Labels, Path], list[Path]]


def _stems(stem: Path, structures: Structures) -> list[Path]:
    """Return what the files of an input are called: one of classes, or one a region, see `names_in_files`."""
    if not structures.overlapping:
        return [stem]
    return [stem.with_name(f"{stem.name}_{name}") for name in names_in_files(structures.names[1:])]


def _masks(values: np.ndarray, structures: Structures) -> Iterator[np.ndarray]:
    """Yield what goes into each of these files: the classes, or where each region is, uint8."""
    if not structures.overlapping:
        yield values
        return
    for number in range(1, len(structures.names)):
        yield structures.mask(values, number).astype(np.uint8)


def png_writer(structures: Structures) -> Writer:
    """Return what writes PNG: one file, or for several slices a folder with one file each, in the order of places.

    Its values are classes; each region has a file, or a folder, of 0 and 1. The folder of a run before is replaced.
    """
    from PIL import Image

    def write(labels: Labels, stem: Path) -> list[Path]:
        stems = _stems(stem, structures)
        if labels.shape[0] == 1:
            paths = [one.with_name(f"{one.name}.png") for one in stems]
            for path, values in zip(paths, _masks(next(labels.slices), structures), strict=True):
                with replacing(path) as temporary:
                    Image.fromarray(values).save(temporary, format="PNG")
            return paths
        digits = len(str(labels.shape[0]))
        paths = [one.with_name(f"{one.name}_labels") for one in stems]
        with ExitStack() as stack:
            folders = [stack.enter_context(replacing(path)) for path in paths]
            for folder in folders:
                folder.mkdir()
            for number, values in enumerate(labels.slices, 1):
                for folder, mask in zip(folders, _masks(values, structures), strict=True):
                    Image.fromarray(mask).save(folder / f"slice_{number:0{digits}}.png", format="PNG")
            for path in paths:
                remove_results(path, r"slice_\d+\.png")
        return paths

    return write


def nifti_writer(structures: Structures) -> Writer:
    """Return what writes NIfTI, on the grid of the series or, for uneven slices, a regular one that holds it.

    Its values are classes; each region has a file of 0 and 1. Images without a place in a patient are refused, and so
    are slices that no regular grid holds.

    Raises:
        PyrasegError: nibabel is missing.
    """
    try:
        import nibabel as nib
    except ImportError as error:
        raise PyrasegError("NIfTI needs nibabel: pip install nibabel, or write --format png.") from error
    from bundle.pyraseg.dicom import LPS_TO_RAS

    def write(labels: Labels, stem: Path) -> list[Path]:
        if labels.geometry is None:
            raise PyrasegError("It has no patient position, so NIfTI is not possible. Give --format png.")
        paths = [one.with_name(f"{one.name}.nii.gz") for one in _stems(stem, structures)]
        grid = labels.geometry.regular_grid()
        empty = np.zeros(labels.shape[1:], np.uint8)
        like = np.broadcast_to(np.uint8(0), (*empty.shape[::-1], len(grid.sources)))
        header = nib.Nifti1Image(like, LPS_TO_RAS @ grid.affine).header
        header.set_xyzt_units("mm")
        header["vox_offset"] = 352  # the header's 348 bytes, and four that say that no extension follows
        with ExitStack() as stack:
            packed = []
            for path in paths:
                file = stack.enter_context(stack.enter_context(replacing(path)).open("wb"))
                zipped = gzip.GzipFile("", "wb", compresslevel=3, fileobj=file, mtime=0)
                packed.append(stack.enter_context(zipped))
                zipped.write(header.binaryblock + bytes(4))
            there, values = -1, empty
            for source in grid.sources:
                while there < source:
                    there, values = there + 1, next(labels.slices)
                for zipped, mask in zip(packed, _masks(values if source >= 0 else empty, structures), strict=True):
                    zipped.write(mask.tobytes())  # columns run fastest in both
        return paths

    return write


def seg_writer(
    model: Model,
    *,
    seg_type: str = "BINARY",
    algorithm_type: str = "AUTOMATIC",
    ending: str = "_seg.dcm",
    seed: str | None = None,
) -> Writer:
    """Return what writes a DICOM SEG with the model's codes; it holds the labels of all slices in memory.

    Regions are segments that overlap, of one object.

    Args:
        model: the graph that finds the labels.
        seg_type: "BINARY" or "LABELMAP"; the graph gives no probabilities for a FRACTIONAL one.
        algorithm_type: "SEMIAUTOMATIC" where a person has corrected the labels.
        ending: what comes behind the name of the input.
        seed: derive UIDs from it and the images, so that the same input gives the same bytes; None: new ones.

    Raises:
        PyrasegError: highdicom is missing, the model has no code for a class or region, or the type cannot be written.
    """
    try:
        from bundle.pyraseg.dicom import read_sources
        from bundle.pyraseg.labels import require_seg_type, segment_classes, write_segmentation
    except ImportError as error:
        raise PyrasegError("DICOM SEG needs highdicom: pip install highdicom, or write --format png.") from error
    require_seg_type(seg_type, overlapping=model.structures.overlapping)
    if seg_type == "FRACTIONAL":
        raise PyrasegError(
            "A FRACTIONAL DICOM SEG holds probabilities, and an exported model gives labels alone. Segment with the "
            "weights: pyraseg segment --outputs seg --seg_type FRACTIONAL."
        )
    classes = segment_classes(model.structures.names, model.terminology)

    def write(labels: Labels, stem: Path) -> list[Path]:
        if not labels.files:
            raise PyrasegError("It is not DICOM, so DICOM SEG is not possible. Give --format png.")
        path = stem.with_name(f"{stem.name}{ending}")
        slices = np.stack(list(labels.slices))  # first: the headers come with the pixels
        sources = read_sources(labels.files)
        write_segmentation(
            path,
            slices,
            sources,
            classes,
            frame_numbers=labels.frame_numbers,
            algorithm=model.algorithm,
            algorithm_type=algorithm_type,
            overlapping=model.structures.overlapping,
            seg_type=seg_type,
            deterministic_seed=seed,
        )
        return [path]

    return write
