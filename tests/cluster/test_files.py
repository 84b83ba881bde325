"""cluster/: what the files name is there, and the programs that read them take them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from selfalign_ray import pipeline

CLUSTER = Path(__file__).parents[2] / "cluster"
KUBERAY = list(yaml.safe_load_all((CLUSTER / "kuberay.yaml").read_text()))
AUTOSCALER = yaml.safe_load((CLUSTER / "autoscaler.yaml").read_text())
CONTAINERFILE = (CLUSTER / "Containerfile").read_text()
IMAGE = re.compile(r"registry\.example\.com/selfalign-ray:(\w+)")


def job():
    return next(document["spec"] for document in KUBERAY if document["kind"] == "RayJob")


def groups():
    return job()["rayClusterSpec"]["workerGroupSpecs"]


def container(group):
    (one,) = group["template"]["spec"]["containers"]
    return one


def resources_of(group):
    """As the shell of `ray start` reads them."""
    given = group["rayStartParams"].get("resources")
    return json.loads(shlex.split(given)[0]) if given else {}


def overrides(command):
    """Those of the submitted run in a header or an entrypoint."""
    return [word for word in shlex.split(command) if re.match(r"[\w.]+=", word)]


def test_the_entrypoint_s_settings_exist_and_its_stages_fit(run_config):
    given = [text for text in overrides(job()["entrypoint"]) if not text.startswith("runs_root")]
    cfg = run_config(*given)
    assert pipeline.selected(cfg)
    assert cfg.cluster.autoscaling


def of_header(name):
    """The overrides of the example in a file's header."""
    text = (CLUSTER / name).read_text()
    found = re.search(r"(?:submit\.py|slurm\.sh) (runs_root=(?:.|\\\n)*?[^\\])\n", text)
    given = overrides(re.sub(r"\\\n#?", " ", found.group(1)))
    return [text for text in given if not text.startswith("runs_root")]


@pytest.mark.parametrize("name", ["autoscaler.yaml", "slurm.sh", "submit.py"])
def test_the_header_s_example_has_settings_that_exist(run_config, name):
    given = of_header(name)
    assert "experiment=starcoder2_15b" in given
    run_config(*given)


def test_each_sandbox_takes_a_cpu_of_a_node_that_may_come(run_config):
    kuberay = [text for text in overrides(job()["entrypoint"]) if not text.startswith("runs_root")]
    sandboxes = next(group for group in groups() if group["groupName"] == "sandbox-b")
    machines = AUTOSCALER["available_node_types"]["sandbox"]
    for given, name, cpus, most in (
        (
            kuberay,
            "kuberay.yaml",
            int(container(sandboxes)["resources"]["requests"]["cpu"]),
            sandboxes["maxReplicas"],
        ),
        (
            of_header("autoscaler.yaml"),
            "autoscaler.yaml",
            machines["resources"]["CPU"],
            machines["max_workers"],
        ),
    ):
        execution = run_config(*given).validation.execution
        header = re.sub(r"\n# ", " ", (CLUSTER / name).read_text())
        (said,) = re.findall(r"(\d+) of them ask for (\d+) (?:pods|machines)", header)
        assert execution.num_cpus == 1
        assert said == (str(execution.actors), str(execution.actors // cpus))
        assert execution.actors // cpus <= most


def test_engines_and_sandboxes_find_the_nodes_that_the_entrypoint_asks_for(run_config):
    given = [text for text in overrides(job()["entrypoint"]) if not text.startswith("runs_root")]
    cfg = run_config(*given)
    has = {group["groupName"]: resources_of(group) for group in groups()}
    assert cfg.engine.resources == [*has["gpu"]] == ["generation"]
    assert cfg.sandbox.resources == [*has["sandbox-a"]] == [*has["sandbox-b"]] == ["sandbox"]
    types = AUTOSCALER["available_node_types"]
    assert set(types["gpu"]["resources"]) >= {"GPU", *cfg.engine.resources}
    assert set(types["sandbox"]["resources"]) >= set(cfg.sandbox.resources)
    assert "GPU" not in types["sandbox"]["resources"]


def test_only_gpu_nodes_ask_for_a_gpu_and_have_the_image_for_it():
    for group in groups():
        asks = "nvidia.com/gpu" in container(group)["resources"]["limits"]
        kind = IMAGE.fullmatch(container(group)["image"]).group(1)
        assert (asks, kind) == ((True, "gpu") if group["groupName"] == "gpu" else (False, "cpu"))


def test_the_two_sandbox_groups_have_what_their_level_needs_and_no_secret():
    by_name = {group["groupName"]: group for group in groups()}
    b = container(by_name["sandbox-b"])["securityContext"]
    assert b["capabilities"] == {"drop": ["ALL"]}
    assert b["runAsNonRoot"]
    a = container(by_name["sandbox-a"])["securityContext"]
    assert a["capabilities"] == {"add": ["SYS_ADMIN"]}
    assert a["seccompProfile"]["type"] == a["appArmorProfile"]["type"] == "Unconfined"
    assert by_name["sandbox-a"]["template"]["spec"]["hostUsers"] is False
    for name in ("sandbox-a", "sandbox-b"):
        assert "envFrom" not in container(by_name[name])
        assert by_name[name]["template"]["spec"]["automountServiceAccountToken"] is False


def test_every_image_is_a_target_of_the_container_file():
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", CONTAINERFILE, re.MULTILINE))
    for name in ("kuberay.yaml", "autoscaler.yaml", "Containerfile"):
        assert set(IMAGE.findall((CLUSTER / name).read_text())) <= targets


def test_what_the_container_file_copies_is_there():
    for line in re.findall(r"^COPY (.+)", CONTAINERFILE, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (CLUSTER.parent / source).exists()


def test_the_cluster_s_ray_is_the_one_that_is_installed():
    for kind in ("cpu", "gpu"):
        compiled = (CLUSTER / f"requirements-{kind}.txt").read_text()
        assert f"ray=={job()['rayClusterSpec']['rayVersion']}\n" in compiled


def test_ray_takes_the_cluster_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(AUTOSCALER)
    validate_config(config)
    workers = {name: t for name, t in config["available_node_types"].items() if name != "head"}
    for node in workers.values():
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_a_shell_script_is_one(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_slurm_warns_the_run_before_its_time_is_over():
    options = re.findall(r"^#SBATCH (--\S+)", (CLUSTER / "slurm.sh").read_text(), re.MULTILINE)
    assert {"--requeue", "--signal=B:TERM@300", "--open-mode=append"} <= set(options)


@pytest.mark.parametrize("preset", ["sweep_temperature", "sweep_shots"])
def test_a_sweep_s_preset_names_settings_that_exist(run_config, preset):
    whole = yaml.safe_load((CLUSTER.parent / "conf" / "experiment" / f"{preset}.yaml").read_text())
    swept = whole["hydra"]["sweeper"]["params"]
    firsts = [f"{key}={str(values).partition(',')[0]}" for key, values in swept.items()]
    run_config(f"experiment={preset}", *firsts)
