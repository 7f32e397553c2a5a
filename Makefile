# The two commands: `make demo` and `make test`. Both install what is missing, into this folder only.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench campaign-kill campaign-faults campaign-month clean

# uv from PATH if it works, else our own below .tools.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .tools/uv)
RUN := $(UV) run --frozen --no-sync
# The Python that is here; nothing is fetched but packages, and nothing is kept outside when HOME cannot be written.
export UV_PYTHON_DOWNLOADS := never
# The certificates that the machine trusts, as its other clients do.
export UV_SYSTEM_CERTS ?= 1
export UV_LINK_MODE ?= copy
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export UV_CACHE_DIR ?= $(CURDIR)/.tools/cache
endif
unexport UV_PROJECT_ENVIRONMENT VIRTUAL_ENV

help: ## What there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.tools/uv:
	@python3 deploy/get_uv.py .tools

.venv/.demo: pyproject.toml uv.lock | $(filter .tools/%,$(UV))
	@$(UV) sync --frozen --no-default-groups --extra demo --inexact --quiet && touch $@

.venv/.dev: pyproject.toml uv.lock | $(filter .tools/%,$(UV))
	@$(UV) sync --frozen --extra demo --quiet && touch $@ .venv/.demo

demo: .venv/.demo ## A whole incident on real systems, on this machine
	@$(RUN) python starter.py demo $(ARGS)

check: .venv/.dev ## Format, lint, strict types, import contracts
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports

test: check ## The whole ritual: check, then every test
	@$(RUN) pytest $(ARGS)

bench: .venv/.dev ## The budgets, measured side by side
	@$(RUN) python -m benchmarks $(ARGS)

campaign-kill: .venv/.dev ## Kill workers and the Temporal server again and again, and count what is lost
	@$(RUN) python -m tests.campaign kill $(ARGS)

campaign-month: .venv/.dev ## Thirty simulated days of hourly looks, a hundred problems
	@$(RUN) python -m tests.campaign.month $(ARGS)

campaign-faults: .venv/.dev ## Ten faults in a row, on call: ten incidents, none doubled
	@$(RUN) python -m tests.campaign.faults $(ARGS)

clean: ## Remove what was installed and every local state
	rm -rf .venv .tools .state
