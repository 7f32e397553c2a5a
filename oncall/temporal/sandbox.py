"""The workflow sandbox, with our pure rooms let through: they hold no clock and no I/O, and load slowly."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

PURE = ("oncall.model", "oncall.rules", "oncall.trust", "cryptography", "pydantic", "rfc8785", "sshsig")


def runner() -> SandboxedWorkflowRunner:
    """The runner that workers and replays share."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PURE))
