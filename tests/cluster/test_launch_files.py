"""The files that launch clusters, checked without an account: by Ray, EC2's model, each other."""

import copy
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from sadcl.cli.experiment import main
from tests.conftest import ROOT

CLUSTER = ROOT / "cluster"
README = (CLUSTER / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"ghcr.io/your-lab/sadcl:{PROJECT['version']}"
FILES = sorted(path for path in CLUSTER.iterdir() if path.is_file())
CLOUDS, KUBERAY = ("aws", "gcp"), ("kuberay-cluster", "kuberay-job")


def documents(name):
    return list(yaml.safe_load_all((CLUSTER / f"{name}.yaml").read_text()))


def ray_cluster(name):
    """The part of a KubeRay file that is a cluster."""
    spec = documents(name)[0]["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(name):
    """Every pod template of a KubeRay file."""
    cluster, spec = ray_cluster(name), documents(name)[0]["spec"]
    found = [
        cluster["headGroupSpec"]["template"],
        *(group["template"] for group in cluster["workerGroupSpecs"]),
    ]
    found += [spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []
    return found + [
        d["spec"]["template"] for d in documents(name)[1:] if d["kind"] == "StatefulSet"
    ]


def validated(config):
    """As `ray up` does before it asks a cloud for anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_takes_the_file_of_a_cloud(name):
    (config,) = documents(name)
    ready = validated(config)
    head, *workers = (
        ready["available_node_types"][n] for n in ("head", "gpu_spot", "gpu_on_demand")
    )
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    assert ready["head_node_type"] == "head"
    assert [w["min_workers"] for w in workers] == [0, 0]
    assert all(
        0 < w["max_workers"] <= ready["max_workers"] and w["resources"]["GPU"] == 1 for w in workers
    )
    assert ready["provider"]["cache_stopped_nodes"] is False
    for wrong in (
        {"idle_timeout_minute": 5},
        {
            "available_node_types": {
                **config["available_node_types"],
                "x": {"resources": {"CPU": 0.5}, "node_config": {}},
            }
        },
        {
            "max_workers": 0,
            "available_node_types": {
                **config["available_node_types"],
                "head": {**head, "min_workers": 1},
            },
        },
        {"head_node_type": "haed"},
    ):
        with pytest.raises(Exception, match=r"(?i)additional|not of type|smaller|must be one of"):
            validated(config | wrong)


def test_ec2_takes_its_nodes():
    """Against EC2's own model of a request, which Ray's validation does not look at."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = (
        botocore.session.get_session()
        .get_service_model("ec2")
        .operation_model("RunInstances")
        .input_shape
    )
    kinds = documents("aws")[0]["available_node_types"]
    for kind in kinds.values():
        request = kind["node_config"] | {"MinCount": 1, "MaxCount": 1}
        assert not ParamValidator().validate(request, shape).has_errors()
        assert ParamValidator().validate(request | {"InstanceMarket": {}}, shape).has_errors()
    assert kinds["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in kinds["gpu_on_demand"]["node_config"]


AGAINST_EC2 = """
import sys, unittest.mock, yaml
import boto3
from moto import mock_aws
from ray.autoscaler._private.aws import config as aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

with mock_aws(), unittest.mock.patch("time.sleep"):
    config = prepare_config(yaml.safe_load(open(sys.argv[1])))
    validate_config(config)
    config = aws.bootstrap_aws(config)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, kind in config["available_node_types"].items():
        provider.create_node(dict(kind["node_config"]), {"ray-user-node-type": name}, 1)
    ec2 = boto3.client("ec2")
    groups = ec2.describe_security_groups()["SecurityGroups"]
    (group,) = [g for g in groups if "sadcl" in g["GroupName"]]
    ports = [p.get("FromPort") for p in group["IpPermissions"] if p.get("IpRanges")]
    found = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    print(ports, sorted((i["InstanceType"], i.get("InstanceLifecycle", "")) for i in found))
"""


@pytest.mark.soak
def test_ray_launches_its_nodes_on_a_simulated_ec2(tmp_path):
    keys = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-west-2",
    }
    env = {**os.environ, **keys, "HOME": str(tmp_path), "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    (tmp_path / ".ssh").mkdir()
    words = [sys.executable, "-c", AGAINST_EC2, str(CLUSTER / "aws.yaml")]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    nodes = [("g6.2xlarge", ""), ("g6.2xlarge", "spot"), ("m7i.xlarge", "")]
    assert done.stdout.splitlines()[-1] == f"[22] {nodes}"  # to the world nothing but ssh is open


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_takes_its_documents(name):
    check = ROOT.parent / "shared" / "tools" / "check_kuberay.py"
    if not check.exists():
        pytest.skip("the operator's schemas are not here")
    words = [sys.executable, check, CLUSTER / f"{name}.yaml"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", KUBERAY)
def test_a_kuberay_cluster(name):
    first, *others = documents(name)
    cluster = ray_cluster(name)
    assert first["apiVersion"] == "ray.io/v1"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert (worker["minReplicas"], worker["maxReplicas"]) == (0, 8)
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    for pod in (head["template"]["spec"], worker["template"]["spec"]):
        (container,) = pod["containers"]
        mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
        volumes = {v["name"]: v for v in pod["volumes"]}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        claim = volumes[mounts["/mnt/shared"]]["persistentVolumeClaim"]["claimName"]
        assert claim == documents("kuberay-storage")[0]["metadata"]["name"]
    if name == "kuberay-cluster":
        service = next(d for d in others if d["kind"] == "Service")
        port = service["spec"]["ports"][0]["port"]
        fault = cluster["gcsFaultToleranceOptions"]
        assert fault["redisAddress"] == f"redis://{service['metadata']['name']}:{port}"
    if name == "kuberay-job":
        assert first["spec"]["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_run_as_nobody_special(name):
    for pod in pods(name):
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
    labels = [pod["metadata"]["labels"]["app"] for pod in pods(name)]
    policies = [d["spec"] for d in documents(name) if d["kind"] == "NetworkPolicy"]
    assert {policy["podSelector"]["matchLabels"]["app"] for policy in policies} == set(labels)
    assert all(policy["policyTypes"] == ["Ingress"] for policy in policies)


def test_tokens_are_asked_for_everywhere_and_stand_nowhere():
    for name in CLOUDS:
        (config,) = documents(name)
        assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
        assert config["file_mounts"] == {"/home/sadcl/.ray/auth_token": "~/.ray/auth_token"}
        mounted = f"/tmp/ray_tmp_mount/{config['cluster_name']}/home/sadcl/.ray/auth_token"
        assert (
            config["initialization_commands"][-1]
            == f"sudo chgrp 1000 {mounted} && sudo chmod 640 {mounted}"
        )
    for name in KUBERAY:
        options = ray_cluster(name)["authOptions"]
        assert options["mode"] == "token"
        assert f"secret generic {options['secretName']} --from-file=auth_token=" in README
    password = ray_cluster("kuberay-cluster")["gcsFaultToleranceOptions"]["redisPassword"][
        "valueFrom"
    ]["secretKeyRef"]
    assert f"secret generic {password['name']} --from-literal={password['key']}=" in README
    for name in ("local.sh", "slurm.sh"):
        text = (CLUSTER / name).read_text()
        assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in text
        assert "umask 077" in text
    assert "RAY_AUTH_MODE=token" in (CLUSTER / "Dockerfile").read_text()
    for path in FILES:
        assert not re.search(
            r"\b[0-9a-f]{32,}\b|AKIA[0-9A-Z]{16}|AUTH_TOKEN=[^\"$\s]", path.read_text()
        ), path


def test_dashboards_are_on_loopback():
    for name in CLOUDS:
        start = documents(name)[0]["head_start_ray_commands"][-1]
        assert "--dashboard-host=127.0.0.1 --dashboard-port=8265" in start
        assert f"ray dashboard cluster/{name}.yaml" in README
    assert (
        ray_cluster("kuberay-cluster")["headGroupSpec"]["rayStartParams"]["dashboard-host"]
        == "127.0.0.1"
    )
    assert "8265:8265" in README
    # the one that KubeRay has to reach is closed to all others
    (policy,) = [d["spec"] for d in documents("kuberay-job") if d["kind"] == "NetworkPolicy"]
    own, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": policy["podSelector"]}]}
    assert operator["ports"] == [{"port": 8265}]
    space = operator["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert (
        "helm install kuberay-operator kuberay/kuberay-operator --version 1.7.0 "
        f"--namespace {space} " in README
    )
    everywhere = [path.name for path in FILES if "0.0.0.0" in path.read_text()]
    assert everywhere == ["kuberay-job.yaml"]


def test_one_image_of_this_version():
    for name in CLOUDS:
        assert documents(name)[0]["docker"]["image"] == IMAGE
    for name in KUBERAY:
        images = {c["image"] for pod in pods(name) for c in pod["spec"]["containers"]} - {
            "redis:7.4-bookworm"
        }
        assert images == {IMAGE}
    assert f"docker build -f cluster/Dockerfile -t {IMAGE} .\ndocker push {IMAGE}" in README
    named = {
        found
        for path in FILES
        for found in re.findall(r"ghcr\.io/[\w./-]+:[\w.-]+\w", path.read_text())
    }
    assert named == {IMAGE}
    file = (CLUSTER / "Dockerfile").read_text()
    (ray,) = re.findall(r"ray\[default,tune,train\]==([\d.]+)", file)
    assert {ray_cluster(name)["rayVersion"] for name in KUBERAY} == {ray}
    assert f"ray[default,tune,train]>={ray.rsplit('.', 1)[0]},<3" in PROJECT["dependencies"]
    assert re.search(r"^FROM python:3\.11\.\d+-slim-\w+$", file, flags=re.MULTILINE)
    assert re.search(r"^USER 1000:1000$", file, flags=re.MULTILINE)
    for copied in re.findall(r"^COPY (.+) \S+$", file, flags=re.MULTILINE):
        for path in copied.split():
            assert (ROOT / path).exists(), path
            assert f"!{path}" in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()


def test_what_may_join_is_what_the_file_starts():
    from ray.autoscaler._private.docker import docker_start_cmds

    for name in CLOUDS:
        (config,) = documents(name)
        docker, mounts = config["docker"], config["file_mounts"]
        options = docker["run_options"] + docker["head_run_options"]
        line = docker_start_cmds(
            "ubuntu", docker["image"], mounts, "sadcl", options, "sadcl", "/home/sadcl", "docker"
        )
        words = shlex.split(line)  # as the host's shell sees it
        (token,) = mounts
        assert f"/tmp/ray_tmp_mount/sadcl/{token}:{token}" in words
        assert words[-2:] == [IMAGE, "bash"]
        assert {"RAY_AUTH_MODE=token", "RAY_JOB_STOP_WAIT_TIME_S=60"} <= set(words)
        (said,) = [
            json.loads(w.partition("=")[2]) for w in words if w.startswith("SADCL_MAY_JOIN=")
        ]
        kinds = [
            kind["resources"] for n, kind in config["available_node_types"].items() if n != "head"
        ]
        assert said == [{"nodes": config["max_workers"]} | kinds[0]]
        assert kinds[1:] == kinds[:1]
    for name in KUBERAY:
        cluster = ray_cluster(name)
        environment = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
        said = json.loads(next(e["value"] for e in environment if e["name"] == "SADCL_MAY_JOIN"))
        (group,) = cluster["workerGroupSpecs"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus = int(limits["nvidia.com/gpu"])
        assert said == [{"nodes": group["maxReplicas"], "CPU": int(limits["cpu"]), "GPU": gpus}]


def test_a_launch_takes_ten_lines_at_most_and_says_how_it_ends():
    sections = dict(
        re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", README, flags=re.MULTILINE | re.DOTALL)
    )
    ends = {
        "On this machine": "local.sh stop",
        "EC2": "ray down",
        "Compute Engine": "ray down",
        "Slurm": "scancel",
    }
    for name, end in (
        ends | {"Kubernetes": "kubectl delete -f cluster/kuberay-cluster.yaml"}
    ).items():
        blocks = re.findall(r"```bash\n(.*?)```", sections[name], flags=re.DOTALL)
        assert all(len(block.splitlines()) <= 10 for block in blocks), name
        assert end in blocks[0], name
        assert re.search(r"cost|free of charge|holds", sections[name]), name
    (port,) = re.findall(
        r"^port=\$\{SADCL_LOCAL_PORT:-(\d+)\}",
        (CLUSTER / "local.sh").read_text(),
        flags=re.MULTILINE,
    )
    assert f"ray job submit --address http://127.0.0.1:{int(port) + 1} " in README


def test_every_command_of_ours_exists(capsys):
    """Experiments with their flags, files that are named, and options of `ray start`."""
    texts = {path.name: path.read_text() for path in FILES}
    helps, ours = {}, set()
    for text in texts.values():
        for path in re.findall(r"(?<![\w/])cluster/[\w.-]+\w", text):
            assert (ROOT / path).exists(), path
        for line in re.findall(r"python (experiments/\S+\.py(?: [^\n`)]*)?)", text):
            script, _, rest = line.partition(" ")
            ours |= {(script, flag) for flag in re.findall(r"--[a-z-]+", rest.partition("#")[0])}
    assert ("experiments/tune_coco.py", "--data-root") in ours
    for script, flag in ours:
        if script not in helps:
            study = runpy.run_path(str(ROOT / script))["search"]
            with pytest.raises(SystemExit):
                main(study, ["--help"])
            helps[script] = capsys.readouterr().out
        assert flag in helps[script], (script, flag)

    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    used = {
        "slurm.sh": texts["slurm.sh"]
        .partition("ray symmetric-run --address")[2]
        .partition(" -- ")[0]
    }
    used |= {"local.sh": texts["local.sh"].partition("setsid ray start")[2].partition("\n}\n")[0]}
    used |= {name: "\n".join(documents(name)[0]["head_start_ray_commands"]) for name in CLOUDS}
    for name, text in used.items():
        options = set(re.findall(r"(?<=\s)--[a-z-]+", text)) - {"--min-nodes"}
        assert len(options) > 2, name
        assert options <= known, (name, options - known)


@pytest.mark.parametrize("name", ["local.sh", "slurm.sh"])
def test_scripts_are_clean(name):
    path = CLUSTER / name
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)
    subprocess.run(
        [shutil.which("shellcheck") or Path(sys.executable).with_name("shellcheck"), path],
        check=True,
    )


def test_the_image_has_a_c_compiler():
    """Without one neither torch.compile nor Triton starts a kernel."""
    install = re.search(r"apt-get install (.*) \\\n", (CLUSTER / "Dockerfile").read_text())
    assert "g++" in install[1].split()


def test_the_dockerfile_is_clean():
    hadolint = shutil.which("hadolint") or Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, CLUSTER / "Dockerfile"], check=True)


FAKE_SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$OUT/words"
stat -c '%a' "$RAY_AUTH_TOKEN_PATH" > "$OUT/mode"
printenv RAY_AUTH_MODE RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT > "$OUT/env"
trap 'echo TERM >> "$OUT/signals"; exit 143' TERM
[ -z "${WAITS:-}" ] || { touch "$OUT/waits"; for _ in $(seq 600); do sleep 0.1; done; }
exit "${CODE:-0}"
"""
FAKE_SCONTROL = """#!/usr/bin/env bash
[ "$1" = show ] && printf 'node01\\nnode02\\n' || echo "$@" >> "$OUT/requeued"
"""


@pytest.fixture
def slurm(tmp_path):
    """slurm.sh as sbatch runs it, with a srun that writes down what it was asked for."""
    for name, text in (("srun", FAKE_SRUN), ("scontrol", FAKE_SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OUT": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    env |= {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[01-02]", "SLURM_JOB_NUM_NODES": "2"}
    env |= {"SLURM_CPUS_PER_TASK": "32", "SLURM_GPUS_ON_NODE": "4"}
    words = [
        "bash",
        str(CLUSTER / "slurm.sh"),
        "python",
        "experiments/tune_coco.py",
        "--yes",
        "a b",
    ]
    return lambda **more: subprocess.Popen(words, env=env | more)


def test_slurm_starts_one_ray_on_all_nodes_and_ends_as_the_study(slurm, tmp_path):
    assert slurm(CODE="3").wait(30) == 3
    words = (tmp_path / "words").read_text().splitlines()
    at = words.index("symmetric-run")
    assert words[:at] == [
        "--ntasks-per-node=1",
        "--cpus-per-task=32",
        "--kill-on-bad-exit=1",
        "ray",
    ]
    split = words.index("--")
    assert words[split + 1 :] == [
        "env",
        "RAY_ADDRESS=node01:6379",
        "python",
        "experiments/tune_coco.py",
        "--yes",
        "a b",
    ]

    from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

    started = words[at + 1 : split]
    assert started[:4] == ["--address", "node01:6379", "--min-nodes", "2"]
    rest = curate_and_validate_ray_start_args(started)
    assert rest == ["--num-cpus=32", "--num-gpus=4", "--disable-usage-stats"]
    assert (tmp_path / "mode").read_text() == "600\n"
    assert (tmp_path / "env").read_text() == "token\n600\n"
    assert not list(tmp_path.glob(".ray-token-*"))  # nothing is left of it


def test_slurm_stops_the_study_and_queues_it_again_when_its_time_is_nearly_up(slurm, tmp_path):
    process = slurm(WAITS="1")
    deadline = time.monotonic() + 60
    while not (tmp_path / "waits").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 0
    assert (tmp_path / "signals").read_text() == "TERM\n"
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"


@pytest.mark.parametrize(
    ("words", "said"), [([], "usage: sbatch"), (["true"], "submit this script with sbatch")]
)
def test_slurm_says_how_it_is_used(words, said):
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", CLUSTER / "slurm.sh", *words], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
