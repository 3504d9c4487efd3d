# Everything that a person does with the system. `make` alone lists it.
# Settings may be given on the line, `make up SDR_PERSONA=...`, or kept in .env.

SHELL = /bin/sh
.DEFAULT_GOAL = help
.NOTPARALLEL:

VENV ?= .venv
# The first interpreter that is new enough; if there is none, the check of `make up` says so.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
# For programs that look for others by name, whatever folder they are started in.
BIN_PATH = $$(cd $(BIN) && pwd)
SERVICE ?=
ARGS ?=

## Running it

.PHONY: up
up: doctor $(VENV)/.installed extras ## set up what is missing, start everything, wait until it is ready, say where to go
	@$(PY) -m deploy.up

.PHONY: down
down: ## finish what is under way and stop everything
	@$(call deployed,down)

.PHONY: restart
restart: doctor $(VENV)/.installed extras ## stop, start again
	@$(PY) -m deploy.settings
	@$(MAKE) --no-print-directory down
	@$(MAKE) --no-print-directory up

.PHONY: status
status: ## one screen: services, webhooks, conversations, trouble, agent
	@$(call deployed,status)

.PHONY: logs
logs: ## follow the logs (SERVICE=ingress: only that one)
	@$(call deployed,logs) $(SERVICE)

.PHONY: chat
chat: $(VENV)/.installed ## talk to the running system in the terminal, without a provider
	@$(PY) -m ingress.chat $(ARGS)

.PHONY: persona
persona: $(VENV)/.installed ## start a persona of your own (NAME=my-business, FROM=demo-clinica: copy that example)
	@$(PY) -m deploy.persona new --name '$(NAME)' $(if $(FROM),--from '$(FROM)')

.PHONY: persona-check
persona-check: $(VENV)/.installed ## look over personas before they speak (NAME=my-business; without it all of them)
	@$(PY) -m deploy.persona check $(NAME)

.PHONY: backup
backup: ## copy the data while everything runs (KEEP=N: delete all but the N latest copies)
	@$(call running,backup) $(if $(KEEP),--keep '$(KEEP)')

.PHONY: restore
restore: $(VENV)/.installed ## put a copy in the place of the data (FROM=backups/NAME, STOP=yes: stop what runs first)
	@$(PY) -m deploy.restore $(if $(FROM),--from '$(FROM)') $(if $(STOP),--stop '$(STOP)')

.PHONY: forget
forget: ## erase a person from the running system (CONTACT='+55 81 99999-0001', DO_NOT_CONTACT=yes)
	@$(call running,forget) --contact='$(CONTACT)' --tenant='$(TENANT)' --do-not-contact='$(DO_NOT_CONTACT)' \
		--conversations='$(CONVERSATIONS)'

.PHONY: export
export: ## a person's data as JSON, to standard output (CONTACT='+55 81 99999-0001')
	@$(call running,export) --contact='$(CONTACT)' --tenant='$(TENANT)' --conversations='$(CONVERSATIONS)'

.PHONY: migrate
migrate: $(VENV)/.installed-migrate ## bring a Supabase project's database to this version (ARGS=--print: as SQL)
	@$(PY) -m context_service.migrate $(ARGS)

.PHONY: upgrade
upgrade: doctor ## change to the code on disk without losing a message (REF=v1.2: check that out first)
	@$(call running,upgrade) --install '$(MAKE) --no-print-directory $(VENV)/.installed extras' $(if $(REF),--ref '$(REF)')

.PHONY: doctor
doctor: ## list everything that is missing on this machine
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 7))' 2>/dev/null || { \
		echo "Missing: Python 3.11 or newer, with venv (e.g. sudo apt-get install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) deploy/doctor.py --venv $(VENV)

## Working on it

# Tests start hundreds of processes, which would compile all of the code each time.
test test-fast: export PYTHONDONTWRITEBYTECODE =

.PHONY: test
test: check ## everything that CI runs: the static checks and all tests
	PATH="$(BIN_PATH):$$PATH" $(PY) -m pytest -n 2 --dist loadfile -m "not system" $(ARGS)
	PATH="$(BIN_PATH):$$PATH" $(PY) -m pytest -n 2 --dist loadfile -m system $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.installed-dev ## the tests that start no servers, under a minute
	PATH="$(BIN_PATH):$$PATH" $(PY) -m pytest -q -n 2 --dist loadfile -m "not system and not slow" $(ARGS)

.PHONY: test-supabase
test-supabase: $(VENV)/.installed-dev ## the context stores' contract on a real project for tests: docs/howto/supabase.md
	@$(PY) -m tests.context_service.against_project $(ARGS)

.PHONY: check
check: $(VENV)/.installed-dev check-protos ## the static checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PY) -m mypy
	$(PY) -m deploy.env_example --check
	$(PY) -m deploy.persona check --packaged
	$(PY) -m deploy.data_map --check

.PHONY: check-protos
check-protos: $(VENV)/.installed-dev
	$(BIN)/buf lint protos
	$(BIN)/buf format -d --exit-code protos
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && PYTHON="$(BIN_PATH)/python" sh protos/generate.sh "$$out" && \
	diff -r -x '*.proto' -x __pycache__ -x __init__.py -x '*.json' -x py.typed "$$out/agentic_sdr" protos/agentic_sdr || \
	{ echo "The committed stubs differ from the contract: make protos" >&2; exit 1; }

.PHONY: lint
lint: $(VENV)/.installed-dev ## fix and format what can be fixed by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format -w protos

.PHONY: bench
bench: $(VENV)/.installed-dev ## measure: the path beside the floor, growth, bursts, holds (ARGS=--quick: minutes)
	$(PY) -m bench $(ARGS)

.PHONY: prove
prove: $(VENV)/.installed-dev ## every proof rig, long; writes docs/promises.md (ARGS=--short: minutes)
	PATH="$(BIN_PATH):$$PATH" $(PY) -m tests.prove $(ARGS)

.PHONY: protos
protos: $(VENV)/.installed-dev ## generate the stubs from the contract
	PYTHON="$(BIN_PATH)/python" sh protos/generate.sh

.PHONY: env-example
env-example: $(VENV)/.installed ## write .env.example and the list of known settings
	$(PY) -m deploy.env_example

.PHONY: data-map
data-map: $(VENV)/.installed ## write docs/reference/data-map.md from the schemas and deploy/data_map.yaml
	$(PY) -m deploy.data_map

.PHONY: clean
clean: ## remove caches and build products; neither data nor the environment
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Runs deploy/$(1).py; without an environment nothing can be running.
deployed = [ -x $(PY) ] && [ -e $(VENV)/.installed ] || \
	{ echo "Nothing is set up here yet, so nothing runs: make up"; exit 0; }; exec $(PY) -m deploy.$(1)

# The same for what fails then: whoever relies on it has to know.
running = [ -x $(PY) ] || { echo "Nothing is set up here yet, so nothing runs: make up" >&2; exit 1; }; \
	exec $(PY) -m deploy.$(1)

$(VENV)/bin/python:
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the system needs into $(VENV) ..."
	@$(PY) -m pip install -q --disable-pip-version-check -e . -c constraints.txt
	@touch $@

# What only some settings need; the engine for local weights alone is 100 MB.
.PHONY: extras
extras: $(VENV)/.installed
	@for extra in $$($(PYTHON) deploy/doctor.py --extras); do \
		$(MAKE) --no-print-directory "$(VENV)/.installed-$$extra" || exit 1; done

$(VENV)/.installed-local: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "Installing llama.cpp for local weights into $(VENV) ..."
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[local]' -c constraints.txt
	@touch $@

$(VENV)/.installed-migrate: $(VENV)/.installed
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[migrate]' -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing what the system and its tests need into $(VENV) ..."
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $(VENV)/.installed $@
