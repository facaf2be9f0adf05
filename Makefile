# Two commands for a newcomer, `make demo` and `make test`; each does all set-up first, in .venv inside this clone.

BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test oracle support nightly oldest newest check bench clean
.DELETE_ON_ERROR:

demo: $(READY)  ## The main jobs, offline, with the embedded model: vanilla beside controlled, and a diagnosis
	$(BIN)/symskew generate --prompts examples/demo.txt --seeds 0-2 --compare --out out/demo
	$(BIN)/symskew diagnose "a red two, a yellow five, a cyan seven and a blue four" --seeds 0-3 --out out/demo

test: $(READY)  ## All tests; two workers, since a small machine has two cores
	$(BIN)/python -m pytest -n 2

oracle: $(READY)  ## The published metrics' own packages (9 MB from PyPI, not installed) against what is frozen of them
	$(BIN)/python tests/upstream.py fetch
	$(BIN)/python -m pytest tests/test_metrics_upstream.py

support: $(READY)  ## Every model class of diffusers, held to dense references; the table in docs/models.md
	$(BIN)/python tests/zoo

nightly: $(READY)  ## An hour of whatever may be done to a model, in random order, held to dense equations
	PYTHONPATH=tests nice -n 10 $(BIN)/python -m fuzz --minutes 60

oldest newest: $(READY)  ## The maths and the attachment on the oldest or newest versions promised, in a venv of its own (8 GB)
	$(BIN)/python tests/versions.py $@

check: $(READY)  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(READY)  ## What control costs, as ratios, written into benchmarks/README.md
	$(BIN)/python benchmarks/attention.py --write

clean:
	rm -rf .venv out build dist

$(READY): requirements-dev.txt pyproject.toml setup.sh
	@bash setup.sh
	@touch $@
