# Everything here needs Python 3.11+ and nothing else; the environment is made in .venv.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	if command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
BIN := .venv/bin

.PHONY: demo test test-deps check bench versions clean help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found on PATH."; exit 1; }
	@echo "Installing into .venv with $$($(PYTHON) --version) (one to two minutes the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -e '.[test]'
	@touch $@
	@echo "Installed."

demo: .venv/installed ## a real LiteLLM proxy with the plugin, end to end; KEEP=1 leaves it running
	@$(BIN)/proxy-plugin demo $(if $(KEEP),--keep)

test: .venv/installed ## the whole suite, in two processes; ARGS="-n 0 tests/history" for a part in one
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

.clients/python/installed: tests/clients/requirements.txt | .venv/installed
	@echo "Installing client libraries into .clients/python ..."
	@$(BIN)/python -m venv .clients/python
	@.clients/python/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

test-deps: .clients/python/installed ## client libraries and optional binaries of the full suite (apt and npm; needs root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus
	command -v redis-server >/dev/null || { DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server; \
		if [ -d /run/systemd/system ]; then systemctl disable --quiet --now redis-server; fi; } # the tests start their own
	command -v npm >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm
	npm install --silent --no-package-lock --no-audit --no-fund --prefix tests/clients/node

check: .venv/installed ## lint and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: .venv/installed ## benchmarks; every figure is a ratio measured in this one run
	@$(BIN)/python -m tests.benchmarks

versions: .venv/installed ## the table of supported versions (half an hour, 6 GB in .versions); ARGS="--only 3.13 --jobs 2"
	@$(BIN)/python -m tests.versions $(ARGS)

clean: ## removes the environments
	rm -rf .venv .clients .versions tests/clients/node/node_modules
