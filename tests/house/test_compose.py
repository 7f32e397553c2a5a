"""docker-compose.yml is valid by the Compose specification, and keeps each role's token to itself."""

from pathlib import Path

import compose_spec
import pytest
import yaml

FILE = Path(__file__).parents[2] / "docker-compose.yml"


def test_the_file_is_valid_by_the_specification() -> None:
    compose = compose_spec.PyCompose.from_dict(yaml.safe_load(FILE.read_text()))
    assert {"temporal", "postgresql", "ui", "orchestrate", "investigate", "remediate"} <= set(compose.services or {})


def test_the_check_refuses_what_the_specification_does_not_know() -> None:
    broken = FILE.read_text().replace("restart: unless-stopped", "restart: sometimes")
    with pytest.raises(ValueError, match="restart"):
        compose_spec.PyCompose.from_dict(yaml.safe_load(broken))


def test_no_role_holds_a_token_of_another() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    assert {name: service.get("secrets", []) for name, service in services.items() if "build" in service} == {
        "orchestrate": [],
        "investigate": ["connect-read"],
        "remediate": ["connect-write"],
    }
