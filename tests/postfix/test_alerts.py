"""Every alert in docs/monitoring.md fires at the expected time, and not earlier.

promtool(1) tests the documented rules with time series like those that node-exporter's textfile
collector reads from the --metrics file. test_operating.py checks the names of the series.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from .instance import program
from .test_operating import ALERTS

PROMTOOL = program("promtool")

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="Prometheus is not installed (Debian: prometheus)"
)

FILE = 'node_textfile_mtime_seconds{file="/run/postprox/postprox.prom",instance="mx1"}'
OTHER = 'node_textfile_mtime_seconds{file="/run/postprox/postprox.prom",instance="mx2"}'
#: The file's modification times: one value per minute for a day.
WRITTEN = "0+60x1440"


class Case(NamedTuple):
    """Time series, and the alerts that fire in a given minute."""

    series: dict[str, str]
    minute: int
    firing: list[str]


def messages(verdict: str, result: str) -> str:
    """Return the name of a message counter's series."""
    return f'postprox_messages_total{{verdict="{verdict}",result="{result}"}}'


def buckets(quick: int, slow: int) -> dict[str, str]:
    """Return series for filter runs per minute: those under 30 s, and those under 60 s."""
    name = "postprox_filter_seconds_bucket"
    total = quick + slow
    return {
        f'{name}{{le="30"}}': f"0+{quick}x60",
        f'{name}{{le="60"}}': f"0+{total}x60",
        f'{name}{{le="+Inf"}}': f"0+{total}x60",
    }


ALIVE = {FILE: WRITTEN}
CASES = {
    "no problem": Case(
        {
            **ALIVE,
            **buckets(quick=10, slow=0),
            messages("accept", "delivered"): "0+5x60",
            messages("fail", "deferred"): "3x60",
            messages("accept", "unknown"): "1x60",
            "postprox_waiting": "0x60",
            "postprox_log_dropped_total": "7x60",
        },
        *(30, []),
    ),
    "first failure": Case(
        {**ALIVE, messages("fail", "deferred"): "_x20 1x40"}, 22, ["PostproxFilterFails"]
    ),
    "additional failure": Case(
        {**ALIVE, messages("fail-open", "delivered"): "1x20 2x40"}, 22, ["PostproxFilterFails"]
    ),
    "clients wait": Case({**ALIVE, "postprox_waiting": "0x20 3x40"}, 26, ["PostproxFull"]),
    "clients wait briefly": Case({**ALIVE, "postprox_waiting": "0x20 3x2 0x40"}, 26, []),
    "slow filters": Case({**ALIVE, **buckets(quick=8, slow=2)}, 40, ["PostproxSlow"]),
    "first message with unknown result": Case(
        {**ALIVE, messages("accept", "unknown"): "_x20 1x40"}, 22, ["PostproxInDoubt"]
    ),
    "additional message with unknown result": Case(
        {**ALIVE, messages("accept", "unknown"): "1x20 2x40"}, 22, ["PostproxInDoubt"]
    ),
    "log lines lost": Case(
        {**ALIVE, "postprox_log_dropped_total": "0x20 9x40"}, 22, ["PostproxLogLost"]
    ),
    # After SIGKILL the file remains and becomes outdated.
    "killed": Case({FILE: "0+60x20 1200x40"}, 23, ["PostproxGone"]),
    # systemd removes the file with the service's directory, so the series ends.
    "stopped": Case({FILE: "0+60x20 stale"}, 23, ["PostproxGone"]),
    "stopped while another host runs": Case(
        {FILE: "0+60x20 stale", OTHER: WRITTEN}, 23, ["PostproxGone"]
    ),
    "stopped for two days": Case({FILE: "0+60x20 stale"}, 2880, ["PostproxGone"]),
    "never started": Case({}, 5, ["PostproxGone"]),
    "restarted": Case({FILE: "0+60x20 stale _x20 2520+60x40"}, 60, []),
}


@pytest.mark.parametrize("name", CASES)
def test_alert_fires_at_expected_minute(tmp_path: Path, name: str) -> None:
    series, minute, firing = CASES[name]
    alerts = [line.split()[-1] for line in ALERTS.splitlines() if "- alert:" in line]
    (tmp_path / "alerts.yml").write_text(ALERTS)
    test = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f'count by (alertname) (ALERTS{{alertname="{alert}",'
                        'alertstate="firing"} > 0)',
                        "eval_time": f"{minute}m",
                        "exp_samples": [
                            {"labels": f'{{alertname="{alert}"}}', "value": 1}
                            for expected in firing
                            if expected == alert
                        ],
                    }
                    for alert in alerts
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(json.dumps(test))  # JSON is valid YAML
    command = [str(PROMTOOL), "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_in_a_test_case() -> None:
    alerts = {line.split()[-1] for line in ALERTS.splitlines() if "- alert:" in line}
    assert alerts == {name for case in CASES.values() for name in case.firing}
