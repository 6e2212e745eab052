# make run    builds router in .venv and shows it at work
# make test   builds it and runs the tests
#
# For work on router itself: build, lint, test-long, sanitize, stress, models, fuzz, interop-all,
# bench, figures, clean.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV   ?= .venv
PYTEST_ARGS ?=
FUZZ_SECONDS ?= 60
MINUTES ?= 30

BIN     := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PIP     := $(BIN)/python -m pip --disable-pip-version-check

INSTALLED := $(VENV)/.installed-$(VERSION)
ERLANG    := tools/install-packages "tests against real nodes will be skipped" \
    erl:erlang-base elixir:elixir
LIBURING  := tools/install-packages "router is built and tested without io_uring" \
    liburing.h:liburing-dev
FUZZERS   := tools/install-packages "make fuzz cannot run" \
    clang:clang clang:libclang-rt-dev
PEERS     := tools/install-packages "a peer will be missing" \
    erl:erlang-base urcu-qsbr.h:liburcu-dev iperf3:iperf3

.PHONY: build liburing run test test-long lint bench bench-instructions figures interop-all sanitize \
    sanitize-thread stress models fuzz clean
.SUFFIXES:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

build: $(INSTALLED)
	@echo "[3/3] compiling what changed"
	@$(BIN)/python setup.py -q build_ext --inplace

$(INSTALLED): pyproject.toml
	@tools/check-system $(PYTHON)
	@echo "[1/3] making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv --clear $(VENV)
	@echo "[2/3] installing router and its development tools (about a minute)"
	@$(PIP) install -q -U pip 'setuptools>=77' 'Cython>=3.0.11'
	@$(PIP) install -q --no-build-isolation -e '.[cli,dev]'
	@touch $@

run: build
	@$(BIN)/router demo

liburing:
	@$(LIBURING)

test: liburing build
	@$(ERLANG)
	@$(BIN)/pytest -m "not slow" $(PYTEST_ARGS)

# Everything, with fresh seeds, on every supported interpreter that is found.
test-long: liburing build
	@$(ERLANG)
	@for python in $$(tools/interpreters); do \
	    version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "== Python $$version"; \
	    $(MAKE) build PYTHON=$$python VENV=build/venv-$$version && \
	    ROUTER_TEST_LONG=1 build/venv-$$version/bin/pytest $(PYTEST_ARGS) || exit 1; \
	done

lint: build
	@echo "ruff" && $(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
	@echo "mypy, pyright" && { $(BIN)/mypy --no-error-summary & mypy=$$!; \
	    $(BIN)/pyright --pythonpath $(BIN)/python >build/pyright.txt || \
	    { cat build/pyright.txt; exit 1; }; wait $$mypy; }
	@tools/compile-strict $(BIN)/python

# Beside the peers that can be installed. QUICK=1 takes three minutes, to see that all works.
bench: build
	@$(PEERS)
	@$(BIN)/python -m bench.install
	@$(BIN)/python -m bench all $(if $(QUICK),--quick)

# What is promised, checked: RUNS=3 asks for three consecutive runs, ONLY=text for some of it.
figures: build
	@$(PEERS)
	@$(BIN)/python -m bench.install
	@$(BIN)/python -m bench.figures $(if $(RUNS),--runs $(RUNS)) $(if $(ONLY),"$(ONLY)")

# Instructions of the codec and of a message's way, beside the committed ones. UPDATE=1 commits to
# these.
bench-instructions: build
	@tools/install-packages "instructions cannot be counted" valgrind:valgrind
	@$(BIN)/python -m bench.install
	@$(BIN)/python -m bench.instructions $(if $(UPDATE),--update)

# The newer releases that Debian packages: OTP 27 in trixie, OTP 29 in sid. Needs root.
interop-all: build
	@ROUTER_TEST_OTPS="$$(tests/interop/fetch_otp.sh)" $(BIN)/pytest -m interop $(PYTEST_ARGS)

# Tests on a core that watches itself. The interpreter is not instrumented, so the
# sanitizer's library is loaded first and leaks are left to the C units, which look for their own.
WATCHED := tests/unit $(wildcard tests/fault) -m "not slow" \
    --ignore tests/unit/test_c_units.py --ignore tests/unit/test_packaging.py

sanitize: build
	@tools/sanitize address,undefined $(BIN) $(WATCHED) $(PYTEST_ARGS)

sanitize-thread: build
	@tools/sanitize thread $(BIN) $(WATCHED) $(PYTEST_ARGS)

# Registry, mailboxes, wake-ups: the C programs with threads under sanitizers, for MINUTES and a
# third of it; and their models, in every interleaving (ten minutes).
stress:
	@tools/stress thread $(MINUTES)
	@tools/stress address $$(( ($(MINUTES) + 2) / 3 ))

models:
	@tools/install-packages "the models cannot be checked" spin:spin
	@tests/models/run

# Each target of tests/fuzz for FUZZ_SECONDS, from the committed inputs onward.
fuzz: $(INSTALLED)
	@$(FUZZERS)
	@tests/fuzz/run.sh $(BIN)/python $(FUZZ_SECONDS)

clean:
	@rm -rf $(VENV) build dist *.egg-info router/*.so .mypy_cache .pytest_cache .ruff_cache
	@find router tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
