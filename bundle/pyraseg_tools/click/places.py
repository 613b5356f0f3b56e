# SPDX-License-Identifier: Apache-2.0
"""Where the labels of images lie, so that a data list finds them: under the same names, in a folder beside."""

import shlex
from pathlib import Path

#: Folders of images whose labels a data list finds in a folder of this name beside them.
PARALLEL = {"images": "labels", "imagesTr": "labelsTr"}


def labels_of_folder(images: Path) -> Path:
    """Return the folder for the labels of a folder of images.

    >>> labels_of_folder(Path("/study/images")).as_posix(), labels_of_folder(Path("/study/photos")).as_posix()
    ('/study/labels', '/study/photos_labels')
    """
    return images.with_name(PARALLEL.get(images.name, f"{images.name}_labels"))


def label_file(labels: Path, name: str, *, is_dicom: bool) -> Path:
    """Return the file of an image's label: a DICOM SEG, or a PNG.

    Args:
        labels: their folder.
        name: of the image, as `find_inputs` gives it.
        is_dicom: whether the image is DICOM.
    """
    return labels / f"{name}{'.dcm' if is_dicom else '.png'}"


def how_to_pair(images: Path, labels: Path, *, are_dicom: bool) -> str:
    """Return the command that makes a data list of images and their labels.

    >>> how_to_pair(Path("/study/images"), Path("/study/labels"), are_dicom=False)
    'pyraseg datalist /study'
    >>> how_to_pair(Path("/study/photos"), Path("/study/photos_labels"), are_dicom=False)
    "pyraseg datalist /study --image-pattern 'photos/{case}' --label-pattern 'photos_labels/{case}'"
    """
    if labels.parent != images.parent:
        folder = shlex.quote(str(labels))
        return f"pyraseg datalist FOLDER, where FOLDER holds the images and {folder} (docs/data.md)"
    command = f"pyraseg datalist {shlex.quote(str(images.parent))}"
    if are_dicom or PARALLEL.get(images.name) == labels.name:
        return command
    patterns = (shlex.quote(f"{folder.name}/{{case}}") for folder in (images, labels))
    return "{} --image-pattern {} --label-pattern {}".format(command, *patterns)
