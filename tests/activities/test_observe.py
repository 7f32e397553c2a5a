"""Contract: an incident of another tenant is refused before anybody is asked anything."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.observe import Observe
from activities.sources import Sources
from oncall.access.ledger import Ledger
from oncall.config import Config
from oncall.model.access import Approvers
from oncall.model.errors import ErrorCode
from oncall.model.policy import Policy
from oncall.model.steps import SurveyIn


async def test_an_incident_of_another_tenant_is_refused(tmp_path: Path) -> None:
    paths: dict[str, Any] = dict.fromkeys(("state", "approvers", "policy"), tmp_path)
    config = Config.model_validate(
        {"tenant": "acme", **paths, "connect": {"url": "u"}, "sources": {"telemetry": tmp_path}}
    )
    ledger = Ledger(tmp_path / "ledger.db")
    observe = Observe(
        config, Policy(version=1), Approvers(allowed_signers="", people={}), ledger, Sources(config.sources)
    )
    with pytest.raises(ApplicationError) as refused:
        await observe.survey(SurveyIn(incident_id="incident-1", tenant="oncall"))
    assert (refused.value.type, refused.value.non_retryable) == (ErrorCode.BAD_CONFIG, True)
    assert "'oncall'" in refused.value.message
    assert "'acme'" in refused.value.message
