"""docker-compose.yml, .env.example and Dockerfile: what they promise, and that they say what the code says."""

from __future__ import annotations

import importlib
import re
import tomllib
from typing import Any

import pytest
import yaml

from flows.config.load import load_recipe
from flows.serving import prefect_settings
from flows.serving.judge_command import judge_command, main
from flows.serving.server_config import LOOPBACK, POOL
from flows.serving.supervisor import worker_command
from rewards.judge.permitted import URL_VARIABLE
from tests.compose_file import (
    ROOT,
    Refused,
    build_context,
    image_environment,
    interpolate,
    project,
    seconds,
    start_order,
    text,
    variables,
)

SECRETS = {
    "PREFECT_API_AUTH_STRING": "vidloop:of-the-api",
    "VIDLOOP_POSTGRES_PASSWORD": "of-the-database",
    "VIDLOOP_JUDGE_KEY": "of-the-judge",
}
PROFILES = ("cpu", "gpu", "gpu-2", "judge")
WORKERS = ("worker-cpu", "worker-gpu", "worker-gpu-2")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = project(SECRETS)["services"]
    return found


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("missing", SECRETS)
@pytest.mark.parametrize("empty", [False, True])
def test_without_a_secret_nothing_starts(missing: str, empty: bool) -> None:
    environment = {name: value for name, value in SECRETS.items() if name != missing}
    with pytest.raises(Refused, match=rf"{missing}: .*\.env\.example"):
        project(environment | ({missing: ""} if empty else {}))


def test_the_example_names_every_variable_and_no_secret() -> None:
    assert example().keys() == variables() | {"COMPOSE_PROFILES"}
    assert {name for name in SECRETS if example()[name]} == set()
    with pytest.raises(Refused):
        project(example())
    # What is not set is what the example says.
    assert project(example() | SECRETS) == project(SECRETS)


def test_no_secret_stands_in_the_file() -> None:
    held = yaml.safe_load(text())
    telling = re.compile(r"PASSWORD|AUTH|KEY|TOKEN|SECRET")
    for name, service in held["services"].items():
        for key, value in service["environment"].items() if "environment" in service else ():
            if telling.search(key):
                assert re.fullmatch(r"\$\{\w+:[?-][^}]*\}", str(value)), f"{name}: {key}"
        assert not telling.search(" ".join(map(str, service["command"]))), name


def test_secrets_go_only_to_those_who_need_them(services: dict[str, Any]) -> None:
    holders = {
        secret: {
            name
            for name, service in services.items()
            if any(value in str(held) for held in service.get("environment", {}).values())
        }
        for secret, value in SECRETS.items()
    }
    assert holders == {
        "PREFECT_API_AUTH_STRING": {"server", "bootstrap", *WORKERS},
        "VIDLOOP_POSTGRES_PASSWORD": {"postgres", "server"},
        "VIDLOOP_JUDGE_KEY": {"bootstrap", *WORKERS, "judge"},
    }


def test_only_loopback_of_the_host_can_reach_anything(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == [f"{LOOPBACK}:4200:4200"]
    for name, service in services.items():
        assert not {"network_mode", "privileged", "pid", "ipc", "devices", "cap_add"} & service.keys(), name
    assert project(SECRETS)["networks"]["database"] == {"internal": True}
    assert [name for name, one in services.items() if "database" in one["networks"]] == ["postgres", "server"]


def test_every_container_is_shut_in(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert service["init"] is True, name


def test_versions_are_pinned(services: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
    images = {service["image"] for service in services.values() if "build" not in service}
    for image in {*bases, *images}:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image), image
    assert len(set(bases)) == 1
    assert bases[0].startswith("python:3.11.")  # what tests run with
    assert "--require-hashes" in dockerfile
    assert "--only-binary :all:" in dockerfile
    (vllm,) = re.findall(r"^vllm==(\S+)", (ROOT / "requirements-judge-cuda.txt").read_text(), re.MULTILINE)
    assert services["judge"]["image"] == f"vllm/vllm-openai:v{vllm}"


def test_the_build_takes_what_it_needs_and_no_more() -> None:
    taken = set(build_context())
    built = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert set(built["targets"]["wheel"]["packages"]) <= taken
    assert all((ROOT / name).exists() for name in taken)
    assert not taken & {".env", "store", "serve", ".git", "."}


def test_who_waits_for_whom(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[other]["restart"] == "no", f"{name} waits for the end of {other}"
            # A service that another needs starts whenever that one does.
            assert how.get("required", True) is False or not services[other].get("profiles"), name
    assert start_order(services, ["cpu"]) == ["postgres", "server", "bootstrap", "worker-cpu"]
    assert start_order(services, PROFILES)[:3] == ["postgres", "server", "bootstrap"]
    assert start_order(services, PROFILES).index("judge") < start_order(services, PROFILES).index(
        "worker-gpu"
    )
    assert start_order(services, []) == ["postgres", "server", "bootstrap"]


def test_everything_but_the_bootstrap_has_a_health_check(services: dict[str, Any]) -> None:
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"bootstrap"}
    for service in services.values():
        if "healthcheck" in service:
            check = service["healthcheck"]
            assert check["test"][0] == "CMD"
            assert all(seconds(check[key]) > 0 for key in ("interval", "timeout", "start_period"))


def test_a_restarted_server_still_knows_who_holds_a_limit(services: dict[str, Any]) -> None:
    server = services["server"]
    storage = server["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert hasattr(importlib.import_module(storage), "ConcurrencyLeaseStorage")
    assert f"prefect:{server['environment']['PREFECT_HOME']}" in server["volumes"]


def test_volumes_and_networks_are_declared_and_used(services: dict[str, Any]) -> None:
    whole = project(SECRETS)
    volumes = [volume.split(":") for service in services.values() for volume in service.get("volumes", [])]
    named = {source for source, *_ in volumes if not source.startswith((".", "/"))}
    assert named == whole["volumes"].keys() == {"postgres", "prefect", "store", "cache", "judge", "locks"}
    assert all(mode == ["ro"] for source, _, *mode in volumes if source.startswith("."))
    assert {network for service in services.values() for network in service["networks"]} == whole[
        "networks"
    ].keys()
    for worker in WORKERS:
        assert {"store:/srv/store", "cache:/srv/cache", "locks:/srv/locks"} <= set(
            services[worker]["volumes"]
        )


def test_each_gpu_is_reserved_for_who_names_it() -> None:
    services = project(
        {**SECRETS, "VIDLOOP_GPU_0": "GPU-aa", "VIDLOOP_GPU_1": "3", "VIDLOOP_JUDGE_GPU": "1"}
    )["services"]
    for name, device in (("worker-gpu", "GPU-aa"), ("worker-gpu-2", "3"), ("judge", "1")):
        (reserved,) = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert reserved == {"driver": "nvidia", "device_ids": [device], "capabilities": ["gpu"]}
    locks = [services[worker]["environment"]["VIDLOOP_DEVICE"] for worker in WORKERS]
    assert locks == ["cpu", "gpu-GPU-aa", "gpu-3"]  # across containers: each of them calls its GPU cuda:0
    assert "deploy" not in services["worker-cpu"]


def test_prefect_is_set_as_everywhere_else(services: dict[str, Any]) -> None:
    own = {"PREFECT_SERVER_API_HOST", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"}  # here the console is the log
    temporary = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"}
    servers = {name for name in prefect_settings.DEFAULTS if "_DATABASE_" in name or "_SERVICES_" in name}
    expected = {**prefect_settings.DEFAULTS, **prefect_settings.ALWAYS}
    for name in ("server", "bootstrap", *WORKERS):
        held = services[name]["environment"]
        wanted = expected.keys() - own - temporary - (servers if name != "server" else set())
        assert {key: held.get(key) for key in wanted} == {key: expected[key] for key in wanted}, name
        assert held["PREFECT_API_AUTH_STRING"] == SECRETS["PREFECT_API_AUTH_STRING"]
        assert (held.get("PREFECT_API_URL") == "http://server:4200/api") == (name != "server")
    server = services["server"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == SECRETS["PREFECT_API_AUTH_STRING"]
    assert servers


def test_workers_are_those_that_vidloop_serve_starts(services: dict[str, Any]) -> None:
    for worker in WORKERS:
        service = services[worker]
        own = worker_command(service["environment"]["VIDLOOP_DEVICE"])
        assert service["command"] == ["python", *own[1:], "--with-healthcheck"]
    assert POOL in services["worker-cpu"]["command"]
    assert services["worker-cpu"]["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert image_environment()["PYTHONPATH"] == "/opt/vidloop"


def test_the_port_can_be_chosen() -> None:
    services = project({**SECRETS, "VIDLOOP_PORT": "4300"})["services"]
    server = services["server"]
    assert services["worker-gpu"]["environment"]["PREFECT_UI_URL"] == f"http://{LOOPBACK}:4300"
    assert server["ports"] == [f"{LOOPBACK}:4300:4200"]
    assert server["environment"]["PREFECT_UI_API_URL"] == f"http://{LOOPBACK}:4300/api"


def test_the_judge_is_started_as_a_round_starts_it(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    judge = services["judge"]
    assert judge["command"] == judge_command(load_recipe("recipes/mini.yaml"))
    assert judge["entrypoint"] == ["python3", "-P"]
    assert judge["environment"]["VLLM_API_KEY"] == SECRETS["VIDLOOP_JUDGE_KEY"]
    for worker in WORKERS:
        assert services[worker]["environment"][URL_VARIABLE] == "http://judge:8000/v1"
        assert services[worker]["environment"]["VIDLOOP_JUDGE_KEY"] == SECRETS["VIDLOOP_JUDGE_KEY"]
    without = project({**SECRETS, URL_VARIABLE: ""})["services"]
    assert without["worker-gpu"]["environment"][URL_VARIABLE] == ""
    model = judge["command"][judge["command"].index("--model") + 1]
    (mounted,) = [volume for volume in judge["volumes"] if volume.startswith("./")]
    assert mounted == f".{model.removeprefix('/opt/vidloop')}:{model}:ro"


def test_another_judge_comes_as_an_override(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    for asked, name in (
        (["recipes/wan2.1-1.3b.yaml"], "examiner"),
        (["recipes/wan2.1-1.3b-judge.yaml", "teacher"], "teacher"),
        (["recipes/wan2.1-1.3b-judge.yaml", "examiner"], "examiner"),
    ):
        assert main(asked) == 0
        recipe = load_recipe(asked[0])
        words = interpolate(yaml.safe_load(capsys.readouterr().out), {})["services"]["judge"]["command"]
        assert words == judge_command(recipe, name)
        judge: Any = recipe.rewards[name]
        assert words[words.index("--model") + 1] == judge.model.removeprefix("hf-hub:")
        assert words[words.index("--revision") + 1] == judge.revision
    for asked in (["recipes/wan2.1-1.3b-judge.yaml"], ["recipes/wan2.1-1.3b-judge.yaml", "clip"]):
        assert main(asked) == 2
        assert "teacher, examiner" in capsys.readouterr().err
    assert main(["recipes/none.yaml"]) == 2
    assert "recipes/none.yaml" in capsys.readouterr().err
