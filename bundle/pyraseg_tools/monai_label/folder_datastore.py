# SPDX-License-Identifier: Apache-2.0
"""The folder of images that MONAI Label serves, with labels whose values are the classes of a bundle."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.datastore.local import LocalDatastore

from bundle.pyraseg.core import PHOTOGRAPH, PyrasegError
from bundle.pyraseg.inference import write_grid
from bundle.pyraseg.transforms import MedicalImageReader, Target
from bundle.pyraseg_tools.monai_label.classes import Task, as_classes, meant
from bundle.pyraseg_tools.monai_label.series_files import names_in, upright_copy, values_on


class FolderDatastore(LocalDatastore):
    """Keep labels as MONAI Label does, but by the names of their segments where a client gives them.

    A client numbers segments in its own order, and a training takes the numbers for classes: a segment that was removed
    in 3D Slicer would make the following ones another organ.

    Args:
        tasks: the bundles that are served; without any, labels stay as they come.
        path: of the folder.
        options: see `LocalDatastore`.
    """

    def __init__(self, tasks: Sequence[Task], path: str, **options: Any) -> None:
        self.tasks = tasks
        self.upright = tempfile.TemporaryDirectory(prefix="pyraseg_upright_")
        super().__init__(path, **options)

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image; that of an upright copy where its file says how to turn it.

        3D Slicer shows the pixels as they are stored and web browsers as the EXIF orientation says: what one of them
        draws would lie elsewhere for the other. On the copy there is one way to see it, and to segment it.
        """
        path = super().get_image_uri(image_id)
        return str(upright_copy(Path(path), Path(self.upright.name))) if path else path

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        if image_id in self.list_images():
            raise PyrasegError("There is an image of that name, and no image is replaced. Give another name.")
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        image = self.get_image_uri(image_id)
        if not (self.tasks and image):
            return super().save_label(image_id, label_filename, label_tag, label_info)
        target, place = _grid(Path(image))
        values = values_on(Path(label_filename), target)
        names = label_info.get("label_info") or names_in(Path(label_filename))
        with tempfile.TemporaryDirectory() as folder:
            if names:
                _, classes = meant(self.tasks, np.unique(values), {**label_info, "label_info": names})
                if any(value != index for value, index in classes.items()):
                    stem, labels = Path(folder) / "label", as_classes(values, classes)
                    label_filename = str(write_grid(labels, target.affine, stem, place=place, compression=3))
            return super().save_label(image_id, label_filename, label_tag, label_info)


def _grid(image: Path) -> tuple[Target, Mapping[str, np.ndarray] | None]:
    """Return the grid that labels of an image lie on, and how its header says where that is."""
    array, meta = MedicalImageReader().get_data([image])
    axes = 2 if image.name.lower().endswith(PHOTOGRAPH) else 3  # others hold channels
    return Target.of_file(array.shape[:axes], meta, image.name), meta.get("place")
