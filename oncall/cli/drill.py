"""`drill`: known faults on the embedded stack, scored one after the other."""

from pathlib import Path

import click

from oncall.cli import loop, settings
from oncall.cli.demo import check_scenarios, chosen_seed, seed_option
from oncall.cli.estate_admin import SCENARIOS
from oncall.cli.exits import ANSWER_IS_NO, DONE
from oncall.cli.output import Output, json_option
from oncall.cli.rehearsal import DemoApprover, clear_leftovers, rehearse
from oncall.cli.stack import running_stack
from oncall.cli.story import Story
from oncall.model.access import AccessRequest
from oncall.rules.text import plain

_WORDS = {"True": "yes", "False": "NO", "None": "–"}


@click.command()
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO…]")
@click.option("--all", "everything", is_flag=True, help="Every scenario.")
@seed_option
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), help="State folder (.state/drill).")
@json_option
def drill(scenarios: tuple[str, ...], everything: bool, seed: int | None, state: Path | None, as_json: bool) -> int:
    """Injects faults with known causes and scores diagnosis, remedy and recovery; one line per scenario.

    Everything is approved with a key made for this run. Exit code 1 when one was diagnosed, remedied or recovered
    wrongly.

    \b
    Example:
      oncall drill cascading_failure high_error_rate --seed 7 --json
    """
    out = Output(as_json)
    if everything == bool(scenarios):
        raise click.UsageError(f"name scenarios, or give --all; known are {', '.join(SCENARIOS)}")
    names = SCENARIOS if everything else check_scenarios(scenarios)
    folder = (state or settings.state_root() / "drill").absolute()
    good = True
    for position, name in enumerate(names):
        # A stack of its own for each: what one fault leaves in the telemetry must not be the next one's baseline.
        result = loop.run(_drill(folder, name, chosen_seed(seed) + (position if seed is None else 0)))
        good = good and result[1]
        line = result[0]
        out.emit(line)
        marks = ", ".join(f"{what} {_WORDS[str(line[what])]}" for what in ("correct", "remedied", "recovered"))
        out.show(plain(f"{name} (seed {line['seed']}): {marks}; {line['seconds']} s"))
    return DONE if good else ANSWER_IS_NO


async def _drill(state: Path, scenario: str, seed: int) -> tuple[dict[str, object], bool]:
    story = Story(Output(as_json=True))  # the telling goes to stderr: stdout is for the scores
    approver = DemoApprover(state)

    async def yes(_: AccessRequest) -> bool:
        return True

    try:
        async with running_stack(
            state, seed, approver.enrol, lambda part, seconds: story.say(f"{part} ready after {seconds:.1f} s")
        ) as stack:
            await clear_leftovers(stack, story)
            done = await stack.guarded(rehearse(stack, approver.key, scenario, seed, story, yes))
        return done.drill, done.good and bool(done.drill["correct"]) and bool(done.drill["remedied"])
    finally:
        story.close()
        approver.forget()
