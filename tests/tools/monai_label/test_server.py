# SPDX-License-Identifier: Apache-2.0
"""A real MONAI Label server on loopback: inference, labels, retraining, scoring, for photographs and for volumes."""

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from bundle.pyraseg_tools.datasets.phantom.cases import phantom_case
from bundle.pyraseg_tools.monai_label.retraining import fixed_validation
from tests.helpers.drawn_photographs import draw
from tests.helpers.label_server import form, needs_server, own_inference, refusal, served, write_foreign

pytestmark = needs_server


def test_photographs_are_labeled_and_a_worse_retraining_is_not_served(package, tmp_path):
    name, studies, app = "pyraseg_dermoscopy", tmp_path / "study" / "images", tmp_path / "app"
    for seed in range(6):
        draw(tmp_path / "study", seed, (120, 90))
    masks = tmp_path / "study" / "masks"
    validation = fixed_validation(tmp_path / "chosen.json", {f"c{i}.jpg": f"c{i}.jpg" for i in range(5)}, 0.4)
    with served([package.zip], studies, app, samples=64) as server:
        assert server.info()["models"][name]["labels"] == {"lesion": 1}
        (tmp_path / "c0.png").write_bytes(server.infer(name, "c0"))
        own = own_inference(package.zip, studies / "c0.jpg", tmp_path) / "c0.png"
        labels = np.asarray(Image.open(tmp_path / "c0.png"))
        assert labels.any()
        np.testing.assert_array_equal(labels, np.asarray(Image.open(own)))

        for seed in range(5):  # true masks to compare on, the opposite to train on
            mask = masks / f"c{seed}_segmentation.png"
            if f"c{seed}.jpg" not in validation:
                Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
            server.put_label(f"c{seed}", mask)
        model = app / "model" / name / "models" / "model.pt"
        before = model.read_bytes()
        told = server.run("/train/", f"/train/{name}", max_epochs=1, val_split=0.4)
        assert "the model stays as it is" in told
        assert model.read_bytes() == before
        assert set(json.loads((app / "model" / name / "validation.json").read_text())) == validation

        server.run("/scoring/", f"/scoring/{name}", simulation_size=2)
        sample = json.loads(server.ask("POST", "/activelearning/epistemic"))
        assert sample["id"] == "c5" and sample["epistemic_entropy"] > 0
        server.run("/batch/infer", f"/batch/infer/{name}?images=unlabeled", multi_gpu=True)
        assert (studies / "labels" / "original" / "c5.png").is_file()
        outside = tmp_path / "study" / "outside.png"
        Image.fromarray(labels).save(outside)
        for status, ask in (
            (400, lambda: server.infer(name, "c0", model_filename="../../elsewhere.pt")),
            (400, lambda: server.infer(name, "c0", model_filename=7)),
            (400, lambda: server.ask("POST", "/train/nobody", b"{}")),
            (404, lambda: server.infer(name, str(outside))),
            (400, lambda: server.ask("POST", f"/train/{name}", b'{"tracking": "/elsewhere.json"}')),
            (404, lambda: server.put_label("../images/c0", outside)),
            (400, lambda: server.put_label("c0", outside, tag="../..")),
            (400, lambda: server.put_label("c0", outside, label_info="lesion")),
            (400, lambda: server.ask("PUT", "/datastore/image?image=../moved", *form({}, file=outside))),
            (404, lambda: server.ask("DELETE", f"/model/{name}")),
            (403, lambda: server.ask("POST", "/activelearning/random", Origin="https://elsewhere.example")),
            (403, lambda: server.ask("GET", "/info/", Host="elsewhere.example")),
        ):
            assert refusal(ask) == status
        assert sorted(path.name for path in (tmp_path / "study").iterdir()) == ["images", "masks", "outside.png"]
    with served([package.zip], studies, app, samples=64) as server:  # again, on what the first one has left
        (tmp_path / "c0.png").write_bytes(server.infer(name, "c0"))
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "c0.png")), labels)
        server.put_label("c5", masks / "c5_segmentation.png", label_info=[{"name": "lesion", "idx": 255}])
        stored = np.asarray(Image.open(studies / "labels" / "final" / "c5.png"))
        np.testing.assert_array_equal(stored, np.asarray(Image.open(masks / "c5_segmentation.png")) > 0)
        server.run("/train/", f"/train/{name}", max_epochs=1, val_split=0.4)
        assert set(json.loads((app / "model" / name / "validation.json").read_text())) == validation
        assert json.loads(server.ask("POST", "/activelearning/epistemic")) == {}  # all are labeled
    assert "c0.jpg" not in (app / "log.txt").read_text()  # names of files may be names of patients


def write_volume(folder: Path, index: int) -> tuple[Path, Path]:
    """Write a patient of the phantom study as NIfTI, number 2 tilted; return the paths of image and label."""
    case = phantom_case(2024, index, size=64)
    affine = np.eye(4)
    columns = (case.row_cosine * case.pixel_spacing[1], case.column_cosine * case.pixel_spacing[0], case.slice_step)
    affine[:3] = np.diag([-1, -1, 1]) @ np.column_stack([*columns, case.positions[0]])
    affine[1, 2] += 0.6 * (index == 2)
    paths = folder / "images" / f"v{index}.nii.gz", folder / "labels" / f"v{index}.nii.gz"
    for path, array in zip(paths, (case.hu, case.labels), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), affine), path)
    return paths


def test_volumes_are_labeled_and_a_better_retraining_is_served(volume_package, tmp_path):
    name, app = "pyraseg_phantom", tmp_path / "app"
    cases = [write_volume(tmp_path, index) for index in range(3)]
    with served([volume_package, write_foreign(tmp_path)], tmp_path / "images", app, samples=256) as server:
        (tmp_path / "v0.nii.gz").write_bytes(server.infer(name, "v0"))
        result, own = (
            nibabel.load(path)
            for path in (tmp_path / "v0.nii.gz", own_inference(volume_package, cases[0][0], tmp_path) / "v0.nii.gz")
        )
        np.testing.assert_array_equal(result.dataobj, own.dataobj)
        np.testing.assert_allclose(result.affine, own.affine, atol=1e-4)

        bright = tmp_path / "bright.nii.gz"
        bright.write_bytes(server.infer("threshold_segmentation", "v0"))
        np.testing.assert_array_equal(nibabel.load(bright).dataobj, np.asarray(nibabel.load(cases[0][0]).dataobj) > 0)

        for image, label in cases[:2]:
            server.put_label(image.name.removesuffix(".nii.gz"), label)
        told = server.run("/train/", f"/train/{name}", max_epochs=4, val_split=0.5)
        assert "it is served now" in told
        served_now, before = server.info()["models"][name]["config"]["model_filename"]
        assert served_now == "model.pt" and before.startswith("replaced/model-")
        again = tmp_path / "again.nii.gz"
        again.write_bytes(server.infer(name, "v0", model_filename=before))
        np.testing.assert_array_equal(nibabel.load(again).dataobj, own.dataobj)
        again.write_bytes(server.infer(name, "v0"))
        assert (np.asarray(nibabel.load(again).dataobj) != np.asarray(own.dataobj)).any()

        server.run("/scoring/", f"/scoring/{name}", simulation_size=2)
        assert json.loads(server.ask("POST", "/activelearning/epistemic"))["id"] == "v2"
    with served(
        [volume_package], tmp_path / "images", app, samples=256
    ) as server:  # again, on what the first one has left
        again.write_bytes(server.infer(name, "v0", model_filename=before))
        np.testing.assert_array_equal(nibabel.load(again).dataobj, own.dataobj)
        image, label = cases[2]
        truth = nibabel.load(label)
        order = ["kidney", "liver", "spleen", "lesion"]  # the order of the segments in a client
        numbers = np.array([0, 2, 4, 3, 1], np.uint8)[np.asarray(truth.dataobj)]
        nibabel.save(nibabel.Nifti1Image(numbers, truth.affine), tmp_path / "numbers.nii.gz")
        segments = [{"name": name, "idx": number} for number, name in enumerate(order, 1)]
        server.put_label("v2", tmp_path / "numbers.nii.gz", label_info=segments)
        stored = nibabel.load(tmp_path / "images" / "labels" / "final" / "v2.nii.gz")
        np.testing.assert_array_equal(stored.dataobj, truth.dataobj)
        np.testing.assert_allclose(stored.affine, truth.affine, atol=1e-4)
        server.run("/train/", f"/train/{name}", max_epochs=1, val_split=0.5)
    assert "v0.nii.gz" not in (app / "log.txt").read_text()
