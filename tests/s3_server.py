"""A real S3 server, in a process of its own, on this machine only."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from data_manifests.object_store import ObjectStore


@contextmanager
def s3_server() -> Iterator[str]:
    """Runs one, with a bucket; yields the bucket's URL. While it runs, the environment has its endpoint and keys."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while server.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                    patch.setenv(name, "testing")
                patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
                bucket = f"bucket-{uuid4().hex}"
                fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
                yield f"s3://{bucket}"
        finally:
            server.kill()


def fetched(url: str, folder: Path) -> Path:
    """A remote store, copied whole."""
    remote = ObjectStore(url)
    remote.get(list(remote.sizes()), folder)
    return folder


def put_bytes(url: str, name: str, content: bytes) -> None:
    """Replaces an object."""
    fsspec.filesystem("s3").pipe_file(f"{url}/{name}", content)
