# SPDX-License-Identifier: Apache-2.0
"""The folder of images that MONAI Label serves, with labels whose values are the classes of a bundle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
from monailabel.datastore.local import LocalDatastore

from bundle.pyraseg.labelling.classes import Task, meant


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
        super().__init__(path, **options)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        if self.tasks and label_info.get("label_info"):
            label = sitk.ReadImage(label_filename)
            _, classes = meant(self.tasks, np.unique(sitk.GetArrayViewFromImage(label)), label_info)
            others = {value: index for value, index in classes.items() if value != index}
            if others:
                sitk.WriteImage(sitk.ChangeLabel(label, others), label_filename, useCompression=True)
        return super().save_label(image_id, label_filename, label_tag, label_info)
