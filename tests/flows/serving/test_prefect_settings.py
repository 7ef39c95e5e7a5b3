from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from tests.tiny_round import ROOT, Ended, Tiny


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True,
    )  # fmt: skip


def test_prefect_reads_every_setting() -> None:
    code = (
        "from flows.serving import prefect_settings; prefect_settings.apply()\n"
        "from prefect.settings import get_current_settings as now\n"
        "s = now()\n"
        "print(s.server.ephemeral.startup_timeout_seconds, s.server.database.timeout, s.server.api.host,\n"
        "      s.server.database.connection_timeout, s.results.default_serializer, s.server.analytics_enabled,\n"
        "      s.flows.heartbeat_frequency, s.server.services.task_run_recorder.batch_size,\n"
        "      s.server.services.task_run_recorder.flush_interval)"
    )
    done = in_a_process(code)
    set_ = ["120", "60.0", "127.0.0.1", "60.0", "json", "False", "30", "100", "1.0"]
    assert done.stdout.split() == set_, done.stderr
    # What a user has set wins, but nothing is pickled.
    done = in_a_process(
        code, PREFECT_SERVER_DATABASE_TIMEOUT="90", PREFECT_RESULTS_DEFAULT_SERIALIZER="pickle"
    )
    assert done.stdout.split()[1] == "90.0"
    assert done.stdout.split()[4] == "json"


def test_too_late_is_an_error_and_not_silence() -> None:
    code = "import sys; sys.modules['prefect'] = sys\nfrom flows.serving import prefect_settings\nprefect_settings.apply()"
    done = in_a_process(code)
    assert done.returncode != 0
    assert "Prefect was imported before it was set" in done.stderr


def test_a_server_that_does_not_answer_is_said_before_any_work(
    tiny: Tiny, vidloop: Callable[..., Ended]
) -> None:
    ended = vidloop("round", *tiny.args(), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert ended.code == 2
    assert "no Prefect server answers at http://127.0.0.1:9/api" in ended.err
    assert "Traceback" not in ended.err
    assert not (tiny.store / "manifests").exists()
