# tfvae: every command of the project. `make help` lists them.
# The first one that needs it makes .venv and installs the pinned requirements.txt.

# .venv is made by the newest Python that fits, or by PYTHON=...; they are tried by running them, since a name on the PATH may
# be a version manager's stub that does not run. An existing .venv keeps its Python; remove .venv to change it.
FITS    := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
VENV    := .venv
READY   := $(VENV)/ready
RUN     := $(VENV)/bin/python
PIP     := -m pip install --quiet --disable-pip-version-check
TFVAE   := $(RUN) -m tfvae
TESTS   := $(RUN) -m pytest -n 2 --dist loadfile
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help install quickstart doctor lab notebooks tensorboard clean site site-serve test test-all test-fast lint types format bench \
	bench-large bench-serving bench-torch soak dist

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-19s %s\n", $$1, $$2} /^## /{printf "\n%s\n", substr($$0, 4)} /^##: /{print substr($$0, 5)}' $(MAKEFILE_LIST)

## Start here
$(READY): requirements.txt pyproject.toml
	@$(RUN) -c '$(FITS)' 2>/dev/null && exit; \
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
		$$python -c '$(FITS)' 2>/dev/null && exec $$python -m venv --clear $(VENV); \
	done; \
	echo "tfvae needs Python 3.11, 3.12 or 3.13 with its venv module; name yours: make PYTHON=/path/to/python3"; exit 1
	$(RUN) $(PIP) -r requirements.txt
	$(RUN) $(PIP) --no-deps --editable .
	@touch $@

install: $(READY) ## make .venv with the pinned stack and the command .venv/bin/tfvae
quickstart: $(READY) ## Mult-VAE, Mult-DAE, EASE and popularity on the embedded data: table, picture, model, recommendations (5 min)
	$(RUN) examples/quickstart.py
doctor: $(READY) ## can this machine run tfvae?
	$(TFVAE) doctor --device

## Use it
##: .venv/bin/tfvae has the commands: fit, compare, evaluate, recommend, similar, serve, export; tfvae --help
lab: $(READY) ## open the notebooks in JupyterLab
	$(RUN) -m jupyterlab notebooks
notebooks: $(READY) ## run the six notebooks, into build/notebooks (4 min on 2 cores); some: make notebooks NAMES="02 05"
	$(RUN) notebooks/run.py $(NAMES)
tensorboard: $(READY) ## watch runs in the browser at http://localhost:6006; of one run: make tensorboard LOGDIR=runs/NAME
	$(RUN) -m tensorboard.main --logdir "$(LOGDIR)"
LOGDIR := runs
clean: ## remove runs, exports and prepared data; keep .venv, results and downloads
	rm -rf runs exports data

## Look at the results
site: $(READY) ## the site in build/site: results, models, guide, API; strict, with its links checked (about 2 min)
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet
site-serve: $(READY) ## the same at http://localhost:8001
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs serve --dev-addr localhost:8001

## Make the papers' tables: make evcf-table1 DATASET=ml-20m, or make evcf-table1-ml20m, or make evcf-table1 DATA=ratings.csv
##: Times: 2 cores, 3 seeds, extrapolated. ML-1M and ML-20M are downloaded; netflix, msd and NCF's files are fetched by hand,
##: into TFVAE_DATA=/folder or as SOURCE=/file. More options of `tfvae table --help`: OPTIONS="--seeds 1".
multvae-table1: ## attributes of the data sets; minutes (ml20m, netflix, msd, ml1m)
multvae-table2: ## Mult-VAE, Mult-DAE, EASE, ...; ml20m 14 h, netflix 20 h, msd 2 days, ml1m 10 min, movietweetings 5 min
multvae-table3: ## against NCF on NCF's split; ncf-ml-1m 2 h, ncf-pinterest 6 h (multvae-table3-ml1m, -pinterest)
multvae-table4: ## three likelihoods, VAE and DAE; ml20m 2 days, ml1m 20 min, movietweetings 10 min
evcf-table1: ## EVCF: Vamp, H+Vamp, gates; ml20m 2 weeks, netflix 7 weeks, ml1m 1 h
evcf-table2: ## EVCF: gates and depth; netflix 4 months, ml20m 6 weeks, ml1m 2 h
pvae-table1: ## p-VAE: ratings, five splits; ml1m 2 h, with SPLITS=1 25 min
recvae-table: ## WMF, Mult-VAE, RaCT, EASE, RecVAE; ml20m 30 h, netflix 3 days, msd 8 days and 16 GB, ml1m 15 min
recvae-ablation: ## RecVAE with one part less at a time; ml20m 2 days, ml1m 2 h
lightgcn-gowalla: ## LightGCN's protocol, all users trained on; gowalla (16 GB for EASE), amazonbook, pinterest
leaderboard: ## all ranking models on equal terms; ml1m 8 h, movietweetings 4 h, gowalla and amazonbook days
leaderboard-ratings: ## all models of ratings on equal terms, five splits; ml1m 5 h
meld: ## our own model, its ablation, and the best single models beside it; ml1m 5 h, movietweetings 5 h
multvae-figure1: ## Mult-VAE's Figure 1: three ways of β while training; ml20m 2 days, ml1m 15 min, movietweetings 5 min
multvae-figure3: ## Mult-VAE's Figure 3: by how much is known of a user; the runs of multvae-table2
vamp-prior: ## the prior against the aggregated posterior, Vamp and H+Vamp; runs of evcf-table1
pvae-by-ratings: ## p-VAE's intervals, and the RMSE of others, by number of ratings; runs of pvae-table1, ml1m 10 min
speed-quality: ## how long all models train, and how well they rank; runs of leaderboard
beta-quality: ## seven values of β against quality; ml20m 3 days, ml1m 40 min, movietweetings 8 min
cheaper-steps: ## what bfloat16 and sampled items cost in quality; ml20m 2 weeks, ml1m 40 min, movietweetings 20 min
sweep: $(READY) ## tune a row on validation users: make sweep TABLE=multvae-table2 ROW=mult-vae DATASET=ml-1m TRIALS=20
	$(TFVAE) sweep $(TABLE) --row $(ROW) $(DATA_OPTIONS) --trials $(TRIALS) $(OPTIONS)

## Develop
test: $(READY) ## the tests (about 10 min on 2 cores; more where ML-20M, Netflix or MSD lie in TFVAE_DATA)
	$(TESTS) -m "not long"
test-all: $(READY) ## these, and the long ones: models like others, notebooks that train for long (about 30 min)
	OPTIMIZED_GRAPHS=1 $(TESTS)
test-fast: $(READY) ## the tests without the slow ones, for daily work (90 s on 2 cores)
	$(TESTS) -m "not slow and not long"
lint: $(READY) ## ruff: rules and format; mypy: types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
types: $(READY) ## mypy over the package
	$(RUN) -m mypy
format: $(READY) ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
bench: $(READY) ## speed and memory of training and evaluation, as ratios within one run (20 min)
	$(RUN) benchmarks/training.py --torch-python $(TORCH_VENV)/bin/python
	$(RUN) benchmarks/evaluation.py
	$(RUN) benchmarks/recommend_all.py
	$(RUN) benchmarks/ratings.py
	$(RUN) benchmarks/start_up.py
bench-serving: $(READY) ## requests/s and delays of tfvae serve, and models swapped under load (half an hour)
	$(RUN) benchmarks/serving.py
bench-large: $(READY) ## a log of 500 million events prepared and trained on within limited memory (an hour, 60 GB of disk)
	$(RUN) benchmarks/out_of_core.py
soak: $(READY) ## damaged files by the million, commands killed, disks full (a day; goes on where it was stopped)
	$(RUN) benchmarks/soak.py
	$(RUN) benchmarks/soak_runs.py
bench-torch: $(READY) ## make .venv-torch with PyTorch, so that `make bench` has it to compare with
	$(RUN) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python $(PIP) -r benchmarks/requirements.txt
TORCH_VENV := .venv-torch
dist: $(READY) ## wheel and source distribution in dist/, checked as PyPI would; uploads nothing
	$(RUN) $(PIP) --editable '.[release]'
	rm -rf dist && $(RUN) -m build
	$(RUN) -m twine check --strict dist/*

TABLES := multvae-table1 multvae-table2 multvae-table3 multvae-table4 evcf-table1 evcf-table2 pvae-table1 recvae-table recvae-ablation \
	lightgcn-gowalla leaderboard leaderboard-ratings meld multvae-figure1 multvae-figure3 \
	vamp-prior pvae-by-ratings speed-quality beta-quality cheaper-steps
# A data set's name within a target, and what `--dataset` calls it.
SHORT  := ml100k ml1m ml10m ml20m netflix msd movietweetings pinterest gowalla amazonbook
ml100k := ml-100k
ml1m   := ml-1m
ml10m  := ml-10m
ml20m  := ml-20m
amazonbook := amazon-book
multvae-table3 multvae-table3-ml1m: ml1m := ncf-ml-1m
multvae-table3 multvae-table3-pinterest: pinterest := ncf-pinterest
ON_DATA := $(foreach table,$(TABLES),$(addprefix $(table)-,$(SHORT)))

DATA_OPTIONS = $(if $(DATASET),--dataset $(or $($(DATASET)),$(DATASET))) $(if $(DATA),--data "$(DATA)") \
	$(if $(SOURCE),--source "$(SOURCE)")
TABLE_OPTIONS = $(DATA_OPTIONS) $(if $(SPLITS),--splits $(SPLITS)) $(OPTIONS)

.PHONY: table sweep $(TABLES) $(ON_DATA)
$(ON_DATA): override DATASET = $(lastword $(subst -, ,$@))
$(TABLES) $(ON_DATA): $(READY)
	@$(if $(DATASET)$(DATA),,echo "on which data? make $@ DATASET=ml-1m, or make $@ DATA=ratings.csv"; exit 1)
	$(TFVAE) table $(if $(filter $@,$(TABLES)),$@,$(@:%-$(DATASET)=%)) $(TABLE_OPTIONS)

# The names that targets had before they were called after their tables.
table1 := evcf-table1
table2 := multvae-table2
table3 := multvae-table3
table4 := multvae-table4
table2-gating := evcf-table2
recvae := recvae-table
table1-ml1m: table1 := pvae-table1
FORMER := table1-ml20m table1-netflix table1-ml1m table2-ml20m table2-netflix table2-msd table2-ml1m table2-movietweetings \
	table2-gating-netflix table2-gating-ml20m table2-gating-ml1m table3-ml1m table3-pinterest table4-ml20m table4-ml1m \
	table4-movietweetings recvae-ml20m recvae-netflix recvae-msd recvae-ml1m

.PHONY: $(FORMER)
$(FORMER): SUFFIX = $(lastword $(subst -, ,$@))
$(FORMER): NEW = $($(@:%-$(SUFFIX)=%))-$(SUFFIX)
$(FORMER):
	@echo "make $@ is now make $(NEW)"
	@$(MAKE) --no-print-directory $(NEW)
table:
	@echo "make table TABLE=$(TABLE) is now make $(TABLE)"
	@$(MAKE) --no-print-directory $(TABLE)
