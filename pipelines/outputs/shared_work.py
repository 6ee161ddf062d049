"""Checks that all machines of a cluster read and write one work folder, before a stage begins.

A folder that each machine has of its own would let a run go on for hours and then find its results gone.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dhpf.errors import InputError, require_no_credentials
from dhpf.storage import FileLocation, Location, location_of

ANSWER_SECONDS = 120.0
"""How long a node may take to say what it sees: it may have to start a process first."""

LOOKS = 3
"""How often a node looks whose process is ended meanwhile."""


def require_shared(work: Location, tracking_uri: str) -> None:
    """Checks the work folder from every node of the cluster that this process has joined.

    Raises:
        InputError: the store lets two writers win, a node does not see the folder, or MLflow's default store, which
            only one machine may write, would have to serve several.
    """
    import ray

    require_one_winner(work)
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(nodes) == 1:
        return
    machines = {node["NodeManagerHostname"] for node in nodes}
    if len(machines) > 1 and tracking_uri.startswith("sqlite:"):
        raise InputError(
            f"--tracking {tracking_uri}: SQLite is a file that one machine may write, and the cluster has "
            f"{len(machines)}; start mlflow server, and give its address by --tracking http://HOST:PORT"
        )
    marker = work / ".seen-by-all" / uuid.uuid4().hex
    marker.put(b"1")
    try:
        _require_seen(marker, nodes, work)
    finally:
        marker.delete()


def require_server(work: Location, tracking_uri: str | None) -> None:
    """Refuses a bucket as the work folder where MLflow has no server, since its own store is a file.

    Raises:
        InputError: see above.
    """
    if tracking_uri is None and not isinstance(work, FileLocation):
        raise InputError(
            f"--work {work}: MLflow keeps runs and models in a folder or on a server, not in a bucket; give its "
            "server by --tracking URI"
        )


def require_no_password(option: str, tracking_uri: str | None) -> None:
    """Refuses MLflow's URI with a user and a password in it.

    Raises:
        InputError: see above.
    """
    if tracking_uri is not None:
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment of all machines; a database "
            "needs a mlflow server in front of it"
        )
        require_no_credentials(option, tracking_uri, remedy)


def ask_each(
    nodes: Sequence[Mapping[str, Any]],
    look: Callable[..., Any],
    asked: Callable[[str], tuple[Any, ...]],
    seconds: float,
) -> dict[Any, str]:
    """Has a function run on each of these nodes, and waits until all have answered or the time is over.

    Args:
        nodes: as ray.nodes() names them.
        asked: the function's arguments on the node with this address.
        seconds: how long to wait.

    Returns:
        the name of each node, by the reference to its answer, which may still be to come.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=LOOKS - 1)(look)
    names = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        reference = task.options(scheduling_strategy=there).remote(*asked(node["NodeManagerAddress"]))
        names[reference] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    ray.wait(list(names), num_returns=len(names), timeout=seconds)
    return names


def _require_seen(marker: Location, nodes: Sequence[Mapping[str, Any]], work: Location) -> None:
    import ray
    from ray.exceptions import RayError

    names = ask_each(nodes, sees, lambda address: (str(marker),), ANSWER_SECONDS)
    answered, silent = ray.wait(list(names), num_returns=len(names), timeout=0)
    for reference in answered:
        try:
            reason = ray.get(reference)
        except RayError as error:
            raise InputError(
                f"node {names[reference]} was lost while it looked at --work {work} ({type(error).__name__}); the same "
                "command goes on from here"
            ) from error
        if reason:
            raise InputError(f"--work {work}: node {names[reference]} {reason}; {_remedy(work)}")
    for reference in silent:
        raise InputError(f"node {names[reference]}: no answer within {ANSWER_SECONDS:.0f} s; look at its Ray logs")


def require_one_winner(work: Location) -> None:
    """Puts an object twice, which must be refused the second time.

    Raises:
        InputError: the store takes it twice, or cannot be written.
    """
    place = work / ".probe" / uuid.uuid4().hex
    first, second = place.put_if_absent(b"first"), place.put_if_absent(b"second")
    content = place.read()
    place.delete()
    if not first or second or content != b"first":
        raise InputError(
            f"--work {work}: this store lets several writers win, so that results could be lost; use one with "
            "conditional writes (If-None-Match), such as Amazon S3, or a folder"
        )


def sees(marker: str) -> str:
    """What is wrong with a work folder on the machine that asks; "" if it sees the marker."""
    try:
        return "" if location_of(marker).exists() else "does not see what this machine has written there"
    except InputError as error:
        return f"cannot read it: {error}"


def _remedy(work: Location) -> str:
    if isinstance(work, FileLocation):
        return "mount one folder on all nodes at this path, or use --work s3://BUCKET/PREFIX"
    return "give every node the same credentials and a way to the store"
