# Two commands do everything on a fresh machine with Python 3.11 to 3.14, or with uv, which brings one and is faster:
#   make demo   the whole chain on the demo corpus: videos, crops, three backbones, a translation model
#   make test   all tests
# Further: make test-slurm (the workflow through a real Slurm), make test-faults (killed in every stage), make lint, make audit
# (known faults of the packages), make lock (after a change of requirements in pyproject.toml), make clean-demo

CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
VENV := .venv
BIN := $(VENV)/bin
# Installs several times faster than pip, where it is on PATH; `make demo UV=` does without.
UV ?= $(shell command -v uv 2>/dev/null)
# A Python that can make an environment (without uv, Debian's wants python3-venv for that); `make demo PYTHON=/path/to/python3.13`
# names one. Where there is none, uv brings one. 3.14 comes last: one package, immutables, has no build for it and wants a compiler.
first_python = for python in python3 python3.13 python3.12 python3.11 python3.14; do $$python -c \
	'import sys; $(if $(UV),,import ensurepip; )sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(1)))' 2>/dev/null \
	&& echo $$python && exit; done
managed_python := uv python find --python-preference only-managed 3.13
PYTHON ?= $(shell $(call first_python,13); \
	if command -v uv >/dev/null; then $(managed_python) 2>/dev/null && exit; uv python install 3.13 && $(managed_python) && exit; fi; \
	$(call first_python,14))
get_python := install one (Debian and Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13; or uv, which \
	brings one: https://docs.astral.sh/uv), or name it: make PYTHON=/path/to/python3.13

.PHONY: demo test test-slurm test-faults lint audit lock clean-demo
.DELETE_ON_ERROR:

# The environment: exactly the packages of the lock, each checked by its hash, and this checkout in editable form. --no-deps:
# the lock is whole, and pip 23 takes the newest release for `coverage[toml]`, beside the one that the lock names.
$(VENV)/installed: requirements.lock pyproject.toml
	@python="$(PYTHON)"; \
	refuse() { echo "error: $$1; $(get_python)" >&2; exit 2; }; \
	test -n "$$python" || refuse "no Python 3.11 to 3.14 with venv found, nor uv to bring one"; \
	command -v "$$python" >/dev/null || refuse "PYTHON=$$python: no such program, expected Python 3.11 to 3.14"; \
	version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version="no Python"; \
	case "$$version" in \
		3.11|3.12|3.13|3.14) ;; \
		[23].*) refuse "PYTHON=$$python: is Python $$version, expected 3.11 to 3.14" ;; \
		*) refuse "PYTHON=$$python: does not run as Python, expected Python 3.11 to 3.14" ;; \
	esac; \
	test -n "$(UV)" || "$$python" -c 'import ensurepip, venv' 2>/dev/null \
		|| refuse "PYTHON=$$python: cannot make an environment (it lacks venv or ensurepip; Debian and Ubuntu: apt install python$$version-venv)"; \
	echo "installing the packages of requirements.lock into $(VENV): some minutes, once"; \
	if test -n "$(UV)"; then \
		"$(UV)" venv --quiet --clear --seed --python "$$python" $(VENV) && \
			"$(UV)" pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock \
			&& exit; \
		echo "uv did not manage (the lines above say why): pip is tried" >&2; \
	fi; \
	"$$python" -m venv --clear $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@$(BIN)/python scripts/fetch_models.py
	@touch $@

demo: $(VENV)/installed
	@echo "about ten minutes on two cores; what a job is doing now: tail -f work_dirs/logs/<rule>/*.log"
	$(BIN)/snakemake --cores $(CORES) --quiet host reason -- all
	@$(BIN)/python scripts/summarize_run.py

# .ci/run adds COVERAGE="--cov ...", which costs some minutes. OMP_NUM_THREADS is no assignment in the recipe: make would need
# a shell for that, which keeps a SIGTERM to itself.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(COVERAGE)

test-slurm: $(VENV)/installed
	$(BIN)/python -m pytest -m slurm tests/slurm $(if $(ONLY),-k $(ONLY))

test-faults: $(VENV)/installed
	$(BIN)/python -m pytest -m faults tests/faults

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/python scripts/export_generated.py --check

audit: $(VENV)/installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --require-hashes --disable-pip --no-deps -r requirements.lock

lock: $(VENV)/installed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--no-emit-index-url --extra extract --extra workflow --extra dev pyproject.toml -o requirements.lock
	$(BIN)/python scripts/export_generated.py

# What `make demo` made, and nothing else: a run that was trained on other videos says so in its settings, and stays.
clean-demo:
	rm -rf data/demo
	@own=0; for run in $(addprefix work_dirs/,dino_face dino_hand_l dino_hand_r s2g g2t vlp multistream_v9); do \
		if [ ! -e "$$run" ]; then continue; fi; \
		if grep -qs '"data/demo["/]' "$$run/params.json" "$$run/config.json"; then rm -rf "$$run"; echo "removed $$run"; \
		else own=1; echo "kept $$run: not of the demo corpus"; fi; \
	done; \
	if [ $$own = 0 ]; then rm -rf $(addprefix work_dirs/,features logs release overview.html report.html); fi
