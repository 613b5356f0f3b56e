# SPDX-License-Identifier: Apache-2.0
"""Train nnU-Net's 3d_fullres on the hippocampus for so many minutes of one thread, and predict validation and test.

python -m benchmarks.hippocampus.nnunet data/mr_hippocampus --minutes 60 --work runs/hippocampus_benchmark

It makes an environment of its own for nnU-Net, below --work unless --environment names one; `pip` takes packages from
where it is set up to take them (`PIP_INDEX_URL` for a build of PyTorch without CUDA). nnU-Net plans and preprocesses
with our training and validation cases, one fold is that split, and the test cases are predicted alone. Planning and
preprocessing are not counted in the minutes. What was finished is not done again, so that a run that was stopped goes
on. Two runs are left, of one training: prediction as it comes, with mirrored views, and without them.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from benchmarks.hippocampus.study import CLASS_NAMES, PREDICTED, label_file, read_split, write_run
from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.workflow import plain_console

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("nnunet_worker.py")
#: What the environment is made of; PyTorch first, since it decides what torchvision comes with it.
PINNED = ("torch==2.13.0", "nnunetv2==2.8.1")
DATASET = "Dataset501_Hippocampus"
#: Names of the two runs, and whether they predict mirrored views.
RUNS = {"nnU-Net 3d_fullres": True, "nnU-Net 3d_fullres, unmirrored": False}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class NnUnet:
    """nnU-Net in an environment and with folders of its own.

    Args:
        environment: folder of the virtual environment, made where it is not there.
        root: folder of its data, plans and results.
    """

    def __init__(self, environment: Path, root: Path) -> None:
        self.environment = environment
        self.root = root
        self.raw, self.preprocessed, self.results = (root / name for name in ("raw", "preprocessed", "results"))

    def install(self) -> None:
        """Make the environment, unless the pinned versions are there."""
        if not self._python.is_file():
            logger.info("Making the environment %s", self.environment)
            venv.create(self.environment, with_pip=True)
        check = "import importlib.metadata as m, sys; sys.exit(m.version('nnunetv2') != sys.argv[1])"
        wanted = PINNED[1].partition("==")[2]
        if subprocess.run([self._python, "-c", check, wanted], capture_output=True).returncode:
            subprocess.run([self._python, "-m", "pip", "install", *PINNED], check=True)

    def prepare(self, cases: dict[str, dict[str, tuple[Path, Path]]]) -> dict[str, Any]:
        """Write the cases in nnU-Net's form, plan and preprocess them; return what that took."""
        done = self.root / "prepared.json"
        if done.is_file():
            return json.loads(done.read_text(encoding="utf-8"))
        write_raw(cases, self.raw / DATASET)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        program = self._python.with_name("nnUNetv2_plan_and_preprocess")
        number = DATASET[len("Dataset") :].partition("_")[0]
        # Its planning divides by the number of augmentation processes, and so needs one.
        command = [program, "-d", number, "-c", "3d_fullres", "-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
        self._run(command, nnUNet_n_proc_DA="1")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        folds = [{"train": sorted(cases["training"]), "val": sorted(cases["validation"])}]
        splits = self.preprocessed / DATASET / "splits_final.json"
        splits.write_text(json.dumps(folds, indent=1) + "\n", encoding="utf-8")
        minutes = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
        done.write_text(json.dumps({"preparation_minutes": minutes}), encoding="utf-8")
        return {"preparation_minutes": minutes}

    def train(self, minutes: float, seed: int) -> dict[str, Any]:
        """Train for minutes of processor time, and return what it took."""
        return self._work("train", "train", DATASET, str(60 * minutes), str(seed), nnUNet_n_proc_DA="0")

    def predict(self, model_folder: str, part: str, *, mirroring: bool) -> tuple[dict[str, Any], Path]:
        """Predict a part of the split; return the seconds that a volume took, and the folder of the label maps."""
        name = f"{part}{'' if mirroring else '_unmirrored'}"
        output = self.root / "predictions" / name
        output.mkdir(parents=True, exist_ok=True)
        options = ["--mirroring"] * mirroring
        images = self.raw / DATASET / f"images_{part}"
        found = self._work(
            f"predict_{name}", "predict", model_folder, str(images), str(output), *options, nnUNet_n_proc_DA="0"
        )
        return found, output

    @property
    def _python(self) -> Path:
        folder = "Scripts" if sys.platform == "win32" else "bin"
        return self.environment / folder / "python"

    def _work(self, name: str, *arguments: str, **variables: str) -> dict[str, Any]:
        result = self.root / f"{name}.json"
        if not result.is_file():
            self._run([self._python, WORKER, result, *arguments], **variables)
        return json.loads(result.read_text(encoding="utf-8"))

    def _run(self, command: list[Any], **variables: str) -> None:
        places = {"nnUNet_raw": self.raw, "nnUNet_preprocessed": self.preprocessed, "nnUNet_results": self.results}
        one = dict.fromkeys(THREADS, "1")
        environment = {**os.environ, **one, **{name: str(path) for name, path in places.items()}, **variables}
        environment.pop("PYTHONPATH", None)
        logger.info("Running %s", " ".join(map(str, command)))
        subprocess.run(list(map(str, command)), env=environment, check=True)


def write_raw(cases: dict[str, dict[str, tuple[Path, Path]]], folder: Path) -> None:
    """Write cases as nnU-Net wants them: training and validation as training cases, and folders to predict.

    Raises:
        PyrasegError: an image is not compressed NIfTI, the ending that is declared for all.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what a killed one left
    for part, of_part in cases.items():
        for case, (image, label) in of_part.items():
            if not (image.name.endswith(".nii.gz") and label.name.endswith(".nii.gz")):
                raise PyrasegError(
                    f"{image} or its label is not .nii.gz, the ending that nnU-Net is told of all files."
                )
            places = [folder / f"images_{part}"] if part in PREDICTED else []
            if part != "test":
                places.append(folder / "imagesTr")
                _copy(label, folder / "labelsTr" / f"{case}.nii.gz")
            for place in places:
                _copy(image, place / f"{case}_0000.nii.gz")
    described = {
        "channel_names": {"0": "MRI"},
        "labels": {name: index for index, name in enumerate(CLASS_NAMES)},
        "numTraining": len(cases["training"]) + len(cases["validation"]),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def run(dataset_dir: Path, work: Path, environment: Path, minutes: float, seed: int) -> list[Path]:
    """Make both runs, and return their folders."""
    cases, split = read_split(dataset_dir)
    root = work / f"nnunet_{minutes:g}min_seed{seed}"
    program = NnUnet(environment, root)
    program.install()
    preparation = program.prepare(cases)
    training = program.train(minutes, seed)
    folders = []
    for name, mirroring in RUNS.items():
        folder = root / ("mirrored" if mirroring else "unmirrored")
        seconds = {}
        for part in PREDICTED:
            seconds[part], predicted = program.predict(training["model_folder"], part, mirroring=mirroring)
            for case in cases[part]:
                _copy(predicted / f"{case}.nii.gz", label_file(folder, part, case))
        told = {key: value for key, value in training.items() if key != "model_folder"}
        record = {"name": name, "minutes": minutes, "seed": seed, "threads": 1, "split": split}
        write_run(folder, record | {"training": told | preparation, "seconds_a_volume": seconds["test"]})
        folders.append(folder)
    return folders


def main(argv: list[str] | None = None) -> None:
    plain_console()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--minutes", type=float, required=True, help="processor time of the training")
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument(
        "--environment", type=Path, help="virtual environment; default: nnunet_environment below --work"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    work = given.work.resolve()
    environment = (given.environment or work / "nnunet_environment").resolve()
    for folder in run(given.dataset_dir, work, environment, given.minutes, given.seed):
        print(f"Finished: {folder}")


if __name__ == "__main__":
    main()
