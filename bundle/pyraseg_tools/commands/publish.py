# SPDX-License-Identifier: Apache-2.0
"""Publish a package: on the Hugging Face hub, or as a folder for a pull request to MONAI's model zoo.

pyraseg publish dist/pyraseg_dermoscopy_v0.4.0.zip --key public.pem --hub OWNER/pyraseg_dermoscopy --dry-run

The package is verified first, and exactly the verified bytes are published.
The token of the hub comes from `hf auth login` or HF_TOKEN. A new repository is private unless --public is given. The
zoo has no weights in git: --url is the address from which it downloads them, such as
https://huggingface.co/OWNER/NAME/resolve/VERSION. Anyone must be able to download from it (docs/sharing.md).
"""

import argparse
from pathlib import Path

from bundle.pyraseg.commands import command_parser
from bundle.pyraseg.packaging import Verified, verify
from bundle.pyraseg_tools.publishing import write_zoo, zoo_files


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = command_parser("publish", __doc__)
    parser.add_argument("package", type=Path, help="zip from `pyraseg package`")
    trust = parser.add_mutually_exclusive_group(required=True)
    trust.add_argument("--key", type=Path, metavar="PUBLIC", help="PEM file of the public key that signed it")
    trust.add_argument("--unsigned", action="store_true", help="publish it without a signature")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--hub", metavar="OWNER/NAME", help="repository of the Hugging Face hub")
    target.add_argument("--zoo", type=Path, metavar="CLONE", help="clone of the model zoo, to write models/NAME in")
    parser.add_argument("--public", action="store_true", help="make a new repository of the hub public")
    parser.add_argument("--url", help="address of the folder from which the zoo downloads large files")
    parser.add_argument("--dry-run", action="store_true", help="list what would be published, and publish nothing")
    options = parser.parse_args(argv)
    if (options.zoo is None) != (options.url is None):
        parser.error("--zoo and --url go together")
    if options.zoo is not None and options.public:
        parser.error("--public goes with --hub")
    return options


def main(argv: list[str] | None = None) -> None:
    options = arguments(argv)
    if options.hub is not None:
        from bundle.pyraseg_tools.publishing import check_repository  # the hub's client is an extra

        check_repository(options.hub)
    print(f"Verifying {options.package} ...", flush=True)
    package = verify(options.package, key=options.key, unsigned=options.unsigned)
    print(to_zoo(package, options) if options.hub is None else to_hub(package, options))


def to_zoo(package: Verified, options: argparse.Namespace) -> str:
    if options.dry_run:
        return listed(zoo_files(package.files, options.url), f"{options.zoo / 'models' / package.name}")
    folder = write_zoo(package, options.zoo, options.url)
    return f"Wrote {package.title} to {folder}; its large files come from {options.url}"


def to_hub(package: Verified, options: argparse.Namespace) -> str:
    from bundle.pyraseg_tools.publishing import check_card, publish

    check_card(package)
    if options.dry_run:
        return listed(package.files, options.hub)
    print(f"Uploading {package.title}, {size(package.files)}, to {options.hub} ...", flush=True)
    return f"Published {package.title} at {publish(package, options.hub, public=options.public)}"


def listed(files: dict[str, bytes], where: str) -> str:
    lines = [f"{len(content):>12,}  {path}" for path, content in sorted(files.items())]
    return "\n".join([*lines, f"Nothing was published: {size(files)} would go to {where}"])


def size(files: dict[str, bytes]) -> str:
    return f"{len(files)} files of {sum(map(len, files.values())) / 1e6:.1f} MB"
