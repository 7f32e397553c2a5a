"""Where somebody sits and answers: a folder with its configuration and approvers, and a server's address."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from temporalio.testing import WorkflowEnvironment

from activities.evidence import SYNTHESIS_TYPE, Evidence
from activities.implements import implements
from oncall.blobs.store import BlobStore
from oncall.cli import keys
from oncall.model import steps
from oncall.temporal.pools import Pool, pinned_keys
from tests.cli.command import STARTER, Ran, oncall
from tests.people import Person
from tests.workflows.scripted import Script


class Desk:
    """Runs commands in `folder`; `configured=False` gives it no oncall.yaml. `variables` are of the environment."""

    def __init__(
        self,
        folder: Path,
        env: WorkflowEnvironment,
        *known: Person,
        configured: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for person in known:
            keys.add_approver(folder / "approvers", person.name, person.public)
        settings = {
            "tenant": "test",
            "state": "state",
            "approvers": "approvers",
            "policy": "policy.yaml",
            "connect": {"url": "http://127.0.0.1:1"},
            "sources": {"telemetry": "telemetry"},
        }
        if configured:
            (folder / "oncall.yaml").write_text(yaml.safe_dump(settings))
        self._env = {"TEMPORAL_ADDRESS": env.client.service_client.config.target_host, **(variables or {})}

    async def __call__(self, *arguments: str) -> Ran:
        return await oncall(self.folder, *arguments, env=self._env)

    async def typed(self, keys_typed: str, *arguments: str) -> tuple[int, str]:
        """Exit code and stdout of a command in a terminal where a person types that."""
        person, terminal = os.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(STARTER), *arguments),
                cwd=self.folder,
                env={**os.environ, **self._env, "HOME": str(self.folder)},
                stdin=terminal,
                stderr=terminal,
                stdout=asyncio.subprocess.PIPE,
            )
            os.write(person, keys_typed.encode())
            output, _ = await asyncio.wait_for(process.communicate(), 60)
        finally:
            os.close(terminal)
            os.close(person)
        assert process.returncode is not None
        return process.returncode, output.decode()


@dataclass
class Evidenced(Script):
    """Scripted steps whose synthesis is signed and stored in `state`; `hold_report` holds the report back."""

    state: Path = Path()
    hold_report: asyncio.Event = field(default_factory=asyncio.Event)

    @implements(steps.SYNTHESIZE)
    async def synthesize(self, task: steps.SynthesizeIn) -> steps.Synthesis:
        synthesis = await super().synthesize(task)
        worker = Pool(self.state, task.tenant, "investigate").worker()
        evidence = Evidence(BlobStore(self.state / "blobs"), pinned_keys(self.state))
        digest, _ = evidence.store(worker, SYNTHESIS_TYPE, synthesis.model_copy(update={"evidence_digest": ""}))
        return synthesis.model_copy(update={"evidence_digest": digest})

    @implements(steps.REPORT)
    async def report(self, task: steps.ReportIn) -> steps.Written:
        await self.hold_report.wait()
        return await super().report(task)
