# SPDX-License-Identifier: Apache-2.0
"""Segment one image, corrected by clicks and boxes that a command line names."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.pyraseg.commands.models import shipped_models, with_clicks
from bundle.pyraseg.core import PyrasegError, begin_run, processors, protect
from bundle.pyraseg.runtime import Click

#: A number as it is typed.
NUMBER = r"\s*(-?\d+(?:\.\d*)?)\s*"


@dataclass(frozen=True)
class Corrections:
    """Hold what is given on a command line, for one structure of one slice.

    Attributes:
        inside, outside: clicks, (column, row).
        box: (column, row, column, row), if there is one.
        slice: from 1; None: the only one.
        structure: name of what is corrected; None: the first.
    """

    inside: Sequence[tuple[float, ...]] = ()
    outside: Sequence[tuple[float, ...]] = ()
    box: tuple[float, ...] | None = None
    slice: int | None = None
    structure: str | None = None

    def __bool__(self) -> bool:
        return bool(self.inside or self.outside or self.box)


def numbers_of(count: int) -> Any:
    """Return what reads so many numbers with commas between."""

    def numbers(text: str) -> tuple[float, ...]:
        found = re.fullmatch(",".join([NUMBER] * count), text)
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not {count} numbers with commas between, such as 120,80")
        return tuple(map(float, found.groups()))

    return numbers


def corrections_of(options: argparse.Namespace) -> Corrections:
    """Return the corrections among the options of a command.

    Raises:
        PyrasegError: a slice or a class is named, and no click.
    """
    found = Corrections(options.click, options.background, options.box, options.slice, options.structure)
    if not found and (found.slice is not None or found.structure is not None):
        raise PyrasegError(
            "--slice and --class are of clicks. Give --click X,Y, --background X,Y or --box X0,Y0,X1,Y1."
        )
    return found


def click_model(name: str | None, *, photographs: bool) -> Path:
    """Return the file of a model that clicks correct, beside which lies what is computed for each click.

    Args:
        name: of an included model, or its file, of weights or a whole path; None: the included one.
        photographs: whether it is for photographs.

    Raises:
        PyrasegError: there is none.
    """
    models = shipped_models()
    known = {model.name: model for model in models if model.clicks is not None}
    trained = ", ".join(model.name for model in models if model.name.endswith("_click"))
    export = f"`pyraseg export NAME` writes it of weights that were trained for clicks ({trained}; docs/clicks.md)."
    if name is None:
        fitting = [model for model in known.values() if model.takes_photographs == photographs]
        if len(fitting) != 1:
            names = ", ".join(model.name for model in fitting) or "none is exported yet"
            raise PyrasegError(f"Name a model that takes clicks, --model ({names}). {export}")
        path = fitting[0].clicks
    elif name in known:
        path = known[name].clicks
    elif name.endswith(".onnx"):
        return Path(name).expanduser()
    else:
        weights = next((model.path for model in models if model.name == name), Path(name).expanduser())
        path = with_clicks(weights) if weights.is_file() else None
    if path is None:
        raise PyrasegError(f"There is no exported model {name!r} that takes clicks. {export}")
    return path


def segment_with_clicks(
    model_file: Path,
    source: Path,
    target: Path,
    corrections: Corrections,
    *,
    outputs: str | None,
    threads: int | None = None,
    select: Any = None,
    **options: Any,
) -> int:
    """Segment one image with an exported model, corrected by clicks, and write the result; return the exit code.

    Args:
        model_file: see `click_model`.
        source: the image, or a folder with one.
        target: folder of the results.
        corrections: what was clicked.
        outputs: png, nifti or seg, as for every exported model.
        threads: of the network; None: the processors there are.
        select: which slices a series consists of.
        options: `series` and `phase` for the search, `refuse` and `unlike` for the image.

    Raises:
        PyrasegError: there is not one image, it is none for this model, or a click is not inside of it.
    """
    from bundle.pyraseg.dicom import read_selection
    from bundle.pyraseg.runtime import ClickModel, ClickSession, find_inputs, nifti_writer, png_writer, seg_writer

    begin_run()
    kinds = {"png": png_writer, "nifti": nifti_writer}
    if (kind := outputs or "png") not in (*kinds, "seg"):
        raise PyrasegError(f"With clicks, --outputs is one of png, nifti and seg, not {kind!r}.")
    model = ClickModel(model_file, threads=threads or processors())
    write = kinds[kind](model.structures) if kind in kinds else seg_writer(model, algorithm_type="SEMIAUTOMATIC")
    protect([model_file])
    found = {key: options.pop(key, "") for key in ("series", "phase")}
    items = find_inputs(source, leave_out=target, select=select, **found)
    if len(items) != 1:
        raise PyrasegError(f"Clicks are of one image, and {source} holds {len(items)}. Name one, or use pyraseg click.")
    (item,) = items
    if "fault" in item:
        raise PyrasegError(f"{item['name']}: {item['fault']}")
    select = dict(read_selection(select)) if select else {}
    session = ClickSession(model, item["image"], select=select, name=item["name"], **options)
    if corrections.slice is None and session.shape[0] > 1:
        raise PyrasegError(f"The series has {session.shape[0]} slices. Say which one was clicked: --slice N, from 1.")
    clicks: list[Click] = [(x, y, True) for x, y in corrections.inside]
    clicks += [(x, y, False) for x, y in corrections.outside]
    changed = session.refine(
        clicks, box=corrections.box, structure=model.chosen(corrections.structure), number=(corrections.slice or 1) - 1
    )
    paths = write(session.result(), target / item["name"])
    name, version = model.algorithm
    slices = f", {len(changed)} slices corrected" if session.shape[0] > 1 else ""
    print(f"{name} {version}: {session.clicks} click(s), {session.boxes} box(es){slices}", flush=True)
    print(f"{item['name']} -> {', '.join(str(path.relative_to(target)) for path in paths)}", flush=True)
    return 0
