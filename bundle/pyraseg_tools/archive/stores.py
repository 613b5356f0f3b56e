# SPDX-License-Identifier: Apache-2.0
"""Object storage (S3, Google Cloud Storage, Azure), through obstore; errors in words."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bundle.pyraseg.core import PyrasegError, require
from bundle.pyraseg_tools.pacs import PacsError, Unavailable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

#: How the address of object storage begins.
SCHEMES = ("s3", "gs", "az")
#: A request is tried again so often, with pauses between, for so many seconds.
RETRIES: dict[str, Any] = {"max_retries": 8, "retry_timeout": timedelta(seconds=120)}

#: What answers of S3, Azure and Google Cloud Storage have within where there is no such bucket.
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")


def is_store(url: str) -> bool:
    """Return whether an address is one of object storage."""
    return url.partition("://")[0] in SCHEMES and "://" in url


def open_store(url: str) -> "ObjectStore":
    """Return a store; nothing is sent yet.

    Credentials, region and endpoint come from the environment, by the names that the providers' own tools have:
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL. Without TLS it sends nothing, unless
    AWS_ALLOW_HTTP is true. What is sent to S3 has a SHA-256 that the server checks.

    Args:
        url: such as s3://bucket/folder.

    Raises:
        PyrasegError: it is no address of a store, or what is in the environment cannot be.
    """
    stores = require("obstore.store")
    more = {"checksum_algorithm": "SHA256"} if url.startswith("s3:") else {}
    try:
        return stores.from_url(url, retry_config=RETRIES, **more)
    except Exception as error:  # its own base class, or ValueError
        raise PyrasegError(f"{url} is no address of object storage. Give one such as s3://bucket/folder.") from error


@contextmanager
def plain_store_errors(url: str) -> Generator[None]:
    """Raise what goes wrong between here and a store in words that quote no answer and no credentials.

    Raises:
        Unavailable: no way to it, no entrance, or no such bucket.
        PacsError: another failure of the store, after it was tried again several times.
        PyrasegError: it has no such object.
    """
    errors = require("obstore.exceptions")
    try:
        yield
    except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
        raise Unavailable(f"{url} refuses the credentials, or does not permit this. Set those of its user.") from error
    except FileNotFoundError as error:
        if any(words in str(error) for words in NO_BUCKET):
            raise Unavailable(f"{url}: there is no such bucket. Correct the address, or make it.") from error
        raise PyrasegError(f"an object of it is not in {url} any more. List the source again.") from error
    except errors.BaseError as error:
        if "kind: Connect" in str(error):  # obstore 0.12.1 has no class of its own for it
            raise Unavailable(f"There is no way to {url}. Look at AWS_ENDPOINT_URL and the network.") from error
        raise PacsError(
            f"{url} does not answer as it should, several times. Try again later, or look at it."
        ) from error
