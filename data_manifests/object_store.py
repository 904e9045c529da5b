"""A store on an object store (`s3://...`), through fsspec: objects are listed, read and put whole."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_manifests.errors import InputError
from data_manifests.layout import MANIFEST, MANIFEST_COPY
from data_manifests.manifest import Manifest, manifest_bytes, parse_manifest


class ObjectStore:
    """The objects below a URL, by their paths below it. Endpoint and credentials are found as by any S3 client.

    Every method raises InputError, naming the URL, for whatever the object store refuses.

    Attributes:
        url: of the store, without a slash at the end.
    """

    def __init__(self, url: str) -> None:
        """Asks for nothing yet."""
        self.url = url.rstrip("/")
        import fsspec  # only those who have a URL need it

        try:
            self._files, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"cannot open {self.url}", found=str(error), wanted="a URL like s3://BUCKET/PREFIX",
                todo="pip install -e '.[cloud]' in the checkout, or check the URL",
            ) from error  # fmt: skip

    def read(self, name: str, begin: int | None = None, end: int | None = None) -> bytes | None:
        """An object's content, or its bytes from `begin` to `end`; None if it is not there."""
        with self._asking(f"read {name} of"):
            try:
                content: bytes = self._files.cat_file(self._path(name), start=begin, end=end)
            except FileNotFoundError:
                return None
        return content

    def sizes(self) -> dict[str, int]:
        """Bytes of every object."""
        with self._asking("list"):
            found = self._files.find(self._root, detail=True)
        return {path.removeprefix(self._root).lstrip("/"): info["size"] for path, info in found.items()}

    def sizes_of(self, names: list[str]) -> list[int]:
        """Bytes of these objects."""
        with self._asking("look at objects of"):
            sizes: list[int] = self._files.sizes([self._path(name) for name in names])
        return sizes

    def get(self, names: list[str], folder: Path) -> None:
        """Fetches objects into a folder, at their names; nothing is checked."""
        if names:
            with self._asking("fetch from"):
                self._files.get([self._path(name) for name in names], [str(folder / name) for name in names])

    def put(self, names: list[str], folder: Path) -> None:
        """Puts files of a folder at their names. An object is there whole or not at all, several of them are not."""
        if names:
            with self._asking("put to"):
                self._files.put([str(folder / name) for name in names], [self._path(name) for name in names])

    def remove(self, names: list[str]) -> None:
        """Removes objects."""
        with self._asking("remove from"):
            self._files.rm([self._path(name) for name in names])

    def manifest(self) -> Manifest | None:
        """The store's manifest; None if there is no store."""
        content = self.read(MANIFEST)
        return None if content is None else parse_manifest(content, self._path(MANIFEST))

    def known_manifest(self) -> Manifest:
        """The store's manifest.

        Raises:
            InputError: there is no store, or the object store refuses.
        """
        manifest = self.manifest()
        if manifest is None:
            raise InputError(
                f"no store at {self.url}", found=f"no {MANIFEST}", wanted="a URL that `python -m pipeline build` built to",
                todo="check the URL, or build it",
            )  # fmt: skip
        return manifest

    def put_manifest(self, manifest: Manifest) -> None:
        """Replaces the manifest, in one step, and then its copy."""
        content = manifest_bytes(manifest)
        with self._asking(f"put {MANIFEST} to"):
            for name in (MANIFEST, MANIFEST_COPY):
                self._files.pipe_file(self._path(name), content)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of object store has errors of its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InputError(
                    f"no room to {what} {self.url}", found=str(error), todo="make room on this machine's disk, then run the same command again",
                ) from error  # fmt: skip
            raise InputError(
                f"cannot {what} {self.url}", found=f"{type(error).__name__}: {error}",
                todo="check the URL, the credentials and the endpoint (AWS_ENDPOINT_URL), then run the same command again",
            ) from error  # fmt: skip
