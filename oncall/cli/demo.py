"""`demo`: a whole incident on the embedded stack, told as it happens."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from oncall.cli import loop, settings
from oncall.cli.estate_admin import SCENARIOS
from oncall.cli.exits import ANSWER_IS_NO, DONE
from oncall.cli.output import Output, interactive, json_option
from oncall.cli.rehearsal import DemoApprover, Rehearsed, clear_leftovers, rehearse, ui_url
from oncall.cli.stack import Stack, running_stack
from oncall.cli.story import Story, read_line
from oncall.model.access import AccessRequest

SEED_BITS = 16


def chosen_seed(seed: int | None) -> int:
    """`seed`, or a random one that can be typed again."""
    return seed if seed is not None else int.from_bytes(os.urandom(SEED_BITS // 8), "big")


def check_scenarios(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, all known. Raises click.BadParameter naming the known ones."""
    for name in names:
        if name not in SCENARIOS:
            raise click.BadParameter(f"unknown scenario {name!r}; known are {', '.join(SCENARIOS)}")
    return names


seed_option = click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Draws the place; random when not given.")


@click.command()
@click.option("--scenario", default="cascading_failure", show_default=True, help="What goes wrong.")
@seed_option
@click.option("--yes", is_flag=True, help="Approve without asking, as the demo's approver.")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="State folder (.state/demo).")
@json_option
def demo(scenario: str, seed: int | None, yes: bool, state: Path | None, as_json: bool) -> int:
    """Breaks a real miniature estate, and lets 150 agents find the cause and repair it with your approval.

    Runs on an embedded Temporal server only. Exit code 0 when recovery was measured (false_alarm: when the swarm
    found nothing wrong and touched nothing), 1 when not.

    \b
    Example:
      oncall demo --scenario high_error_rate --seed 7
    """
    out = Output(as_json)
    check_scenarios((scenario,))
    folder = (state or settings.state_root() / "demo").absolute()
    asking = not yes and interactive()
    done = loop.run(_demo(out, folder, scenario, chosen_seed(seed), asking))
    out.emit({**done.report.model_dump(mode="json"), "drill": done.drill})
    return DONE if done.good else ANSWER_IS_NO


async def _demo(out: Output, state: Path, scenario: str, seed: int, asking: bool) -> Rehearsed:
    story = Story(out)
    approver = DemoApprover(state)
    story.chapter("The on-call swarm: a whole incident on real systems")
    story.say(f"state folder {state}")
    try:
        async with running_stack(
            state, seed, approver.enrol, lambda part, seconds: story.say(f"{part} ready after {seconds:.1f} s")
        ) as stack:
            story.say(f"Temporal UI {stack.server.ui_url}")
            asked = "you are asked, and your answers are" if asking else "all requests are approved and"
            story.say(f"{asked} signed with a key made for this run, for this embedded server only")
            done = await stack.guarded(_tell(stack, approver.key, scenario, seed, story, _ask(story, asking)))
            if asking:
                story.say("press Enter to stop the stack")
                await stack.guarded(read_line())
            story.say("stopping")
        return done
    finally:
        story.close()
        approver.forget()


def _ask(story: Story, asking: bool) -> Callable[[AccessRequest], Awaitable[bool]]:
    async def yes(_: AccessRequest) -> bool:
        return True

    return story.ask if asking else yes


async def _tell(
    stack: Stack,
    key: Path,
    scenario: str,
    seed: int,
    story: Story,
    ask: Callable[[AccessRequest], Awaitable[bool]],
) -> Rehearsed:
    await clear_leftovers(stack, story)
    done = await rehearse(stack, key, scenario, seed, story, ask)
    drill, report = done.drill, done.report
    story.chapter("The truth, asked from the estate now that the incident has closed")
    story.say(f"fault: {_place(drill['expected'])}; diagnosed: {_place(drill['diagnosed'])}")
    before, after = (sum(drill["runaways"][when].values()) for when in ("before", "after"))
    story.say(f"runaway queries in pg_stat_activity: {before} before, {after} after")
    flags = ", ".join(f"{flag['flag']} in {flag['region']}" for flag in drill["flags_disabled"]) or "none"
    story.say(f"flags switched off: {flags}")
    story.say(f"the diagnosis was {'right' if drill['correct'] else 'WRONG'}", "green" if drill["correct"] else "red")
    folder = Path(report.files.report or "").parent
    story.say(f"report       {folder / 'report.html'} (and .md, .json)")
    story.say(f"history      {folder / 'history.json'}")
    story.say(f"             replay it: {settings.program()} replay {_replayable(stack, report.incident_id, folder)}")
    story.say(f"Temporal UI  {ui_url(stack, report.workflow_id, report.run_id)}")
    story.say(f"             later: temporal server start-dev --db-filename {stack.state / 'temporal.db'}")
    return done


def _replayable(stack: Stack, incident_id: str, folder: Path) -> str:
    """What `replay` finds it by: the id where the record lies in the usual place, else the file."""
    return incident_id if stack.state.parent == settings.state_root() else str(folder / "history.json")


def _place(place: dict[str, str | None] | None) -> str:
    if not place or not place.get("service"):
        return "nothing wrong"
    return f"{place['service']} in {place['region']} ({place['specialist']})"
