"""What a Prefect server must know before it can run our flows: pool, queues, automations, deployments.

    python -m flows.serving.bootstrap FOLDER                       store and workers: FOLDER/serve.json
    python -m flows.serving.bootstrap --store STORE --workers N    as docker-compose.yml says them

Safe to run again: what is there is brought up to date. What a person may have changed in the UI (a paused
pool, an automation switched off, a deployment's parameters, a schedule) stays as it is. `prefect.yaml` is the
only list of deployments; `prefect deploy --all` reads the same one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from data.errors import ServiceError
from data.resources import folder
from data.yaml_text import parse_yaml
from flows.rounds.notify import NOTIFY_BLOCK, NOTIFY_VARIABLE
from flows.serving import prefect_settings, run_log
from flows.serving.run_form import fitted
from flows.serving.server_config import NOTE, POOL, QUEUES, ServerConfig

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
from prefect.client.schemas.objects import ConcurrencyOptions, StateType  # noqa: E402
from prefect.client.schemas.responses import DeploymentResponse  # noqa: E402
from prefect.client.schemas.schedules import construct_schedule  # noqa: E402
from prefect.events.actions import CallWebhook, ChangeFlowRunState  # noqa: E402
from prefect.events.schemas.automations import EventTrigger, Posture  # noqa: E402
from prefect.exceptions import ObjectNotFound  # noqa: E402
from prefect.flows import load_flow_from_entrypoint  # noqa: E402
from prefect.variables import Variable  # noqa: E402
from prefect.workers.process import ProcessWorker  # noqa: E402
from pydantic import SecretStr  # noqa: E402

ZOMBIE: Final = "vidloop: a run that gives no sign of life is Crashed"
STUCK: Final = "vidloop: a run that does not start is Crashed"
NOTIFY: Final = "vidloop: a round that failed is reported"
# The server's own note of what --nightly said last: only a change of it touches the schedule again.
ASKED: Final = "vidloop_nightly"
# Three heartbeats (flows.serving.prefect_settings has their interval).
ZOMBIE_AFTER_S: Final = 90
# From the moment a worker took a run until its first line: starting Python, importing torch.
STUCK_AFTER_S: Final = 300
_OVER: Final = {
    f"prefect.flow-run.{state}"
    for state in (
        "Completed", "Skipped", "Cached", "RolledBack", "Failed", "TimedOut", "Crashed", "Cancelling",
        "Cancelled", "Paused", "Suspended", "Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot",
        "Resuming",
    )
}  # fmt: skip
_ROUNDS: Final = ["round", "improve", "nightly"]


async def bootstrap(
    store: str, workers: int, notify: str | None, nightly: str = "", timezone: str = "UTC"
) -> None:
    """Bring the server at PREFECT_API_URL to what our flows need.

    Args:
        store: what the run forms offer.
        workers: slots of the pool.
        notify: web address told of every verdict and every failed round; None or "" for none.
        nightly: when a night begins, as cron says it; "" leaves the schedule to the UI.
        timezone: of `nightly`.
    """
    async with get_client() as client:
        await _pool(client, workers)
        for automation in await _automations(client, notify):
            await _automation(client, automation)
        for deployment in declared():
            await _deployment(client, deployment, store)
            print(f"deployment {deployment['name']}", flush=True)
        if nightly:
            await _schedule_nights(client, nightly, timezone)


def declared(path: Path | None = None) -> list[dict[str, Any]]:
    """The deployments of `path`, or else of prefect.yaml beside this file.

    Raises:
        ServiceError: the file cannot be read, or lists none.
    """
    path = path or folder("flows.serving") / "prefect.yaml"
    tree = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(tree, dict) or not tree.get("deployments"):
        raise ServiceError(f"{path} lists no deployments")
    return list(tree["deployments"])


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
    held = {queue.name: queue for queue in await client.read_work_queues(work_pool_name=POOL)}
    for name, priority in QUEUES.items():
        if name not in held:
            await client.create_work_queue(name, work_pool_name=POOL, priority=priority)
        elif held[name].priority != priority:
            await client.update_work_queue(held[name].id, priority=priority)


async def _automations(client: PrefectClient, notify: str | None) -> list[AutomationCore]:
    beat = "prefect.flow-run.heartbeat"
    every_run: dict[str, str | list[str]] = {"prefect.resource.id": "prefect.flow-run.*"}
    wanted = [
        _dead(ZOMBIE, {beat, "prefect.flow-run.Running"}, {beat} | _OVER, ZOMBIE_AFTER_S, "no heartbeat for"),
        _dead(
            STUCK,
            {"prefect.flow-run.Pending"},
            {beat, "prefect.flow-run.Running"} | _OVER,
            STUCK_AFTER_S,
            "its process did not start within",
        ),
    ]
    if notify:
        block = await Webhook(url=SecretStr(notify)).save(NOTIFY_BLOCK, overwrite=True, client=client)
        trigger = EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=every_run,
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": [*_ROUNDS]},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        )
        text = (
            '{"event": {{ flow_run.state.name|lower|tojson }}, "flow": {{ flow.name|tojson }}, '
            '"run": {{ flow_run.name|tojson }}, "id": "{{ flow_run.id }}", '
            '"state": {{ flow_run.state.name|tojson }}, "message": {{ flow_run.state.message|tojson }}}'
        )
        action = CallWebhook(block_document_id=block, payload=text)
        wanted.append(AutomationCore(name=NOTIFY, trigger=trigger, actions=[action]))
    return wanted


def _dead(name: str, after: set[str], expect: set[str], seconds: int, why: str) -> AutomationCore:
    """Mark a run Crashed if none of `expect` follows `after` in time; its slots are free then."""
    return AutomationCore(
        name=name,
        description="Made by `vidloop serve`. Its devices are guarded by file locks besides.",
        trigger=EventTrigger(
            after=after,
            expect=expect,
            for_each={"prefect.resource.id"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                force=False,  # a run that is over stays as it is
                message=f"{why} {seconds} s: its process or its machine is gone. "
                "Start it again: it continues from the store",
            )
        ],
    )


async def _automation(client: PrefectClient, wanted: AutomationCore) -> None:
    held = await client.read_automations_by_name(wanted.name)
    if not held:
        await client.create_automation(wanted)
        return
    await client.update_automation(held[0].id, wanted.model_copy(update={"enabled": held[0].enabled}))
    for double in held[1:]:
        await client.delete_automation(double.id)


def _collision(strategy: str) -> ConcurrencyOptions:
    return ConcurrencyOptions.model_validate({"collision_strategy": strategy})


async def _deployment(client: PrefectClient, said: Mapping[str, Any], store: str) -> None:
    flow: Flow[..., Any] = load_flow_from_entrypoint(said["entrypoint"])
    flow_id = await client.create_flow(flow)
    limit = said.get("concurrency_limit") or {}
    chosen: dict[str, Any] = {}
    try:
        held = await client.read_deployment_by_name(f"{flow.name}/{said['name']}")
    except ObjectNotFound:
        schedules = _declared_schedules(said)
    else:
        # Prefect would drop the schedules that are not named again.
        chosen, schedules = dict(held.parameters), _held_schedules(held)
    form, parameters, told = fitted(flow.parameters.model_dump(), said.get("parameters", {}), chosen)
    for sentence in told:
        print(f"{NOTE}deployment {said['name']}: {sentence}", flush=True)
    await client.create_deployment(
        flow_id=flow_id,
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
        job_variables=said["work_pool"].get("job_variables") or {},
        concurrency_limit=limit.get("limit"),
        concurrency_options=ConcurrencyOptions(collision_strategy=limit["collision_strategy"])
        if limit
        else None,
        schedules=schedules,
        tags=said.get("tags") or [],
    )


def _declared_schedules(said: Mapping[str, Any]) -> list[DeploymentScheduleCreate]:
    return [
        DeploymentScheduleCreate(
            schedule=construct_schedule(cron=one["cron"], timezone=one.get("timezone")), active=one["active"]
        )
        for one in said.get("schedules") or []
    ]


def _held_schedules(held: DeploymentResponse) -> list[DeploymentScheduleCreate]:
    """As they are: a person may have switched them on, or changed them."""
    return [
        DeploymentScheduleCreate(
            schedule=one.schedule,
            active=one.active,
            max_scheduled_runs=one.max_scheduled_runs,
            parameters=one.parameters,
            slug=one.slug,
        )
        for one in held.schedules
    ]


async def _schedule_nights(client: PrefectClient, cron: str, timezone: str) -> None:
    """Switch the nights on, unless the same was asked before: then a person may have said otherwise since."""
    asked = f"{cron} {timezone}"
    held = await client.read_variable_by_name(ASKED)
    if held is not None and held.value == asked:
        return
    schedule = construct_schedule(cron=cron, timezone=timezone)
    deployment = await client.read_deployment_by_name("nightly/nightly")
    if deployment.schedules:
        await client.update_deployment_schedule(
            deployment.id, deployment.schedules[0].id, active=True, schedule=schedule
        )
    else:
        await client.create_deployment_schedules(deployment.id, [(schedule, True)])
    await Variable.aset(ASKED, asked, overwrite=True)
    print(f"nights begin at {asked}", flush=True)


def main(arguments: list[str]) -> None:
    """Bootstrap as the command line says; exits with words if it says nothing sensible."""
    parser = argparse.ArgumentParser(prog="python -m flows.serving.bootstrap")
    parser.add_argument("folder", nargs="?", help="of `vidloop serve`")
    parser.add_argument("--store", help="absolute path, in the workers' own file system")
    parser.add_argument("--workers", type=int)
    said = os.environ
    parser.add_argument("--nightly", default=said.get("VIDLOOP_NIGHTLY", ""), help="as cron says it")
    parser.add_argument("--timezone", default=said.get("VIDLOOP_TIMEZONE") or "UTC")
    given = parser.parse_args(arguments)
    if given.folder is not None and given.store is None and given.workers is None:
        config = ServerConfig.load(given.folder)
        if config is None:
            parser.error(f"{given.folder} holds no serve.json")
        store, workers, nightly, timezone = config.store, len(config.devices), config.nightly, config.timezone
    elif given.folder is None and given.store is not None and given.workers is not None:
        store, workers, nightly, timezone = given.store, given.workers, given.nightly, given.timezone
    else:
        parser.error("give FOLDER, or --store and --workers")
    if not os.path.isabs(store) or workers < 1:
        parser.error("--store must be an absolute path, --workers at least 1")
    asyncio.run(bootstrap(store, workers, os.environ.get(NOTIFY_VARIABLE), nightly, timezone))


if __name__ == "__main__":
    main(sys.argv[1:])
