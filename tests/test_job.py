"""One job on the driver, without a process of its own."""

from __future__ import annotations

import os
import signal
import time

import pytest

from selfalign_ray import job


@pytest.mark.ray
def test_a_signal_while_the_report_is_written_ends_the_run(ray_local, run_config, monkeypatch):
    def report(*_):
        os.kill(os.getpid(), signal.SIGTERM)  # without our handler it would end pytest
        time.sleep(60)

    monkeypatch.setattr(job, "setup_driver", lambda _: None)  # the console stays pytest's
    monkeypatch.setattr(job, "run_stages", lambda *_, **__: None)
    monkeypatch.setattr(job, "report", report)
    with pytest.raises(KeyboardInterrupt):
        job.run_job(run_config("engine=standin", "stages.until=concepts"))
