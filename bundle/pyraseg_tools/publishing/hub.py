# SPDX-License-Identifier: Apache-2.0
"""A package as a repository of the Hugging Face hub: the same files, a tag for its version, and `latest_version`.

MONAI's `push_to_hf_hub` uploads, and four things around it are done here, because it (of MONAI 1.6.1) would write
`docs/README.md` over the card, leave files of an earlier version where they are, never move a tag that exists, and
take what was uploaded on trust.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from monai.bundle import push_to_hf_hub

from bundle.pyraseg.core import PyrasegError
from bundle.pyraseg.packaging import BILL, Verified, unpack

CARD = "README.md"
LATEST = "latest_version"  # what MONAI downloads where no version is asked for
_OF_THE_HUB = ".gitattributes"  # which the hub writes into every repository


def publish(package: Verified, repository: str, *, public: bool = False) -> str:
    """Publish a package; return its address.

    The token is that of the environment (HF_TOKEN) or of `hf auth login`.

    Args:
        package: that was verified.
        repository: OWNER/NAME; it is made where there is none.
        public: whether one that is made is public.

    Raises:
        PyrasegError: there is no token, the hub refuses, the version was published before, the repository holds
            something else, or the hub does not have the files of the package afterwards.
    """
    check_repository(repository)
    if get_token() is None:
        raise PyrasegError("There is no token for the Hugging Face hub. Run `hf auth login`, or set HF_TOKEN.")
    try:
        return _publish(HfApi(), package, repository, public)
    except PyrasegError:
        raise
    # OSError and RuntimeError: the store of large files (hf_xet). ValueError: the hub finds the front matter wrong.
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise PyrasegError(
            f"The hub did not take {package.title} into {repository}; existing tags are unchanged, and the same "
            f"command tries again. It said: {said}"
        ) from error


def check_repository(repository: str) -> None:
    """Check that a repository has a name that the hub takes, OWNER/NAME."""
    part = r"\w([\w.-]*\w)?"
    if re.fullmatch(f"{part}/{part}", repository, re.ASCII) is None or ".." in repository or "--" in repository:
        raise PyrasegError(f"{repository!r} is no repository of the hub. Give OWNER/NAME, in ASCII.")


def check_card(package: Verified) -> None:
    """Check that a package's first page is a card of the hub."""
    if not package.files[CARD].startswith(b"---\n"):
        raise PyrasegError(
            f"The {CARD} of {package.title} has no front matter: an earlier pyraseg made it. Package it again."
        )


def _publish(api: HfApi, package: Verified, repository: str, public: bool) -> str:
    version = package.metadata["version"]
    api.create_repo(repository, private=not public, exist_ok=True)
    tags = {tag.name for tag in api.list_repo_refs(repository).tags}
    if version in tags:
        raise PyrasegError(
            f"{repository} has {version} already, and others may have downloaded it. Raise the version in "
            "configs/metadata.json and pyproject.toml, add it to the changelog, and package again."
        )
    with tempfile.TemporaryDirectory() as temporary:
        _check_own(api, repository, package.name, Path(temporary) / "present")
        unpack(package.files, Path(temporary) / package.name)
        push_to_hf_hub(
            repository,
            package.name,
            temporary,
            private=not public,
            ignore_patterns=[CARD],
            commit_message=package.title,
        )
    stale = set(api.list_repo_files(repository)) - package.files.keys() - {_OF_THE_HUB}
    commit = api.create_commit(
        repository,
        operations=[
            CommitOperationAdd(CARD, package.files[CARD]),
            *(CommitOperationDelete(path, is_folder=False) for path in sorted(stale)),
        ],
        commit_message=f"{package.title}: card",
    )
    _check_uploaded(api, package.files, repository, commit.oid)
    if all(_numbers(version) > _numbers(tag) for tag in tags if re.fullmatch(r"\d+(\.\d+)*", tag)):
        if LATEST in tags:
            api.delete_tag(repository, tag=LATEST)
        api.create_tag(repository, tag=LATEST, revision=commit.oid)
    api.create_tag(repository, tag=version, revision=commit.oid)  # the last, as it says that all was done
    return f"{api.endpoint}/{repository}/tree/{version}"


def _check_own(api: HfApi, repository: str, name: str, folder: Path) -> None:
    """Check that a repository is new, or has an earlier version of the package: files of that are removed."""
    present = set(api.list_repo_files(repository)) - {_OF_THE_HUB, CARD}
    holds = "other files"
    if BILL in present:
        bill = json.loads(Path(api.hf_hub_download(repository, BILL, local_dir=folder)).read_bytes())
        holds = bill.get("metadata", {}).get("component", {}).get("name", holds)
    if present and holds != name:
        raise PyrasegError(f"{repository} holds {holds}, which {name} would replace. Give a repository of its own.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def _check_uploaded(api: HfApi, files: Mapping[str, bytes], repository: str, revision: str) -> None:
    """Check that a revision has the files of a package and no others, by the sums that the hub keeps of them."""
    tree = api.list_repo_tree(repository, recursive=True, revision=revision)
    found = {
        entry.path: entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
        for entry in tree
        if isinstance(entry, RepoFile) and entry.path != _OF_THE_HUB
    }
    for path in sorted(found.keys() | files.keys()):
        content = files.get(path)
        if content is None or found.get(path) not in (hashlib.sha256(content).hexdigest(), git_hash(content)):
            raise PyrasegError(
                f"{repository} does not have the package's files: {path} differs at {revision}, which has no tag. Was "
                "something else uploaded at the same time? The same command tries again."
            )
