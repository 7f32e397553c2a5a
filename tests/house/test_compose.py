"""docker-compose.yml is valid by the Compose specification, and keeps each role's token to itself."""

import json
from pathlib import Path

import compose_spec
import pytest
import yaml

from oncall.config import load_approvers, load_config, load_policy
from oncall.temporal.serve import DRAIN, LAST_TASKS_S

FILE = Path(__file__).parents[2] / "docker-compose.yml"


def parse(text: str) -> compose_spec.PyCompose:
    """Validate a Compose file; by way of JSON, for YAML's merge keys are resolved before the specification applies."""
    return compose_spec.PyCompose.from_json(json.dumps(yaml.safe_load(text)))


def test_the_file_is_valid_by_the_specification() -> None:
    compose = parse(FILE.read_text())
    assert {"temporal", "postgresql", "ui", "orchestrate", "investigate", "remediate"} <= set(compose.services or {})


def test_the_check_refuses_what_the_specification_does_not_know() -> None:
    broken = FILE.read_text().replace("restart: unless-stopped", "restart: sometimes")
    with pytest.raises(ValueError, match="sometimes"):
        parse(broken)


def test_no_role_holds_a_token_of_another() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    assert {name: service.get("secrets", []) for name, service in services.items() if "build" in service} == {
        "orchestrate": [],
        "investigate": ["connect-read"],
        "remediate": ["connect-write"],
    }


def test_a_worker_is_given_more_than_it_needs_to_drain() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    given = {name: service.get("stop_grace_period", "10s") for name, service in services.items() if "build" in service}
    assert len(given) == 3
    assert min(int(seconds.removesuffix("s")) for seconds in given.values()) > DRAIN.total_seconds() + LAST_TASKS_S


@pytest.mark.parametrize("role", ["orchestrate", "investigate", "remediate"])
def test_each_role_has_a_configuration_that_loads(role: str) -> None:
    config = load_config(FILE.parent / "deploy" / "etc" / f"{role}.yaml")
    assert load_policy(config.policy).actions
    assert load_approvers(config.approvers).people == {}
    assert (config.connect.read_token_file is not None) == (role == "investigate")
    assert (config.connect.write_token_file is not None) == (role == "remediate")
