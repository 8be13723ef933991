"""Runs the steps of a composite action as a workflow runner does.

Rule: the steps, their environment and their order come from the file. An unknown key or expression
is an error, so that each line of the file is either executed or reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

#: The command of `shell: bash`, to which the runner appends a file that contains the step's `run`.
BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")
_KEYS = {"id", "shell", "env", "run"}
_EXPRESSION = re.compile(r"\$\{\{ ([\w.]+) \}\}")

#: Executes a script with additional variables. Returns the exit status and the contents of the
#: files in GITHUB_OUTPUT and GITHUB_STEP_SUMMARY.
Execute = Callable[[str, Mapping[str, str]], "Executed"]


@dataclass(frozen=True)
class Executed:
    """One executed step."""

    status: int
    printed: str
    output: str
    summary: str


@dataclass
class Job:
    """The result of an action: its exit status, outputs, job summary and printed text."""

    status: int = 0
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    printed: str = ""


def run_action(file: Path, path: str, given: Mapping[str, str], execute: Execute) -> Job:
    """Run the steps of *file* with the inputs *given*. `github.action_path` is *path*."""
    action = yaml.safe_load(file.read_text("utf-8"))
    context = {"github.action_path": path, **_inputs(action["inputs"], given)}
    assert action["runs"]["using"] == "composite"
    job = Job()
    for step in action["runs"]["steps"]:
        if unknown := step.keys() - _KEYS:
            raise ValueError(f"unknown keys {unknown}")
        assert step["shell"] == "bash"
        variables = {name: _expand(value, context) for name, value in step["env"].items()}
        done = execute(step["run"], variables)
        job.printed += done.printed
        job.summary += done.summary
        for line in done.output.splitlines():
            name, _, value = line.partition("=")
            context[f"steps.{step['id']}.outputs.{name}"] = value
        job.status = done.status
        if done.status:
            break
    job.outputs = {name: _expand(one["value"], context) for name, one in action["outputs"].items()}
    return job


def _inputs(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs with their defaults, as expressions name them."""
    if unknown := given.keys() - declared.keys():
        raise ValueError(f"unknown inputs {unknown}")
    values = {name: one.get("default") for name, one in declared.items()} | dict(given)
    if missing := [name for name, value in values.items() if value is None]:
        raise ValueError(f"missing inputs {missing}")
    return {f"inputs.{name}": value for name, value in values.items()}


def _expand(text: str, context: Mapping[str, str]) -> str:
    """Replace expressions. An output that no step has set is empty."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        return context.get(name, "") if name.startswith("steps.") else context[name]

    expanded = _EXPRESSION.sub(value, text)
    assert "${{" not in expanded, text
    return expanded
