# `make run` sets up and shows the page, `make test` sets up and proves everything. Flags for either: make run ARGS="--port 8060"
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
FUZZ_SECONDS ?= 450
FUZZ_TIMES ?= 4
SHELL := /bin/sh
.PHONY: run stack test fast hardship fuzz soak lint types docs bench lock locked sbom audit browser servers clean

run: .venv/run
	$(BIN)/python app.py $(ARGS)

# a Kafka broker, a PostgreSQL server, and the page between them: a trial, which forgets everything at the end
stack: .venv/test servers
	$(BIN)/python -m bench.stack $(ARGS)

test: .venv/test browser servers
	$(BIN)/python -m pytest $(ARGS)

fast: .venv/test
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal -m "not browser and not service and not slow" $(ARGS)

# kill -9 under load, a full disk, a clock that jumps, hostile input, five times too much of it, 500 followers, a soak; -s shows the figures
hardship: .venv/test
	$(BIN)/python -m pytest -m hardship -s $(ARGS)

# About 10 CPU minutes: the readers for FUZZ_SECONDS, guided by coverage, then the tests of the API and of the service
# FUZZ_TIMES as long as in `make test`, on other examples each time
fuzz: .venv/test build/fuzz/made
	build/fuzz/bin/python -m tests.fuzz.campaign --seconds $(FUZZ_SECONDS)
	FUZZ_TIMES=$(FUZZ_TIMES) $(BIN)/python -m pytest tests/api/test_api_fuzz.py tests/engine/test_stateful.py $(ARGS)

# half an hour at a tenth of the capacity under random faults: is everything flat, is nothing lost
soak: .venv/test
	$(BIN)/python -m bench.soak $(ARGS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

docs: .venv/run
	$(BIN)/python docs/tables.py
	$(BIN)/python docs/pages.py
	$(BIN)/python docs/tuning.py
	$(BIN)/python docs/licences.py

bench: .venv/test browser
	$(BIN)/python -m bench.speed
	$(BIN)/python -m bench.page
	$(BIN)/python -m bench.service
	$(BIN)/python -m bench.hardening
	$(BIN)/python -m bench.accuracy --tables simulated

# The exact versions of everything, with their hashes; those that it has stay: make lock ARGS=--upgrade
lock: build/supply/made
	build/supply/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --custom-compile-command "make lock" --quiet --output-file deploy/requirements.lock $(ARGS)

# Into .venv, what the lock file names, every download checked against its hash
locked: .venv/bin/python
	$(BIN)/python -m pip install --quiet --require-hashes -r deploy/requirements.lock

sbom: build/supply/made
	build/supply/bin/cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml --output-reproducible \
	  --output-format JSON --output-file build/sbom.json
	@echo "wrote build/sbom.json"

audit:
	@$(MAKE) --no-print-directory build/supply/made >/dev/null 2>&1 \
	  && build/supply/bin/python .ci/audit.py build/supply/bin/pip-audit deploy/requirements.lock \
	  || { test -e build/supply/made && exit 1; echo "not audited: pip-audit cannot be installed from here"; }

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Each stamp stands for one pip install; it is older than the list it was made from when that list has changed.
.venv/run: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

.venv/test: pyproject.toml requirements.txt .venv/run
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@

# The tools of the supply chain, apart from what Redline itself runs on
build/supply/made: Makefile | .venv/bin/python
	$(BIN)/python -m venv build/supply
	build/supply/bin/python -m pip install --quiet "uv>=0.13,<1" "pip-audit>=2.10,<3" "cyclonedx-bom>=7,<8"
	@touch $@

# The fuzzer, apart too: it comes for few versions of Python
build/fuzz/made: Makefile requirements.txt | .venv/bin/python
	$(BIN)/python -m venv build/fuzz
	build/fuzz/bin/python -m pip install --quiet -r requirements.txt "atheris>=3,<4" "cramjam>=2.14,<3" "protobuf>=7.35,<8" "pyarrow>=24"
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Redline needs Python 3.11 or newer; this is %d.%d. Name another: make run PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(call apt,python3-venv) || echo "This Python cannot make virtual environments; install the package python3-venv." >&2
	$(PYTHON) -m venv .venv

browser:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || $(call apt,chromium fonts-liberation) \
	  || echo "No Chromium here and no right to install one: the browser suite will be skipped." >&2

# Prometheus with its node exporter, PostgreSQL, Redis and Mosquitto with what they need here, unpacked without installing: nothing is started,
# nothing else of the machine changes; and the jars of a Kafka broker, by Maven
servers:
	@test -e build/servers/made || { $(call apt,) ; mkdir -p build/servers && cd build/servers \
	  && apt-get download -qq prometheus prometheus-node-exporter 2>/dev/null && for each in *.deb; do dpkg -x $$each . ; done && touch made; } \
	  || echo "No packages of Debian here: the test with a real Prometheus will be skipped." >&2
	@test -e build/servers/made-postgresql || { $(call apt,) ; mkdir -p build/servers/debs/partial && cd build/servers \
	  && apt-get install -qq -y --download-only --no-install-recommends -o Debug::NoLocking=1 -o Dir::Cache::archives="$$PWD/debs" postgresql >/dev/null 2>&1 \
	  && for each in debs/*.deb; do test ! -e $$each || dpkg -x $$each . || exit 1; done && touch made-postgresql; } \
	  || echo "No packages of Debian here: without PostgreSQL on this machine the tests with a real one will be skipped." >&2
	@test -e build/servers/made-redis || { $(call apt,) ; mkdir -p build/servers/debs/partial && cd build/servers \
	  && apt-get install -qq -y --download-only --no-install-recommends -o Debug::NoLocking=1 -o Dir::Cache::archives="$$PWD/debs" redis-server mosquitto >/dev/null 2>&1 \
	  && for each in debs/*.deb; do test ! -e $$each || dpkg -x $$each . || exit 1; done && touch made-redis; } \
	  || echo "No packages of Debian here: the tests with a real Redis and a real MQTT broker will be skipped." >&2
	@test build/servers/kafka/made -nt tests/servers/kafka/pom.xml || { { command -v mvn >/dev/null || $(call apt,maven default-jre-headless) ; } \
	  && rm -rf build/servers/kafka.new && mvn --quiet --batch-mode --file tests/servers/kafka/pom.xml dependency:copy-dependencies \
	  -DincludeScope=runtime -DoutputDirectory="$(CURDIR)/build/servers/kafka.new" && touch build/servers/kafka.new/made \
	  && rm -rf build/servers/kafka && mv build/servers/kafka.new build/servers/kafka; } >/dev/null 2>&1 \
	  || echo "No Maven here, or no network: the tests with a real Kafka broker will be skipped." >&2

apt = { if [ "$$(id -u)" = 0 ]; then root=; else root="sudo -n"; fi; command -v apt-get >/dev/null && $$root true 2>/dev/null \
  && $$root apt-get update -qq && $$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(1); }
