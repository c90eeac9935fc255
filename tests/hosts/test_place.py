"""Where a process stands, in all environments that say so, and in those that say half."""

import http.server
import threading

import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.hosts.place import VARIABLES, Place, place

STEP = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "rack[1-2]n[01-16,20],login",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
}
GKE = {"TPU_WORKER_HOSTNAMES": "t-0.s,t-1.s", "TPU_WORKER_ID": "1"}


def at(has_tpu=False, **environment):
    return place(environment, lambda: has_tpu)


def three(address="a:1", count="2", index="0"):
    return dict(zip(VARIABLES, (address, count, index), strict=True))


def test_the_three_variables():
    assert at(**three("10.0.0.1:8476", "3", "2")) == Place("10.0.0.1:8476", 3, 2)
    assert at(**three("[::1]:8476")) == Place("[::1]:8476", 2, 0)
    assert at(**three(count="1")) is None
    assert at() is None
    assert at(**dict.fromkeys(VARIABLES, "")) is None


@pytest.mark.parametrize("kept", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_half_of_them(kept):
    some = {VARIABLES[n]: three()[VARIABLES[n]] for n in kept}
    with pytest.raises(UserError) as caught:
        at(**some)
    there, lacks = [*some], [name for name in VARIABLES if name not in some]
    one, other = (f"{' and '.join(n)} {'is' if len(n) == 1 else 'are'}" for n in (there, lacks))
    assert str(caught.value) == (
        f"{one} set, but {other} not; set all three, or none, or give --hosts=off."
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (three("a"), "JAX_COORDINATOR_ADDRESS must be HOST:PORT, got 'a'"),
        (three("a:b"), "JAX_COORDINATOR_ADDRESS must be HOST:PORT"),
        (three(count="two"), "JAX_NUM_PROCESSES must be an integer ≥ 0, got 'two'"),
        (three(count="0"), "JAX_NUM_PROCESSES must be ≥ 1, got 0"),
        (three(index="-1"), "JAX_PROCESS_ID must be an integer ≥ 0, got '-1'"),
        (three(index="2"), "JAX_PROCESS_ID must be < JAX_NUM_PROCESSES, which is 2, got 2"),
    ],
)
def test_what_is_not_valid(wrong, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        at(**wrong)


def test_a_step_of_slurm():
    # JAX's own port for this job, and the first of the nodes.
    assert at(**STEP) == Place("rack1n01:62344", 4, 3)
    several = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}
    assert at(**several) == Place("rack1n01:62344", 4, 3, device=1)
    one_each = {**several, "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}
    assert at(**one_each).device is None
    assert at(**{**STEP, "SLURM_STEP_NODELIST": "n7"}).address == "n7:62344"


def test_slurm_without_a_step_of_several_tasks():
    for name in STEP:
        assert at(**{key: value for key, value in STEP.items() if key != name}) is None
    allocation = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert at(**allocation, SLURM_JOB_NODELIST="n[1-4]") is None
    assert at(**{**STEP, "SLURM_STEP_NUM_TASKS": "1"}) is None


def test_slurm_fills_in_what_the_variables_leave_open():
    assert at(**STEP, JAX_COORDINATOR_ADDRESS="head:1") == Place("head:1", 4, 3)
    assert at(**STEP, JAX_PROCESS_ID="1") == Place("rack1n01:62344", 4, 1)


def test_a_container_on_a_tpu():
    assert at(True, **GKE) == Place("t-0.s:8476", 2, 1)
    assert at(False, **GKE) is None
    assert at(True, **GKE, JAX_PLATFORMS="cpu") is None
    assert at(True, **GKE, JAX_PLATFORMS="tpu,cpu") == Place("t-0.s:8476", 2, 1)
    assert at(True, **{**GKE, "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None
    addresses = {"TPU_PROCESS_ADDRESSES": "10.0.0.2:8471,10.0.0.3:8471", "TPU_WORKER_ID": "0"}
    assert at(True, **addresses) == Place("10.0.0.2:8476", 2, 0)
    slices = {
        "MEGASCALE_NUM_SLICES": "3",
        "MEGASCALE_SLICE_ID": "2",
        "MEGASCALE_COORDINATOR_ADDRESS": "first:8080",
    }
    assert at(True, **GKE, **slices) == Place("first:8476", 6, 5)


@pytest.fixture
def cloud():
    """A metadata server; yields its address and the attributes that it has."""
    attributes = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
            known = name in attributes and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(attributes[name].encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", attributes
    server.shutdown()


def test_a_virtual_machine_of_a_tpu(cloud):
    server, attributes = cloud
    assert at(True, GCE_METADATA_IP=server) is None
    attributes |= {"worker-network-endpoints": "w:0:10.1.0.1,w:1:10.1.0.2"}
    attributes |= {"agent-worker-number": "1", "tpu-env": "ZONE: 'z'\nWORKER_ID: '1'\n"}
    assert at(True, GCE_METADATA_IP=server) == Place("10.1.0.1:8476", 2, 1)
    # The address alone, as scripts of ours give it.
    given = {"JAX_COORDINATOR_ADDRESS": "10.9.9.9:1"}
    assert at(True, GCE_METADATA_IP=server, **given) == Place("10.9.9.9:1", 2, 1)
    attributes["tpu-env"] += "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'\n"
    assert at(True, GCE_METADATA_IP=server)[1:3] == (4, 3)
    attributes["worker-network-endpoints"] = "10.1.0.7,10.1.0.8"
    assert at(True, GCE_METADATA_IP=server).address == "10.1.0.7:8476"
    assert at(True, GCE_METADATA_IP=server, TPU_SKIP_MDS_QUERY="1") is None
    assert at(True, GCE_METADATA_IP="127.0.0.1:9") is None  # nobody is there
