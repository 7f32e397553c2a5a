"""`actions`: what the swarm could do, and what the policy says to it today."""

from typing import get_args

import click
from rich.table import Table

from oncall.cli import settings
from oncall.cli.output import Output, json_option
from oncall.config import load_policy
from oncall.model.action import Parameters


@click.command()
@json_option
def actions(as_json: bool) -> None:
    """Lists the action catalogue with each action's parameters, risk and today's verdict.

    \b
    Example:
      oncall actions
    """
    out = Output(as_json)
    settings.adopt(out.note)
    policy = load_policy(settings.require_config().policy)
    union, *_ = get_args(Parameters)
    table = Table("action", "verdict", "risk", "parameters", "does")
    entries = []
    for model in get_args(union):
        name = model.model_fields["type"].default
        rule = policy.rule(name)
        parameters = [field for field in model.model_fields if field != "type"]
        does = (model.__doc__ or "").split("\n")[0]
        entries.append(
            {
                "type": name,
                "verdict": rule.verdict.value,
                "risk": rule.risk.value,
                "parameters": parameters,
                "does": does,
            }
        )
        table.add_row(name, rule.verdict.value, rule.risk.value, ", ".join(parameters), does)
    out.emit({"policy_version": policy.version, "actions": entries})
    out.show(table)
