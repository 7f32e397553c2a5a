# The two commands: `make demo` and `make test`. Both install what is missing, into this folder only.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench clean
export UV_LINK_MODE ?= copy

UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
RUN := $(UV) run --frozen --no-sync

help: ## What there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv is taken from PATH, else from PyPI into a private folder (`uv` ships its binary in its wheel).
.tools/uv/bin/uv:
	@mkdir -p .tools
	@python3 -m venv .tools/uv >/dev/null 2>&1 && .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv \
	  || { rm -rf .tools/uv; python3 -m pip install --quiet --disable-pip-version-check --target .tools/uv uv; } \
	  || { echo "error: cannot install uv: needs python3-venv or pip, or uv itself (https://docs.astral.sh/uv/)" >&2; rm -rf .tools/uv; exit 3; }

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

clean: ## Remove what was installed and every local state
	rm -rf .venv .tools .state
