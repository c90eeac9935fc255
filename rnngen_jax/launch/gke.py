"""A TPU slice of Google Kubernetes Engine: a manifest of a JobSet, for `kubectl apply -f`.

JobSet's and Kubernetes's fields: jobset.sigs.k8s.io and kubernetes.io/docs/tasks/job. A pod that
exits with the code of a saved, preempted run or of one that has lost another of its processes, or
whose node is taken away, fails its Job with the reason PodFailurePolicy, at which the JobSet starts
again without counting it. Any other exit code fails the Job with another reason, and the JobSet
with it.
"""

from typing import Any

import yaml

from rnngen_jax.errors import LOST
from rnngen_jax.hosts.place import PORT
from rnngen_jax.interrupts import PREEMPTED
from rnngen_jax.launch import slices
from rnngen_jax.launch.job import Job, require_bucket

NEEDS = {
    "name": "the JobSet's name",
    "topology": "the slice, such as v5e:4x4",
    "image": "a container image with rnngen in it, such as REGION-docker.pkg.dev/PROJECT/REPO/NAME",
}
TAKES = ("tier", "service_account")

_HEAD = "# Written by `rnngen launch --to=gke`. Start it with: kubectl apply -f FILE\n"
_HOSTS = "hosts"  # of the Job, of which each pod is one host of the slice
_CONTAINER = "train"
_GRACE = 120  # seconds to save in; on spot nodes GKE grants fewer
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def text(job: Job) -> str:
    """The manifest, in YAML.

    Raises:
      UserError: no such slice, or a local workdir.
    """
    require_bucket(job, "gke")
    tpu = slices.find(job.topology or "")
    manifest = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            # A slice is a node pool: the pods of a Job are not spread over several.
            "annotations": {
                "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
            },
        },
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": job.name},
            "failurePolicy": {
                "maxRestarts": 0,
                "rules": [
                    {
                        "name": "preempted",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {"name": _HOSTS, "replicas": 1, "template": {"spec": _job(job, tpu)}}
            ],
        },
    }
    return _HEAD + yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)


def _job(job: Job, tpu: slices.Slice) -> dict[str, Any]:
    """The Job: one pod per host."""
    preempted = {"containerName": _CONTAINER, "operator": "In", "values": [PREEMPTED, LOST]}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return {
        "completionMode": "Indexed",
        "completions": tpu.hosts,
        "parallelism": tpu.hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onExitCodes": preempted},
                {"action": "FailJob", "onPodConditions": disrupted},
            ]
        },
        "template": {"spec": _pod(job, tpu)},
    }


def _pod(job: Job, tpu: slices.Slice) -> dict[str, Any]:
    """The pod of a host."""
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu.kind.label,
        "cloud.google.com/gke-tpu-topology": tpu.shape,
    }
    pod: dict[str, Any] = {"restartPolicy": "Never", "terminationGracePeriodSeconds": _GRACE}
    if job.service_account is not None:
        pod["serviceAccountName"] = job.service_account
    pod["nodeSelector"] = selector
    if job.spot:
        spot = "cloud.google.com/gke-spot"
        selector[spot] = "true"
        taint = {"key": spot, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        pod["tolerations"] = [taint]
    chips = {"google.com/tpu": str(tpu.chips_per_host)}
    pod["containers"] = [
        {
            "name": _CONTAINER,
            "image": job.image,
            # No shell reads these words, but Kubernetes replaces $(NAME) unless $ is doubled.
            "command": [word.replace("$", "$$") for word in job.command],
            "env": _variables(job, tpu),
            "resources": {"requests": chips, "limits": dict(chips)},
        }
    ]
    return pod


def _variables(job: Job, tpu: slices.Slice) -> list[dict[str, Any]]:
    """The environment variables of a host."""
    # Without it a host whose TPU does not start would train on its CPU, at the price of a TPU.
    found: list[dict[str, Any]] = [{"name": "JAX_PLATFORMS", "value": "tpu,cpu"}]
    if tpu.hosts > 1:
        first = f"{job.name}-{_HOSTS}-0-0.{job.name}:{PORT}"
        index = {"fieldRef": {"fieldPath": _INDEX}}
        found += [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": first},
            {"name": "JAX_NUM_PROCESSES", "value": str(tpu.hosts)},
            {"name": "JAX_PROCESS_ID", "valueFrom": index},
        ]
    return found
