"""`dev`: the embedded stack in the foreground, to play with."""

import asyncio
import os

import click

from oncall.cli import keys, loop, settings, sshkeys
from oncall.cli.demo import chosen_seed, seed_option
from oncall.cli.exits import DONE
from oncall.cli.output import Output, json_option
from oncall.cli.rehearsal import APPROVER, DemoApprover
from oncall.cli.settings import RunningStack
from oncall.cli.stack import running_stack


@click.command()
@seed_option
@json_option
def dev(seed: int | None, as_json: bool) -> int:
    """Runs the embedded stack until Ctrl-C and prints every URL. Other commands find it by themselves.

    It makes an approver's key for its run; your own key may approve as well if you have one (`oncall keys init`).

    \b
    Example:
      oncall dev --seed 7
    """
    out = Output(as_json)
    try:
        loop.run(_dev(out, chosen_seed(seed)))
    except KeyboardInterrupt:
        out.note("stopped")
    return DONE


async def _dev(out: Output, seed: int) -> None:
    state = settings.state_root() / "dev"
    record = settings.stack_file()
    approver = DemoApprover(state)

    def enrol() -> None:
        approver.enrol()
        own = settings.default_key()
        if own.with_name(own.name + ".pub").exists():
            keys.add_approver(state / "approvers", "you", sshkeys.read_public_key(own))

    try:
        async with running_stack(
            state, seed, enrol, lambda part, seconds: out.note(f"{part} ready after {seconds:.1f} s")
        ) as stack:
            info = stack.estate_info
            RunningStack(
                pid=os.getpid(),
                temporal_address=stack.server.address,
                temporal_ui=stack.server.ui_url,
                config=str(stack.config),
                key=str(approver.key),
                estate_admin=info["admin"],
                estate_admin_token_file=info["admin_token_file"],
            ).write(record)
            urls = {
                "temporal": stack.server.address,
                "temporal_ui": stack.server.ui_url,
                "estate_admin": info["admin"],
                "estate_admin_token_file": info["admin_token_file"],
                "connect": info["connect"],
                "instances": info["instances"],
                "flags": info["flags"],
                "telemetry": info["telemetry"],
                "config": str(stack.config),
                "approver_key": str(approver.key),
                "logs": str(state / "logs"),
                "seed": seed,
            }
            program = settings.program()
            out.emit(urls)
            out.show(*(f"{name:24} {value}" for name, value in urls.items()))
            out.show(
                "",
                f"the key above signs as {APPROVER}, for this run only; elsewhere, in the same folder, try",
                f"  {program} on-call start",
                f"  {program} approve req-…        (the id that it prints)",
                "then break something, and see it noticed:",
                f'  curl -X POST {info["admin"]}/faults -H "Authorization: Bearer $(cat {info["admin_token_file"]})"'
                ' -d \'{"scenario": "cascading_failure", "seed": 7}\'',
                f"  {program} on-call status",
                "Ctrl-C stops everything",
            )
            await stack.guarded(asyncio.Event().wait())
    finally:
        # Only our own record: when the folder is another dev's, so is the record.
        if (stack_ := settings.running_stack()) and stack_.pid == os.getpid():
            record.unlink(missing_ok=True)
        approver.forget()
