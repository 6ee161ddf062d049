"""Command line of the local cluster: `python -m infra.local_cluster up`, as root."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from infra.local_cluster.cluster import new_cluster, read_cluster
from infra.local_cluster.machine import MachineError

application = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Name = Annotated[str, typer.Option("--name", help="Which cluster; several can be up side by side.")]
MachineName = Annotated[str, typer.Argument(metavar="MACHINE", help="head, storage, tracking, worker1, worker2, ...")]


@application.command()
def up(
    name: Name = "dhpf",
    workers: Annotated[int, typer.Option(min=1, max=9, help="Machines for Ray's workers; the head runs none.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, help="Logical CPUs of each worker.")] = 2,
) -> None:
    """Starts a cluster: Ray's head and workers, an S3 server, a tracking server; prints the addresses."""
    cluster = new_cluster(name, workers, cpus)
    try:
        cluster.up()
    except BaseException:
        cluster.down()
        raise
    for machine, address, state in cluster.status():
        print(f"{machine:9} {address:13} {state}")
    print(f"\nFor clients: . {cluster.env_file}")


@application.command()
def down(name: Name = "dhpf") -> None:
    """Removes a cluster with everything on its disks."""
    read_cluster(name).down()


@application.command()
def status(name: Name = "dhpf") -> None:
    """Prints each machine, and whether it answers."""
    for machine, address, state in read_cluster(name).status():
        print(f"{machine:9} {address:13} {state}")


@application.command()
def kill_node(machine: MachineName, name: Name = "dhpf") -> None:
    """Ends all processes of a machine at once; its disk stays."""
    read_cluster(name).machine(machine).kill()


@application.command()
def start_node(
    machine: MachineName,
    name: Name = "dhpf",
    s3_keys: Annotated[bool, typer.Option(help="Whether a Ray machine finds the bucket's keys.")] = True,
) -> None:
    """Starts a machine that was killed; returns when it answers."""
    cluster = read_cluster(name)
    cluster.start_again(cluster.machine(machine).name, with_s3_keys=s3_keys)


@application.command()
def restart_head(name: Name = "dhpf") -> None:
    """Kills Ray's head and starts all of Ray again; the head has forgotten its jobs."""
    read_cluster(name).restart_head()


@application.command()
def cut(machine: MachineName, name: Name = "dhpf") -> None:
    """Cuts a machine off from the network."""
    read_cluster(name).machine(machine).cut()


@application.command()
def reconnect(machine: MachineName, name: Name = "dhpf") -> None:
    """Connects a machine again that was cut off."""
    read_cluster(name).machine(machine).reconnect()


def main() -> None:
    try:
        application()
    except MachineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
