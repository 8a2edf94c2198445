# Everything a fresh machine needs: `make demo`, `make test`. Nothing to install by hand but Python 3.11+ with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# A machine that forbids compiled modules makes every one of our processes compile all it imports: 3.5 s instead of 1.2.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test long load fuzz faults laboratory model schedules races thirty abuse outages lint serve lock clips clean

demo: $(VENV)/.run
	$(BIN)/python manage.py demo $(ARGS)

# Where journeys are: no other test is imported for them. Of files with one of them each the long ones come before the short ones.
JOURNEYS := tests/sandbox/test_another_bridge.py tests/journeys tests/roof/test_stack.py

# Who has done his half takes from the other's: the tests of a directory stay together, and what they share is begun once.
# Journeys come second: they keep time on real sockets, and mostly wait. Those of a file share a house. Who kills has the machine alone.
test: $(VENV)/.dev
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n 2 -m "not journey and not load and not long"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "journey and not load and not alone" $(JOURNEYS)
	$(BIN)/python -m pytest -m "journey and not load and alone" $(JOURNEYS)
else
	$(BIN)/python -m pytest $(ARGS)
endif

# The rest of the proof that needs no clock: every order of news, every moment to leave, megabytes, a hundred kills, the whole model of a
# call, a call of ten hours, what two hundred calls leave.
long: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m long $(ARGS)

# What needs the machine to itself for minutes: thirty calls at once, faults of both vendors.
load: $(VENV)/.dev
	$(BIN)/python -m pytest -m load $(ARGS)

# Bad input at the nine doors, as much of it as wanted; a failure prints the seed and the case.
CASES ?= 20000
SEED ?= 1
fuzz: $(VENV)/.dev
	FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -n 2 --timeout 0 tests/fuzz $(ARGS)

# Every named fault of both vendors against a real house, or those of FAULTS=dies-1011,burst: minutes.
FAULTS ?= all
faults: $(VENV)/.dev
	FAULTS=$(FAULTS) $(BIN)/python -m pytest --timeout 900 -m journey tests/journeys/test_faults.py $(ARGS)

# Every state of one call and all around it under one fault, 1.1 million, in a minute. MODEL_FAULTS=2 gives up at ten million.
MODEL_FAULTS ?= 1
model: $(VENV)/.dev
	MODEL_FAULTS=$(MODEL_FAULTS) $(BIN)/python -m pytest -s tests/model/test_model.py -k no_way $(ARGS)

# The last news of a call in so many random orders, with repeats, told to two processes at once; a failure prints how it ended else.
SCHEDULES ?= 10000
schedules: $(VENV)/.dev
	SCHEDULES=$(SCHEDULES) SEED=$(SEED) $(BIN)/python -m pytest -s tests/races/test_schedules.py $(ARGS)

# The wide races as often as one may ask, on SQLite and, where there is one, on PostgreSQL; R2 in so many orders of a thousand news.
SEEDS ?= 200
races: $(VENV)/.dev
	SEEDS=$(SEEDS) $(BIN)/python -m pytest -m load tests/races $(ARGS)

# The fault laboratory: every fault of the table, RUNS of each id, and who was lost; about an hour for one of each.
# ARGS="--restarts 20": rolling restarts of a whole house under thirty calls instead.
RUNS ?= 1
laboratory: $(VENV)/.run
	$(BIN)/python manage.py sandbox faults --runs $(RUNS) $(ARGS)

# Thirty calls at once in real time, or as many as CALLS=100 says, each known by its sound; what was measured is printed.
CALLS ?= 30
thirty: $(VENV)/.dev
	THIRTY=$(CALLS) $(BIN)/python -m pytest --timeout 900 -s -m journey tests/journeys/test_thirty.py $(ARGS)

# So many calls, each broken off at a random point: what they leave behind.
ABUSED ?= 5000
abuse: $(VENV)/.dev
	ABUSED=$(ABUSED) $(BIN)/python -m pytest -s -m long tests/bridge/test_nothing_stays.py $(ARGS)

# Parts of a real house away for so long, alone and in pairs, with one call after the other; or those of PARTS="database valkey".
SECONDS ?= 600
outages: $(VENV)/.dev
	OUTAGE_SECONDS=$(SECONDS) $(BIN)/python -m pytest -s -m journey tests/journeys/test_parts_away.py $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

serve: $(VENV)/.run
	$(BIN)/python manage.py serve $(ARGS)

# The hash-pinned installer, then the hash-pinned lock: about 12 s on an empty machine.
$(VENV)/.uv: requirements/installer.lock
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "supportvoice needs Python 3.11 or newer with venv: apt-get install python3 python3-venv (or PYTHON=/path/to/python make ...)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/installer.lock
	@touch $@

$(VENV)/.run: $(VENV)/.uv requirements/run.lock
	@test -e $(VENV)/.dev || VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/run.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.uv requirements/dev.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.lock
	@touch $@ $(VENV)/.run

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate pyproject.toml
lock: $(VENV)/.uv
	$(LOCK) --extra embedded -o requirements/run.lock
	$(LOCK) --extra embedded --group dev -o requirements/dev.lock
	$(LOCK) --extra embedded --extra voice -o requirements/voice.lock

# The sandbox's speech, synthesised again (extra `voice`).
clips: $(VENV)/.uv requirements/voice.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/voice.lock
	$(BIN)/python manage.py sandbox clips $(ARGS)

clean:
	rm -rf $(VENV) var
