"""What a Prefect server must know before it can run our flows: pool, queues, automations, deployments.

    python -m flows.serving.bootstrap --store STORE --workers N

Safe to run again: what is there is brought up to date. What a person may have changed in the UI (a paused
pool, an automation switched off, a deployment's parameters, a schedule) stays as it is. `automations.yaml`
and `prefect.yaml` are the only lists of automations and deployments; `prefect deploy --all` reads the latter.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from data.resources import folder
from data.yaml_text import read_yaml
from flows.rounds.notify import NOTIFY_BLOCK, NOTIFY_VARIABLE
from flows.serving import prefect_settings, run_log
from flows.serving.run_form import fitted
from flows.serving.server_config import POOL, QUEUES

prefect_settings.apply()

from prefect import Flow  # noqa: E402  (Prefect reads its environment once, when it is imported)
from prefect.automations import AutomationCore  # noqa: E402
from prefect.blocks.webhook import Webhook  # noqa: E402
from prefect.client.orchestration import PrefectClient, get_client  # noqa: E402
from prefect.client.schemas.actions import (  # noqa: E402
    DeploymentScheduleCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyOptions  # noqa: E402
from prefect.client.schemas.schedules import CronSchedule  # noqa: E402
from prefect.exceptions import ObjectNotFound  # noqa: E402
from prefect.flows import load_flow_from_entrypoint  # noqa: E402
from prefect.variables import Variable  # noqa: E402
from prefect.workers.process import ProcessWorker  # noqa: E402
from pydantic import SecretStr  # noqa: E402

# The server's own note of what --nightly said last: only a change of it touches the schedule again.
ASKED: Final = "vidloop_nightly"


async def bootstrap(store: str, workers: int, nightly: str, timezone: str) -> None:
    """Bring the server at PREFECT_API_URL to what our flows need; the arguments are those of `main`."""
    async with get_client() as client:
        await _pool(client, workers)
        await _automations(client)
        for said in _listed("prefect.yaml")["deployments"]:
            await _deployment(client, said, store)
            _log(f"deployment {said['name']}")
        if nightly:
            await _schedule_nights(client, nightly, timezone)


def _listed(name: str) -> dict[str, Any]:
    path = folder("flows.serving") / name
    tree: dict[str, Any] = read_yaml(path, str(path))
    return tree


async def _pool(client: PrefectClient, workers: int) -> None:
    """The pool with as many slots as workers: only then does the server hand out runs by priority."""
    try:
        await client.read_work_pool(POOL)
        await client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=workers))
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        await client.create_work_pool(
            WorkPoolCreate(name=POOL, type="process", base_job_template=template, concurrency_limit=workers)
        )
    held = {queue.name: queue.id for queue in await client.read_work_queues(work_pool_name=POOL)}
    for name, priority in QUEUES.items():
        if name in held:
            await client.update_work_queue(held[name], priority=priority)
        else:
            await client.create_work_queue(name, work_pool_name=POOL, priority=priority)


async def _automations(client: PrefectClient) -> None:
    """Those that free the slots of dead runs; and one that tells of failures, if somebody wants to know."""
    listed = _listed("automations.yaml")
    wanted: list[dict[str, Any]] = listed["automations"]
    if url := os.environ.get(NOTIFY_VARIABLE):
        block = await Webhook(url=SecretStr(url)).save(NOTIFY_BLOCK, overwrite=True, client=client)
        listed["notify"]["actions"][0]["block_document_id"] = block
        wanted.append(listed["notify"])
    for automation in map(AutomationCore.model_validate, wanted):
        held = await client.read_automations_by_name(automation.name)
        if held:
            automation.enabled = held[0].enabled
            await client.update_automation(held[0].id, automation)
        else:
            await client.create_automation(automation)
        for double in held[1:]:
            await client.delete_automation(double.id)


async def _deployment(client: PrefectClient, said: Mapping[str, Any], store: str) -> None:
    flow: Flow[..., Any] = load_flow_from_entrypoint(said["entrypoint"])
    chosen: dict[str, Any] = {}
    try:
        held = await client.read_deployment_by_name(f"{flow.name}/{said['name']}")
    except ObjectNotFound:
        schedules = [_cron(one["cron"], one["timezone"], one["active"]) for one in said.get("schedules", [])]
    else:
        # Prefect would drop the schedules that are not named again, and a person may have changed them.
        chosen, kept = held.parameters, set(DeploymentScheduleCreate.model_fields)
        schedules = [
            DeploymentScheduleCreate.model_validate(one.model_dump(include=kept)) for one in held.schedules
        ]
    form, parameters, told = fitted(flow.parameters.model_dump(), said["parameters"], chosen)
    for sentence in told:
        print(f"note: deployment {said['name']}: {sentence}", flush=True)
    limit = said.get("concurrency_limit")
    await client.create_deployment(
        flow_id=await client.create_flow(flow),
        name=said["name"],
        description=said["description"],
        entrypoint=said["entrypoint"],
        pull_steps=[
            {run_log.STEP: {}},
            # A run's relative paths begin where whoever serves has begun.
            {"prefect.deployments.steps.set_working_directory": {"directory": os.getcwd()}},
        ],
        parameters={**parameters, "store": store},  # the workers' own, whatever was held
        parameter_openapi_schema=form,
        enforce_parameter_schema=True,
        work_pool_name=said["work_pool"]["name"],
        work_queue_name=said["work_pool"]["work_queue_name"],
        job_variables=said["work_pool"]["job_variables"],
        concurrency_limit=limit and limit["limit"],
        concurrency_options=limit and ConcurrencyOptions(collision_strategy=limit["collision_strategy"]),
        schedules=schedules,
    )


async def _schedule_nights(client: PrefectClient, cron: str, timezone: str) -> None:
    """Switch the nights on, unless the same was asked before: then a person may have said otherwise since."""
    asked = f"{cron} {timezone}"
    held = await client.read_variable_by_name(ASKED)
    if held is not None and held.value == asked:
        return
    wanted = _cron(cron, timezone, active=True)
    deployment = await client.read_deployment_by_name("nightly/nightly")
    if deployment.schedules:
        present = deployment.schedules[0].id
        await client.update_deployment_schedule(deployment.id, present, active=True, schedule=wanted.schedule)
    else:
        await client.create_deployment_schedules(deployment.id, [wanted])
    await Variable.aset(ASKED, asked, overwrite=True)
    _log(f"nights begin at {asked}")


def _cron(cron: str, timezone: str, active: bool) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(schedule=CronSchedule(cron=cron, timezone=timezone), active=active)


def _log(line: str) -> None:
    """For the log; standard output is for a person."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> None:
    """Bootstrap as the command line says; exits with words if it says nothing sensible.

    VIDLOOP_NOTIFY_URL, a secret, is told of every verdict and every failed round.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.serving.bootstrap")
    parser.add_argument("--store", required=True, help="the run forms offer it: an absolute path")
    parser.add_argument("--workers", required=True, type=int, help="slots of the pool")
    said = os.environ
    nights = "when a night begins, as cron says it; empty leaves the schedule to the UI"
    parser.add_argument("--nightly", default=said.get("VIDLOOP_NIGHTLY", ""), help=nights)
    parser.add_argument("--timezone", default=said.get("VIDLOOP_TIMEZONE") or "UTC")
    given = parser.parse_args(arguments)
    if not os.path.isabs(given.store) or given.workers < 1:
        parser.error("--store must be an absolute path, --workers at least 1")
    asyncio.run(bootstrap(**vars(given)))


if __name__ == "__main__":
    main(sys.argv[1:])
