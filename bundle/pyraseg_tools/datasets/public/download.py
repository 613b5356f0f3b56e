# SPDX-License-Identifier: Apache-2.0
"""Download a file so that an interruption costs little and a wrong file is never taken for the right one."""

import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from bundle.pyraseg.core import PyrasegError, file_digest, replacing

logger = logging.getLogger(__name__)

#: How often an interrupted transfer goes on by itself, and seconds without a byte that count as an interruption.
RETRIES, TIMEOUT = 5, 60
_BLOCK = 1 << 20


def download(url: str, path: Path, *, checksum: str | None = None, pause: float = 2.0) -> str:
    """Download a file, go on where an earlier attempt ended, and return its SHA-256.

    The transfer is kept in `path` + ".part" and moved to `path` when it is whole and its checksum right. What the
    server calls the version of the file (its ETag or date) is kept beside it: a file that has changed meanwhile starts
    anew. A file at `path` is not transferred again, but checked.

    Args:
        url: http or https.
        path: file to write.
        checksum: "md5:..." or "sha256:..." in hexadecimal. Without one, the SHA-256 of the first download is written
            to `path` + ".sha256" and later ones must agree with it.
        pause: seconds before the first retry; it doubles with each.

    Raises:
        PyrasegError: the server cannot be reached, refuses, keeps breaking off, or sends another file than expected.
    """
    if not url.startswith(("https://", "http://")):
        raise PyrasegError(f"{url} is no address of the form https://... Correct it.")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        for attempt in range(RETRIES + 1):
            try:
                _transfer(url, part)
                break
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise PyrasegError(
                        f"{url} cannot be downloaded: the server answers {error.code} {error.reason}. Check whether "
                        "the address is still valid, or give a --mirror."
                    ) from error
                reason = f"{error.code} {error.reason}"
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            have = part.stat().st_size if part.exists() else 0
            if attempt == RETRIES:
                raise PyrasegError(
                    f"{url} was interrupted ({reason}); {have:,} bytes are in {part}. Run the program again to "
                    "continue."
                )
            logger.warning("%s: %s after %s bytes, trying again", path.name, reason, f"{have:,}")
            time.sleep(pause * 2**attempt)
        _check(part, path, checksum, url)
        part.replace(path)
        _validator_of(part).unlink(missing_ok=True)
        return _record(path, checksum)
    _check(path, path, checksum, url)
    return _record(path, checksum)


def _transfer(url: str, part: Path) -> None:
    """Append to `part` what it lacks; raise OSError where the transfer ends early."""
    have = part.stat().st_size if part.exists() else 0
    validator = json.loads(_validator_of(part).read_text()) if _validator_of(part).exists() else None
    request = urllib.request.Request(url, headers={"User-Agent": "pyraseg", "Accept-Encoding": "identity"})
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # there is nothing left to send
        if error.code == 416:
            part.unlink()
            raise OSError("the server's file is shorter than what is here") from error
        raise
    with response:
        resumed = response.status == 206
        if resumed and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            part.unlink()
            raise OSError("the server sent another range than asked for")
        if not resumed:
            have = 0
            # A weak ETag does not promise the same bytes, so it cannot say that a transfer may go on.
            tag = response.headers.get("ETag") or ""
            validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
            _validator_of(part).write_text(json.dumps(validator))
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        title = part.name.removesuffix(".part")
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(desc=title, initial=have, total=total, unit="B", unit_scale=True, disable=None) as progress,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                progress.update(len(block))
        size = part.stat().st_size
        if total is not None and size != total:
            raise OSError(f"the transfer ended at {size:,} of {total:,} bytes")


def _check(file: Path, path: Path, checksum: str | None, url: str) -> None:
    """Compare a file with its checksum, or with the one of the first download."""
    record = _record_of(path)
    if checksum is None and not record.exists():
        return
    expected = checksum or f"sha256:{record.read_text().split()[0]}"
    algorithm, _, value = expected.partition(":")
    found = file_digest(file, algorithm)
    if found != value.lower():
        whose = "published" if checksum else f"recorded in {record}"
        if file != path:
            file.unlink()
            _validator_of(file).unlink(missing_ok=True)
        raise PyrasegError(
            f"{url} is not the expected file: its {algorithm.upper()} is {found}, the one {whose} is {value}. "
            + ("It was deleted; run the program again." if file != path else f"Delete {path} and run again.")
        )


def _record(path: Path, checksum: str | None) -> str:
    """Return the SHA-256, and keep that of a first download where nobody publishes one."""
    found = file_digest(path)
    if checksum is None and not _record_of(path).exists():
        with replacing(_record_of(path)) as partial:
            partial.write_text(f"{found}  {path.name}\n")
        logger.warning("No checksum of %s is published: its SHA-256 is recorded in %s", path.name, _record_of(path))
    return found


def _record_of(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _validator_of(part: Path) -> Path:
    return part.with_name(part.name + ".version")
