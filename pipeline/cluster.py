"""Dask distributed as the executor of a build: the same shard jobs, on the machines of a cluster."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from data_manifests.errors import InputError
from pipeline.jobs import library_versions, other_versions

PATIENCE = 30
"""Seconds to wait for the scheduler and for its first worker."""


@contextmanager
def dask_cluster(scheduler: str) -> Iterator[Executor]:
    """The workers of a Dask cluster, as an executor. A job whose worker dies is run again on another.

    The store and the dataset must lie on a file system that all of them share, at the same paths. Workers that join
    later help too, but only those that are there now are asked for their versions.

    Args:
        scheduler: its address, such as `tcp://10.0.0.1:8786`.

    Raises:
        InputError: Dask is not installed, no scheduler or worker answers, a worker has other versions of what decides
            a store's bytes, a job killed several workers, or the scheduler was lost.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        raise InputError(
            "--scheduler needs Dask distributed", found=str(error), todo="pip install -e '.[cluster]' in the checkout"
        ) from error
    if not re.search(r":\d+$", scheduler):  # Dask would try for a minute
        raise InputError(
            f"--scheduler {scheduler} has no port", wanted="an address like tcp://10.0.0.1:8786", todo="add it"
        )
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Dask scheduler answers at {scheduler}", found=str(error), wanted="an address like tcp://10.0.0.1:8786",
            todo="start `dask scheduler`, or check --scheduler",
        ) from error  # fmt: skip
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"the Dask scheduler at {scheduler} has no workers",
                todo=f"start some: `dask worker {scheduler}` where tubelets is installed",
            ) from error
        _check_versions(client.run(library_versions, on_error="return"))
        try:
            yield _Cluster(client)
        except distributed.KilledWorker as error:
            raise InputError(
                "a shard's worker died again and again", found=str(error).splitlines()[0],
                todo="give the workers more memory and run the same command again; finished shards stay",
            ) from error  # fmt: skip
        except CancelledError as error:
            raise InputError(
                f"the Dask scheduler at {scheduler} was lost",
                todo="run the same command again when it is back; finished shards stay",
            ) from error


class _Cluster(Executor):
    """As `client.get_executor()`, but like those of a pool its futures cannot be cancelled once a worker has them."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, job: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        theirs = self._client.submit(job, *args, **named, pure=False)  # one that is asked for again is to run again
        ours = _JobFuture(self._client, theirs)
        theirs.add_done_callback(partial(_hand_over, ours))
        return ours


class _JobFuture(Future[Any]):
    def __init__(self, client: Any, theirs: Any) -> None:
        super().__init__()
        self._client, self._theirs = client, theirs

    def cancel(self) -> bool:
        if self.done() or self._is_at_work() or not super().cancel():
            return False
        self._theirs.cancel()
        return True

    def _is_at_work(self) -> bool:
        """Or next in turn at its worker. The scheduler is asked, not the workers: some may be dying."""
        if self._client.status != "running":  # the scheduler is lost: Dask gives up all jobs
            return False
        try:
            at_work = self._client.processing()
        except OSError:  # it is lost just now
            return False
        return any(self._theirs.key in of_worker for of_worker in at_work.values())


def _hand_over(ours: Future[Any], theirs: Any) -> None:
    if not ours.set_running_or_notify_cancel():
        return
    try:
        ours.set_result(theirs.result())
    except Exception as error:  # noqa: BLE001  (the future carries it)
        ours.set_exception(error)


def _check_versions(of_workers: dict[str, object]) -> None:
    for worker, theirs in of_workers.items():
        if not isinstance(theirs, dict):
            raise InputError(
                f"the Dask worker at {worker} cannot build", found=f"{type(theirs).__name__}: {theirs}",
                todo="install this version of tubelets there",
            )  # fmt: skip
        other = other_versions(theirs)
        if other:
            raise InputError(
                f"the Dask worker at {worker} has other versions of what decides a store's bytes",
                found="; ".join(other) + " (there / here)", wanted="the same on all machines",
                todo="install the versions of constraints.txt on all of them",
            )  # fmt: skip
