"""Serving: a Prefect server of one's own, with its workers, from one command.

    vidloop serve -> supervisor -> server, bootstrap, one worker a device

Open first: `server_config` (folder, address, auth string, environments), then `supervisor` (who is started,
restarted and ended), `bootstrap` (pool, queues, automations, deployments), `run_form` (what their forms
offer), `checks` (what can be wrong, in words). `server` and `run_log` are what we do otherwise than Prefect:
transactions on SQLite, and where a run writes its log.
"""
