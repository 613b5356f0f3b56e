# SPDX-License-Identifier: Apache-2.0
"""Label images by clicks, in a page of this machine: photographs, radiographs and DICOM series.

pyraseg click study/images

prints an address for a browser. The images come in the order of uncertainty. A left click says what belongs to the
structure, a right click what does not, a box surrounds it; each answer takes a fraction of a second on a CPU. A label
is saved where `pyraseg datalist` finds it: of the folder images in labels beside it, as PNG or DICOM SEG. Images
without a network for clicks of their own need --model. Nothing leaves the machine (docs/clicks.md).
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from bundle.pyraseg.commands import click_model, command_parser
from bundle.pyraseg.core import PHOTOGRAPH, PyrasegError, describe, hold, processors, protect, require_writable
from bundle.pyraseg.dicom import read_selection
from bundle.pyraseg.runtime import UNLIKE, ClickModel, find_inputs
from bundle.pyraseg_tools.click import Labeling, Server, by_uncertainty, how_to_pair, labels_of_folder


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("click", __doc__)
    parser.add_argument("images", type=Path, help="a folder, searched recursively, or one image")
    parser.add_argument("--model", metavar="NAME|FILE", help="a model that takes clicks: an included one, or a "
                        "FILE.onnx of `pyraseg export` (default: the exported one for such images)")  # fmt: skip
    parser.add_argument("--labels", type=Path, dest="output", metavar="DIR",
                        help="folder of the labels (default: labels beside images, else IMAGES_labels)")  # fmt: skip
    parser.add_argument("--log", type=Path, default=Path("runs/clicks.csv"), metavar="FILE",
                        help="seconds and clicks of each image, without its name (default: %(default)s)")  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="to listen at, on 127.0.0.1 (default: a free one)")
    parser.add_argument("--threads", type=int, default=processors(), help="of the network (default: %(default)s)")
    parser.add_argument("--series", default="", help="label these DICOM series alone: number, description or UID")
    parser.add_argument("--select", nargs="+", default=[], metavar="KEYWORD=VALUE",
                        help="what the slices of a series must have, such as EchoTime=4.6")  # fmt: skip
    parser.add_argument("--phase", default="", help="of a series that holds several phases: the number of one, or all")
    parser.add_argument("--refuse", nargs="+", metavar="ASPECT", help="see pyraseg segment")
    parser.add_argument("--unlike", choices=UNLIKE, default="warn", help="see pyraseg segment (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    images = options.images.expanduser().resolve()
    folder = images if images.is_dir() else images.parent
    labels = (options.output or labels_of_folder(folder)).resolve()
    require_writable([labels, options.log.parent])
    select = dict(read_selection(options.select)) if options.select else {}
    items = find_inputs(images, leave_out=labels, series=options.series, select=select, phase=options.phase)
    pictures = [str(item.get("image", "")).lower().endswith(PHOTOGRAPH) for item in items]
    model = ClickModel(click_model(options.model, photographs=any(pictures)), threads=options.threads)
    protect([model.path])

    def failed(name: str, error: Exception) -> None:
        print(f"{name}: left out, {describe(error)}", file=sys.stderr, flush=True)

    of_session = {"select": select, "refuse": options.refuse, "unlike": options.unlike}
    bar = tqdm(items, desc="first look", unit="image", disable=None)
    tasks = by_uncertainty(model, bar, labels, options=of_session, failed=failed)
    if not tasks:
        raise PyrasegError(f"None of the {len(items)} images of {images} can be labeled with {model.path}.")
    hold(labels, "labeling")
    server = Server(Labeling(model, tasks, options.log, of_session), port=options.port)
    done = sum(task.is_done for task in tasks)
    print(f"{len(tasks)} image(s), {done} labeled already; labels go to {labels}, seconds and clicks to {options.log}")
    print(f"Open this address in a browser of this machine: {server.address}\nCtrl+C ends.", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    done = sum(task.is_done for task in tasks)
    how = how_to_pair(folder, labels, are_dicom=not any(pictures))
    print(f"{done} of {len(tasks)} labeled. A data list of them: {how}")
    return 0
