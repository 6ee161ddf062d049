"""The KubeRay manifests hold fields that the operator knows, with values that it takes, and nothing runs as root."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from dhpf.pipelines.outputs.code_version import VERSION

ROOT = Path(__file__).parents[2]
MANIFESTS = {"RayCluster": "raycluster.yaml", "RayJob": "rayjob.yaml"}
CRDS = Path(os.environ.get("DHPF_KUBERAY_CRDS", ROOT / ".." / "shared" / "kuberay-crds"))
"""Where the operator's own CRDs lie, which are not part of this project: rayclusters.yaml and rayjobs.yaml."""

needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="$DHPF_KUBERAY_CRDS names no folder with KubeRay's CRDs")


def manifest(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "kuberay" / MANIFESTS[kind]).read_text())
    return loaded


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"].get("rayClusterSpec", document["spec"])
    return found


def our_complaints(document: dict[str, Any]) -> list[str]:
    """What our own list of fields, and Kubernetes' schema for the pods, say against a manifest."""
    schema = yaml.safe_load(Path(__file__).with_name("kuberay_fields.yaml").read_text())
    chosen = {"$defs": schema["$defs"], **schema[document["kind"]]}
    complaints = [error.message for error in jsonschema.Draft202012Validator(chosen).iter_errors(document)]
    for template in pod_templates(document) if not complaints else []:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        try:
            kubernetes_validate.validate(pod, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            complaints.append(error.message)
    return complaints


def pod_templates(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(document)
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])
    if "submitterPodTemplate" in document["spec"]:
        yield document["spec"]["submitterPodTemplate"]


def crd_complaints(document: dict[str, Any]) -> list[str]:
    """What the operator's CRD says against a manifest, if unknown fields count as wrong."""
    return [error.message for error in jsonschema.Draft202012Validator(crd(document["kind"])).iter_errors(document)]


@cache
def crd(kind: str) -> dict[str, Any]:
    loaded = yaml.load((CRDS / f"{kind.lower()}s.yaml").read_text(), Loader=yaml.CSafeLoader)
    found = next(served for served in loaded["spec"]["versions"] if served["name"] == "v1")
    schema: dict[str, Any] = strict(found["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def strict(node: Any) -> Any:
    """A CRD's schema as JSON schema that refuses fields which are not listed."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema = {
        key: {name: strict(field) for name, field in value.items()} if key == "properties" else strict(value)
        for key, value in node.items()
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
    return schema


def first_group(document: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = cluster_of(document)["workerGroupSpecs"][0]
    return group


MUTANTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a misspelt field": lambda d: cluster_of(d).update(enableInTreeAutoScaling=True),
    "a number in words": lambda d: first_group(d).update(replicas="two"),
    "a group without pods": lambda d: first_group(d).pop("template"),
    "a group without limits": lambda d: first_group(d).pop("maxReplicas"),
    "a parameter that is a number": lambda d: first_group(d)["rayStartParams"].update({"num-cpus": 0}),
    "an unknown mode of authentication": lambda d: cluster_of(d)["authOptions"].update(mode="tokens"),
    "an unknown network policy": lambda d: cluster_of(d)["networkPolicy"].update(mode="Deny"),
    "a misspelt rule": lambda d: cluster_of(d)["networkPolicy"]["head"].update(ingressRule=[]),
    "an unknown autoscaler": lambda d: cluster_of(d)["autoscalerOptions"].update(version="v3"),
    "a misspelt field of a container": lambda d: container(d).update(volumeMount=[]),
    "a port in words": lambda d: container(d).update(ports=[{"containerPort": "http"}]),
    "a misspelt security context": lambda d: container(d)["securityContext"].update(readOnlyRootFileSystem=True),
}


def container(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = first_group(document)["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests_hold_known_fields_alone(kind: str) -> None:
    assert our_complaints(manifest(kind)) == []


@needs_crds
@pytest.mark.parametrize("kind", MANIFESTS)
def test_the_operator_takes_the_manifests(kind: str) -> None:
    assert crd_complaints(manifest(kind)) == []


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_manifest_is_refused(kind: str, mutant: str) -> None:
    document = copy.deepcopy(manifest(kind))
    MUTANTS[mutant](document)
    assert our_complaints(document) != []
    if CRDS.is_dir():
        assert crd_complaints(document) != []


@needs_crds
def test_a_wrong_submission_mode_is_ours_alone_to_refuse() -> None:
    document = manifest("RayJob")
    document["spec"]["submissionMode"] = "K8sJobsMode"
    assert crd_complaints(document) == []
    assert our_complaints(document) == [
        "'K8sJobsMode' is not one of ['K8sJobMode', 'HTTPMode', 'InteractiveMode', 'SidecarMode']"
    ]


@pytest.mark.parametrize("kind", MANIFESTS)
def test_nothing_runs_as_root_or_keeps_anything(kind: str) -> None:
    for template in pod_templates(manifest(kind)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
        assert {next(iter(volume.keys() - {"name"})) for volume in pod["volumes"]} == {"emptyDir"}
        for part in pod["containers"]:
            security = part["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in part["resources"]["limits"]


@pytest.mark.parametrize("kind", MANIFESTS)
def test_the_cluster_is_closed_and_grows_gpus_from_nothing(kind: str) -> None:
    cluster = cluster_of(manifest(kind))
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["networkPolicy"]["mode"] in ("DenyAll", "DenyAllIngress")
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpus = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu")
    limits = gpus["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert (gpus["minReplicas"], limits["nvidia.com/gpu"]) == (0, 1) and gpus["maxReplicas"] > 0


@pytest.mark.parametrize("kind", MANIFESTS)
def test_no_secret_stands_in_a_manifest(kind: str) -> None:
    for template in pod_templates(manifest(kind)):
        for part in template["spec"]["containers"]:
            given = {entry["name"] for entry in part.get("env", []) if "value" in entry}
            assert not {name for name in given if any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_versions_are_those_of_the_lock(kind: str) -> None:
    ray = cluster_of(manifest(kind))["rayVersion"]
    assert re.search(rf"^ray==({re.escape(ray)}) ", (ROOT / "requirements.lock").read_text(), re.M)
    images = {part["image"] for template in pod_templates(manifest(kind)) for part in template["spec"]["containers"]}
    assert images == {{"RayCluster": f"dhpf-ray:{ray}", "RayJob": f"dhpf-job:{VERSION}"}[kind]}
