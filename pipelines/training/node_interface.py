"""Lets training workers on several machines talk over the network interface by which Ray knows their machines.

Left to itself, gloo announces the address that the machine's own name stands for, which on many machines is 127.0.0.1.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Any

import ray
from ray.train.torch import TorchConfig

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")

_SIOCGIFADDR = 0x8915
"""Linux's request for the IPv4 address of an interface (netdevice(7))."""


def interface_of(address: str) -> str | None:
    """The name of this machine's interface that has an IPv4 address; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def use_node_interface() -> None:
    """Makes torch's process groups of this process use the interface with the node's address; a user's choice stays."""
    name = interface_of(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if name is not None:
        for variable in VARIABLES:
            os.environ.setdefault(variable, name)


class _NodeInterfaceBackend(TorchConfig().backend_cls):  # type: ignore[misc]  # Ray gives the class by a property alone
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(use_node_interface)
        super().on_start(worker_group, backend_config)


class NodeInterfaceTorchConfig(TorchConfig):
    """Ray Train's TorchConfig for workers on several machines."""

    @property
    def backend_cls(self) -> type[_NodeInterfaceBackend]:
        """What sets up the workers' process group."""
        return _NodeInterfaceBackend
