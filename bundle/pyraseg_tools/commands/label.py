# SPDX-License-Identifier: Apache-2.0
"""Serve packaged bundles through MONAI Label to 3D Slicer and OHIF: inference, labels, retraining.

pyraseg label dist/pyraseg_dermoscopy_v0.4.0.zip --studies FOLDER

It runs in a separate environment, .venv-label, which `make label` creates (docs/label.md).
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import bundle.pyraseg_tools
from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.core import PyrasegError, without_suffix
from bundle.pyraseg.datalists import patients_by_pattern
from bundle.pyraseg.dicom import Purpose, read_wanted, scan_files, those_meant
from bundle.pyraseg.runtime import UNLIKE
from bundle.pyraseg_tools.monai_label import TOKEN, Access, put_bundles

#: What the server reads from a folder; every other setting of MONAI Label stays the environment's.
SETTINGS = {
    "MONAI_LABEL_DATASTORE_FILE_EXT": '["*.nii.gz", "*.nii", "*.nrrd", "*.mha", "*.png", "*.jpg", "*.jpeg"]',
    "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",  # it would score every image at every request for the next one
}
#: What is off, whatever the environment says: the server keeps sessions and asks for a token itself.
OFF = {"MONAI_LABEL_SESSIONS": "false", "MONAI_LABEL_TRACKING_ENABLED": "false", "MONAI_LABEL_AUTH_ENABLE": "false"}
#: The first MONAI Label without the holes that SECURITY.md lists.
CLOSED = (0, 8, 8)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("label", __doc__)
    parser.add_argument("bundles", type=Path, nargs="+",
                        help="zips from `pyraseg package`, or folders of other bundles")  # fmt: skip
    parser.add_argument("--studies", required=True,
                        help="folder of images and labels, or the DICOMweb address of a PACS")  # fmt: skip
    parser.add_argument("--filter", nargs="+", metavar="KEYWORD=VALUE",
                        help="series of a PACS to serve, such as Modality=CT StudyDate=20260101-")  # fmt: skip
    parser.add_argument("--series", default="",
                        help="serve these DICOM series alone: number, description ('portal*') or UID")  # fmt: skip
    parser.add_argument("--refuse", nargs="+", metavar="ASPECT",
                        help="in what images may not differ from those that a model is for: modality, body_part, "
                        "plane, pet_units (commas between several), or none (default: as the bundles say)")  # fmt: skip
    parser.add_argument("--unlike", choices=UNLIKE,
                        help="what is done about images that are unlike those that a model was trained on (default: as "
                        "the bundles say)")  # fmt: skip
    parser.add_argument("--ca-bundle", type=Path, metavar="PEM", help="certificate authority of the hospital")
    parser.add_argument("--allow-http", action="store_true",
                        help="allow images from another machine without encryption")  # fmt: skip
    parser.add_argument("--patient-pattern", metavar="REGEX",
                        help="its first group is the patient in a file name, such as '^(.+)_[ab]'")  # fmt: skip
    parser.add_argument("--reviewer", default="not named", metavar="NAME",
                        help="user name or role of who submits labels, where the client tells none (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--app-dir", type=Path, default=Path("runs/label"), help="server folder (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, metavar="FILE",
                        help=f"file with the token that clients must know (default: {TOKEN} in the environment); "
                             "needed where other machines reach the server")  # fmt: skip
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="certificate of the server, for HTTPS")
    parser.add_argument("--key", type=Path, metavar="PEM", help="private key of the certificate")
    parser.add_argument("--behind-proxy", metavar="NAME",
                        help="a proxy of the site encrypts; clients call it NAME (label.example.org)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="log more, also file names")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if importlib.util.find_spec("monailabel") is None:
        raise PyrasegError("MONAI Label is not installed here. `make label` installs it in .venv-label.")
    access = Access.of(options, os.environ)
    remote = options.studies.startswith(("http://", "https://"))
    settings = (
        look_at_pacs(options)
        if remote
        else look_at_folder(Path(options.studies), options.patient_pattern, options.series)
    )
    if listens(options.host, options.port):
        raise PyrasegError(f"Something listens on {options.host}:{options.port} already. Give another --port.")
    options.app_dir = options.app_dir.resolve()
    folders = put_bundles(options.bundles, options.app_dir)
    names = [folder.name for folder in folders]
    print(told(access.url, names, options.studies, remote), flush=True)
    print(told_version(version("monailabel")), flush=True)
    studies = options.studies if remote else str(Path(options.studies).resolve())
    if options.refuse:
        settings["refuse"] = ",".join(Purpose(refuse=options.refuse).refuse)
    if options.unlike:
        settings["unlike"] = options.unlike
    settings["reviewer"] = options.reviewer
    settings["names"] = ",".join(sorted(access.names))
    start = (
        command(options, folders, studies, settings, access.for_uvicorn()),
        environment(folders, options.app_dir, access.token),
    )
    here = emptied(options.app_dir) / "here"
    here.mkdir()
    os.chdir(here)  # MONAI Label looks for images and settings where it is started: nothing is ever put there
    os.execve(sys.executable, *start)


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def emptied(app: Path) -> Path:
    """Return an empty folder for uploads and results, closed to others; remove what a server that was killed left."""
    for left in (app / "dicom").glob("*/.*.tmp"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    folder = temporary(app)
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    return folder


def temporary(app: Path) -> Path:
    return app / "temporary"


def look_at_folder(folder: Path, patient_pattern: str | None = None, series: str = "") -> dict[str, str]:
    """Return what the app has to know of a folder, after a look that it holds images whose patients are told."""
    if not folder.is_dir():
        raise PyrasegError(f"There is no folder {folder} with images. Correct --studies.")
    patterns = json.loads({**SETTINGS, **os.environ}["MONAI_LABEL_DATASTORE_FILE_EXT"])
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    if files:
        if patient_pattern is None:
            print(f"{len(files)} images in {folder}")
            return {"dicom": "false"}
        patients = set(patients_by_pattern([without_suffix(file.name) for file in files], patient_pattern))
        print(f"{len(files)} images of {len(patients)} patients in {folder}")
        return {"dicom": "false", "patient_pattern": patient_pattern}
    refuse_pattern(patient_pattern)
    scan = scan_files(sorted(file for file in folder.rglob("*") if file.is_file()), root=folder)
    known = [one for one in scan.series if one.has_uid or one.view_of]
    if not known:
        raise PyrasegError(
            f"{folder} holds no image: it must contain {', '.join(patterns)} files, or DICOM series at any depth. "
            "Correct --studies."
        )
    print(f"{len(those_meant(known, read_wanted(series), folder))} DICOM series in {folder}")
    return {"dicom": "true"} | ({"series": series} if series else {})


def refuse_pattern(patient_pattern: str | None) -> None:
    if patient_pattern is not None:
        raise PyrasegError("--patient-pattern is for file names. DICOM series are grouped by Patient ID.")


def look_at_pacs(options: argparse.Namespace) -> dict[str, str]:
    """Return what the app has to know of a PACS, after a look that it answers and has such series."""
    from bundle.pyraseg_tools.pacs import connect, find_series, parse_filters

    refuse_pattern(options.patient_pattern)
    if options.filter is None:
        raise PyrasegError("A PACS has many kinds of image. Select one, such as --filter Modality=CT.")
    filters, ca_bundle = parse_filters(options.filter), options.ca_bundle
    client = connect(options.studies, environment=os.environ, ca_bundle=ca_bundle, allow_http=options.allow_http)
    found = find_series(client, filters, series=read_wanted(options.series))
    if not found:
        also = f" that --series {options.series!r} means" if options.series else ""
        raise PyrasegError(f"{options.studies} has no series with {' '.join(options.filter)}{also}. Correct --filter.")
    print(f"{len(found)} series in {options.studies}")
    return {
        "filter": json.dumps(filters),
        **({"series": options.series} if options.series else {}),
        "ca_bundle": str(ca_bundle.resolve()) if ca_bundle else "",
        "allow_http": str(options.allow_http).lower(),
    }


def told(url: str, names: list[str], studies: str, remote: bool) -> str:
    """Return where the server is and how to reach it."""
    ohif = f"open {url}/ohif/ in a browser." if remote else "it shows the studies of a PACS; this is a folder."
    return f"""Serving {", ".join(names)} at {url}, on {studies}. It is up when {url}/info/ answers; Ctrl+C ends it.
3D Slicer: install the extension MONAILabel, open its module, MONAI Label server = {url}, then Next Sample.
OHIF: {ohif}"""


def told_version(found: str) -> str:
    """Return which MONAI Label runs, and what it lacks."""
    if tuple(int(part) for part in re.findall(r"\d+", found)[:3]) >= CLOSED:
        return f"MONAI Label {found}."
    return (
        f"MONAI Label {found}, which has published security holes: the server keeps clients from what has them "
        f"(SECURITY.md). Where a package index has {'.'.join(map(str, CLOSED))} or later, remove .venv-label and run "
        "`make label` again."
    )


def command(
    options: argparse.Namespace, folders: list[Path], studies: str, settings: dict[str, str], encryption: list[str]
) -> list[str]:
    """Return the command that becomes the server."""
    return [
        sys.executable, "-m", "monailabel.main", "start_server",
        "--app", str(options.app_dir), "--studies", studies,
        "--uvicorn_app", "bundle.pyraseg_tools.monai_label.web:app",
        "--host", options.host, "--port", str(options.port), *encryption,
        "--conf", "models", ",".join(folder.name for folder in folders),
        *(part for name, value in settings.items() for part in ("--conf", name, value)),
        "--conf", "verbose", str(options.verbose).lower(), "--verbose", "INFO" if options.verbose else "WARNING",
    ]  # fmt: skip


def environment(folders: list[Path], app: Path, token: str | None) -> dict[str, str]:
    """Return the environment of the server: the code of the bundles, and the mends that MONAI Label needs.

    The code is that of the packages, which is one (`put_bundles`); without a package of ours it is this one.
    """
    code = next((folder for folder in folders if (folder / "bundle" / "pyraseg").is_dir()), None)
    code = code or Path(bundle.pyraseg_tools.__file__).parents[2]
    path = [code, Path(bundle.pyraseg_tools.__file__).parent / "monai_label" / "site", os.environ.get("PYTHONPATH")]
    return {
        **SETTINGS,
        "OMP_NUM_THREADS": "1",
        **os.environ,
        **OFF,
        "TMPDIR": str(temporary(app)),
        "PYTHONPATH": os.pathsep.join(str(part) for part in path if part),
        "PYTHONSAFEPATH": "1",  # no module is looked for where a process is started
        **({TOKEN: token} if token else {}),
    }
