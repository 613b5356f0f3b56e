# SPDX-License-Identifier: Apache-2.0
"""Segment photographs, DICOM series, and NIfTI, NRRD and MetaImage volumes: one file, or all in a folder.

pyraseg segment photo.jpg out
pyraseg segment studies out --model models/model.pt --outputs labels,seg

Each input gets a label map on its own grid, a picture of it, and rows in a table of volumes. Without --model,
photographs are segmented with the included fast skin lesion model, dermoscopy_fast. Everything else is segmented with
models/model.pt, which `pyraseg train` writes, or, if there is none, with the model of the phantom study. `pyraseg
models` lists the models. None is for diagnosis.

Without further options but --unlike, dermoscopy_fast runs in int8 in ONNX Runtime, without the seconds in which PyTorch
starts, and the first line says so. With any other option of a config it runs in PyTorch (docs/inference.md).

--click X,Y, --background X,Y and --box correct the result of one image, with a model that takes clicks
(docs/clicks.md).

--model takes the NAME of an included model; a FILE of weights (give --task if its name is not that of its task); a
FILE.onnx from `pyraseg export`, which needs no PyTorch; or a PACKAGE, a zip or a folder, which is verified first.

Every other option is a key of the configs: `--series 'portal*'` chooses a series, `--select EchoTime=4.6` its slices,
and `--phase 3` or `--phase all` its phases (`pyraseg list IN` shows what there is), `--refuse none` takes images of
another modality, `--unlike refuse` leaves out images that are unlike those of the training (docs/guard.md), `--device
cuda` runs on a GPU.
`python -m monai.bundle run inferring --config_file configs/inference.json` does the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.commands.clicks import click_model, corrections_of, numbers_of, segment_with_clicks
from bundle.pyraseg.commands.console import command_parser
from bundle.pyraseg.commands.models import Model, shipped_models
from bundle.pyraseg.commands.options import split_options
from bundle.pyraseg.commands.places import config_files, home
from bundle.pyraseg.core import (
    DEFAULT_TASK,
    PHOTOGRAPH,
    PyrasegError,
    mendable,
    nearest_hint,
    pixel_count,
    processors,
    require_writable,
    task_names,
)

if TYPE_CHECKING:
    from bundle.pyraseg.runtime import Model as Exported

#: Warning for the model that was trained on synthetic images.
SYNTHETIC = """
WARNING: this model was trained on SYNTHETIC images only. Its results on a real patient are meaningless. It is only a
demonstration. Train a model on real images: pyraseg train --dataset_dir DATA (docs/guides/train_on_dicom.md)."""


#: What the runtime does, by keys of the configs of inference. With other values, PyTorch segments.
ABLE: dict[str, Any] = {
    "save_probabilities": False,
    "uncertainty_rotations": [],
    "uncertainty_flips": [],
    "uncertainty_dropout": 0,
}
#: The outputs that need no PyTorch; the others are for DICOM and for volumes.
QUICK = ("labels", "overlay", "volumes")
#: Pixels of a photograph for which the runtime takes 2.3 GB. For larger ones PyTorch takes less, which does
#: them in bands: 196 megapixels take 5.7 GB here and 3.2 there.
LARGEST = 75_000_000


def arguments(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, Any]]:
    parser = command_parser("segment", __doc__)
    parser.add_argument("input", type=Path, metavar="IN", help="a folder, searched recursively, or one file")
    parser.add_argument("output", type=Path, metavar="OUT", help="folder of the results, named as the inputs")
    parser.add_argument("--model", metavar="NAME|FILE|PACKAGE", help="default: by the kind of the images")
    parser.add_argument("--task", help="task of --model FILE (default: by its name, else the default task)")
    parser.add_argument("--outputs", help=f"some of {', '.join(outputs())} (default: labels,overlay,volumes); of a "
                        "FILE.onnx one of png, nifti, seg")  # fmt: skip
    parser.add_argument("--click", nargs="+", action="extend", type=numbers_of(2), default=[], metavar="X,Y",
                        help="pixels inside of what is meant, column,row from 0: the answer is corrected by them "
                        "(docs/clicks.md); of one image")  # fmt: skip
    parser.add_argument("--background", nargs="+", action="extend", type=numbers_of(2), default=[], metavar="X,Y",
                        help="pixels outside of it")  # fmt: skip
    parser.add_argument(
        "--box", type=numbers_of(4), metavar="X0,Y0,X1,Y1", help="two opposite corners of a box around it"
    )
    parser.add_argument("--slice", type=int, metavar="N", help="slice that was clicked, from 1, of a DICOM series")
    parser.add_argument(
        "--class", dest="structure", metavar="NAME", help="class that is corrected (default: the first)"
    )
    parser.add_argument("--key", type=Path, metavar="PUBLIC", help="PEM file of the public key that signed a PACKAGE")
    parser.add_argument("--unsigned", action="store_true", help="trust a PACKAGE without a signature, and run its code")
    return split_options(parser, argv)


def outputs() -> list[str]:
    """Return the names of the writers that the config of inference has."""
    return list(json.loads((home() / "configs" / "inference.json").read_text(encoding="utf-8"))["writers"])


def main(argv: list[str] | None = None) -> int:
    options, settings = arguments(argv)
    source, target = options.input.expanduser().resolve(), options.output.expanduser().resolve()
    require_writable([target])
    if corrections := corrections_of(options):
        form = click_model(options.model, photographs=source.name.lower().endswith(PHOTOGRAPH))
        return segment_with_clicks(form, source, target, corrections, outputs=options.outputs, **for_runtime(settings))
    given = None if options.model is None else Path(options.model).expanduser()
    known = {model.name: model for model in shipped_models()}
    if given is not None and given.suffix == ".onnx":
        return with_runtime(given, source, target, options.outputs, settings)
    if options.outputs is not None:
        settings["outputs"] = options.outputs.split(",")
        if unknown := [name for name in settings["outputs"] if name not in outputs()]:
            raise PyrasegError(f"There is no output {unknown[0]!r}.{nearest_hint(unknown[0], outputs())}")
    if given is None or options.model in known:
        return with_included(known.get(options.model or ""), source, target, settings)
    if given.suffix == ".zip" or given.is_dir():
        return with_package(given, source, target, options, settings)
    elif given.is_file():
        task = options.task or (given.stem if given.stem in task_names(home() / "configs") else DEFAULT_TASK)
        run(task, given, target, settings, source=source)
    else:
        raise PyrasegError(
            f"There is no model {options.model!r}: no such file or folder, and no such name among the included models, "
            f"{', '.join(known)}.{nearest_hint(options.model, known)}"
        )
    return 0


def with_included(chosen: Model | None, source: Path, target: Path, settings: dict[str, Any]) -> int:
    """Segment with an included model, or give photographs to one model and all else to another; return the exit code.

    Args:
        chosen: the model for everything; None: by the kind of the images.
        source: file or folder of the inputs.
        target: folder of the results.
        settings: values of the config by their keys.
    """
    from bundle.pyraseg.runtime import require_apart, search_inputs

    parts: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    series = settings.get("series", "")
    select, phase = settings.get("select", ""), settings.get("phase", "")
    dropout = settings.get("sequence_dropout", 0)
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout <= 1:
        raise PyrasegError(f"The option 'sequence_dropout' takes a number from 0 to 1, not {dropout!r}.")
    several = {"sequences": settings.get("sequences"), "allow_missing": dropout > 0}
    found = search_inputs(source, leave_out=target, series=series, select=select, phase=phase, **several)
    if found.series:
        print("\n".join(found.table(select)), flush=True)
    if found.skipped:
        print("\n".join(found.left_out()), flush=True)
    for item in found.items:
        parts[chosen is not None or is_photograph(item)].append(item)
    if parts[True] and all("fault" in item for item in parts[False]):
        parts = {True: parts[True] + parts[False], False: []}
    both = all(parts.values())
    failed: list[Exception] = []
    runs = []
    for photographs, items in parts.items():
        if not items:
            continue
        what = f"{'photographs' if photographs else 'series and volumes'} ({len(items)})"
        try:
            model = chosen or model_for(photographs, what)
        except PyrasegError as error:
            if not both:
                raise
            failed.append(error)
            continue
        folder = target / model.name if both else target
        if both:  # the search knows the folder of all results, not that of each model
            require_apart(items, source, folder, left_out=target)
        runs.append((what, items, model, folder))
    for what, items, model, folder in runs:
        try:
            form = runtime_form(model, items, settings)
            by = introduced(model, form)
            print(by if chosen else f"{what.capitalize()} of {source} -> {folder}, by {by}", flush=True)
            if form is None:
                others = {key: value for key, value in settings.items() if key != "series"}  # all of them are meant
                run(model.task, model.path, folder, others | {"dataset#data": tuple(items)})
            else:
                from bundle.pyraseg.commands.photographs import segment_photographs

                config = config_of(model, settings)
                segment_photographs(form, items, folder, outputs=config["outputs"], unlike=config["unlike"])
        except Exception as error:
            cause = mendable(error)
            if cause is None or not both:
                raise
            failed.append(cause)
    for cause in failed:
        print(f"pyraseg: {cause}", file=sys.stderr)
    return 1 if failed else 0


def is_photograph(item: dict[str, Any]) -> bool:
    image = item.get("image")
    return isinstance(image, str) and image.lower().endswith(PHOTOGRAPH)


def runtime_form(model: Model, items: list[dict[str, Any]], settings: dict[str, Any]) -> "Exported | None":
    """Return a model's form for ONNX Runtime, where there is one that does all that is asked; None: PyTorch does it.

    A line says why a form that would do is not taken.
    """
    if model.form is None or not settings.keys() <= {"outputs", "unlike"}:
        return None
    config = config_of(model, settings)
    able = all(config.get(key) == value for key, value in ABLE.items()) and set(config["outputs"]) <= set(QUICK)
    if not able or not all(is_photograph(item) or "fault" in item for item in items):
        return None
    if find_spec("onnxruntime") is None:
        print(
            f"{model.name} runs in PyTorch, which takes several times as long to start: ONNX Runtime is missing. "
            'pip install "pyraseg[runtime]"',
            flush=True,
        )
        return None
    large = next((item for item in items if is_photograph(item) and pixel_count(item["image"]) > LARGEST), None)
    if large is not None:
        print(
            f"{large['image']} has more than {LARGEST:,} pixels: PyTorch runs {model.name}, which takes less memory.",
            flush=True,
        )
        return None
    from bundle.pyraseg.runtime import Model as Exported

    exported = Exported(model.form, threads=processors())
    if exported.properties["weights_sha256"] != model.digest:
        print(f"{model.form} is a form of other weights than {model.path}, which run in PyTorch.", flush=True)
        return None
    if differing := [key for key, value in told(exported).items() if config[key] != value]:
        print(
            f"{model.form} was exported with another value of {', '.join(differing)} than the configs have: PyTorch "
            f"runs {model.name}. pyraseg quantize writes it anew.",
            flush=True,
        )
        return None
    return exported


def told(form: "Exported") -> dict[str, Any]:
    """Return what an exported model does around its network, by keys of the configs of inference."""
    names, tidying = form.structures.names, form.tidying
    return {
        "tta_flips": form.recipe["tta_flips"],
        "keep_largest": [names[place] for place in tidying.keep_largest],
        "fill_holes": [names[place] for place in tidying.fill_holes],
        "min_size": tidying.min_size,
    }


def config_of(model: Model, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the merged config of inference of a model's task, as it is written."""
    files, _ = config_files([model.task], program="inference")
    merged = {key: value for file in files for key, value in json.loads(file.read_text(encoding="utf-8")).items()}
    return merged | settings


def model_for(photographs: bool, what: str) -> Model:
    """Return the model for a kind of image: that of the current folder, else an included one."""
    models = shipped_models()
    trained = Path("models", "model.pt")
    if trained.is_file() and all(model.path.resolve() != trained.resolve() for model in models):
        about = json.loads((home() / "configs" / "metadata.json").read_text(encoding="utf-8"))
        models.insert(0, Model("model", DEFAULT_TASK, trained.resolve(), about))
    fitting = [model for model in models if model.takes_photographs == photographs]
    if not fitting:
        raise PyrasegError(f"There is no model for {what}. Train one (pyraseg train), or give one (--model).")
    return min(fitting, key=lambda model: (not model.is_trained_here, model.clicks is not None, model.form is None))


def introduced(model: Model, form: "Exported | None") -> str:
    """Return what is to be known before a model is used; `form` is what of it runs in ONNX Runtime."""
    program = "PyTorch" if form is None else f"{form.properties['precision']}, ONNX Runtime"
    if model.is_trained_here:
        return f"{model.path}, trained here: {model.about['task']}. {program}. Not for diagnosis."
    text = f"the model {model.name} ({model.path if form is None else form.path}; {program}): {model.about['task']}. "
    text += f"Trained on: {model.about['data_source']}. "
    text += f"{model.about['intended_use']}."
    if model.task == DEFAULT_TASK and model.name == DEFAULT_TASK:
        text += SYNTHETIC
    return text


def run(task: str, weights: Path, target: Path, settings: dict[str, Any], *, source: Path | None = None) -> None:
    """Run `inferring` with the weights of a task, on what the settings name, or on a file or folder."""
    from bundle.pyraseg.commands.run import run_config
    from bundle.pyraseg.workflow import verbatim

    files, root = config_files([task], program="inference")
    own = {"model_file": verbatim(weights.resolve()), "output_dir": verbatim(target)}
    read = {} if source is None else {"dataset_dir": verbatim(source)}
    run_config("inferring", files, root, own | settings | read)


def with_runtime(model: Path, source: Path, target: Path, outputs: str | None, settings: dict[str, Any]) -> int:
    """Segment with an exported model, without PyTorch; return the exit code."""
    from bundle.pyraseg.runtime import main as runtime

    settings = for_runtime(settings, "seg_type")
    typed = {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in settings.items()}
    listed = {key: value if isinstance(value, list) else [value] for key, value in typed.items()}
    words = [word for key, values in listed.items() for word in (f"--{key}", *(map(str, values or ["none"])))]
    return runtime([str(model), str(source), str(target), "--format", outputs or "png", *words])


def for_runtime(settings: dict[str, Any], *others: str) -> dict[str, Any]:
    """Return options for an exported model.

    Args:
        settings: what was typed.
        others: further names that are options.

    Raises:
        PyrasegError: one is of the configs, which an exported model has none of.
    """
    able = ["threads", "series", "select", "phase", "refuse", "unlike", *others]
    if unknown := settings.keys() - set(able):
        *names, last = (f"--{name}" for name in able)
        raise PyrasegError(f"With an ONNX model, the options are {', '.join(names)} and {last}, not --{min(unknown)}.")
    return settings


def with_package(
    package: Path, source: Path, target: Path, options: argparse.Namespace, settings: dict[str, Any]
) -> int:
    """Verify a package, and segment with its own configs, weights and code; return the exit code."""
    from bundle.pyraseg.packaging import unpack, verify
    from bundle.pyraseg.workflow import verbatim

    verified = verify(package, key=options.key, unsigned=options.unsigned)
    print(f"{verified.title}, verified: {verified.metadata['task']}. {verified.metadata['intended_use']}.", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve() / verified.name
        unpack(verified.files, folder)
        settings = {"dataset_dir": verbatim(source), "output_dir": verbatim(target), **settings}
        words = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        config = folder / "configs" / "inference.json"
        command = [sys.executable, "-P", "-m", "monai.bundle", "run", "inferring", "--config_file", str(config), *words]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(folder)}, check=False).returncode
