"""Workers on several machines: tests of the local cluster; here what each of them sets before it joins the others."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray

from dhpf.pipelines.training.node_interface import (
    VARIABLES,
    NodeInterfaceTorchConfig,
    interface_of,
    use_node_interface,
)


def test_an_interface_is_found_by_its_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.1") is None, "an address for documentation, which no machine has"


def test_the_interface_of_the_nodes_address_is_used_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    use_node_interface()
    assert os.environ.pop("GLOO_SOCKET_IFNAME") == "lo" and os.environ["NCCL_SOCKET_IFNAME"] == "ib0"
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "203.0.113.1")
    use_node_interface()
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_workers_choose_their_interface_before_they_join(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    backend = NodeInterfaceTorchConfig(backend="gloo").backend_cls
    (torch_backend,) = backend.__bases__

    class Group:
        def execute(self, function: Any) -> None:
            done.append(function)

    monkeypatch.setattr(torch_backend, "on_start", lambda self, group, config: done.append("joined"))
    backend().on_start(Group(), NodeInterfaceTorchConfig())
    assert done == [use_node_interface, "joined"]
