# tfvae: every command of the project. `make help` lists them.
# The first one that needs it makes .venv (Python 3.11) and installs the pinned requirements.txt.

PYTHON  ?= $(shell command -v python3.11 || command -v python3)
VENV    := .venv
READY   := $(VENV)/ready
RUN     := $(VENV)/bin/python
TFVAE   := $(RUN) -m tfvae
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint format lab bench bench-torch doctor clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-26s %s\n", $$1, $$2} /^## /{printf "\n%s\n", substr($$0, 4)}' $(MAKEFILE_LIST)

## Start here
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "tfvae needs Python 3.11; name yours: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

install: $(READY) ## make .venv with the pinned stack and the command .venv/bin/tfvae
quickstart: $(READY) ## Mult-VAE, Mult-DAE, EASE and popularity on the embedded data: table, picture, model, recommendations (5 min)
	$(RUN) examples/quickstart.py
test: $(READY) ## all tests (6 min on 2 cores; more where ML-20M, Netflix or MSD lie in TFVAE_DATA)
	$(RUN) -m pytest -n 2 --dist loadfile
lint: $(READY) ## ruff: rules and format
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
format: $(READY) ## let ruff mend what it can
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .
lab: $(READY) ## open the notebooks in JupyterLab
	$(RUN) -m jupyterlab notebooks
doctor: $(READY) ## can this machine run tfvae?
	$(TFVAE) doctor --device
clean: ## remove runs, exports and prepared data; keep .venv, results and downloads
	rm -rf runs exports data

bench: $(READY) ## speed and memory of training and evaluation, as ratios within one run (20 min)
	$(RUN) benchmarks/training.py --torch-python $(TORCH_VENV)/bin/python
	$(RUN) benchmarks/evaluation.py
	$(RUN) benchmarks/ratings.py
bench-torch: ## make .venv-torch with PyTorch, so that `make bench` has it to compare with
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
TORCH_VENV := .venv-torch

## Paper tables. Data that cannot be downloaded: TFVAE_DATA=/folder or SOURCE=/file. Times: 2 cores, 3 seeds, extrapolated
table2-ml20m:            ## Mult-VAE Table 2 (a): Mult-VAE, Mult-DAE, EASE, popularity; ML-20M is downloaded; 14 h
table2-netflix:          ## Mult-VAE Table 2 (b): the same; Netflix by hand; 20 h
table2-msd:              ## Mult-VAE Table 2 (c): the same; MSD by hand; 2 days, 16 GB
table2-ml1m:             ## the same rows on ML-1M; 10 min
table2-movietweetings:   ## the same rows on the embedded data; 5 min
table4-ml20m:            ## Mult-VAE Table 4: three likelihoods, VAE and DAE; ML-20M is downloaded; 2 days
table4-ml1m:             ## the same rows on ML-1M; 20 min
table4-movietweetings:   ## the same rows on the embedded data; 10 min
table1-ml20m:            ## EVCF Table 1: Vamp, H+Vamp, gates; ML-20M is downloaded; 2 weeks
table1-netflix:          ## EVCF Table 1: the same; Netflix by hand; 7 weeks
evcf-table1-ml1m:        ## the same rows on ML-1M; 1 h
table2-gating-netflix:   ## EVCF Table 2: gates and depth; Netflix by hand; 4 months
table2-gating-ml20m:     ## the same rows on ML-20M; 6 weeks
table2-gating-ml1m:      ## the same rows on ML-1M; 2 h
table3-ml1m:             ## Mult-VAE Table 3: against NCF, on NCF's split of ML-1M; by hand; 2 h
table3-pinterest:        ## the same on NCF's Pinterest; by hand; 6 h
table1-ml1m:             ## p-VAE Table 1: ratings of ML-1M, five splits; SPLITS=1 for a quick look; 2 h, SPLITS=1 25 min
recvae-ml20m:            ## RecVAE's table: WMF, Mult-VAE, RaCT, EASE, RecVAE; ML-20M is downloaded; 30 h
recvae-netflix:          ## the same; Netflix by hand; 3 days
recvae-msd:              ## the same; MSD by hand; 8 days, 16 GB
recvae-ml1m:             ## the same rows on ML-1M; 15 min
recvae-ablation-ml20m:   ## RecVAE with one part less at a time; ML-20M is downloaded; 2 days
recvae-ablation-ml1m:    ## the same rows on ML-1M; 2 h
multvae-table1-ml20m:    ## Mult-VAE Table 1: attributes of ML-20M; downloaded; 1 min
multvae-table1-netflix:  ## Mult-VAE Table 1: attributes of Netflix; by hand; 3 min
multvae-table1-msd:      ## Mult-VAE Table 1: attributes of MSD; by hand; 2 min
multvae-table1-ml1m:     ## the same counts of ML-1M; seconds

SOURCE_OPTION = $(if $(SOURCE),--source "$(SOURCE)")
SPLITS_OPTION = $(if $(SPLITS),--splits $(SPLITS))
PAPER_TABLES := $(shell sed -n 's/^\([a-z0-9-]*table[1234]-[a-z0-9-]*\|recvae-[a-z0-9-]*\):  .*/\1/p' $(MAKEFILE_LIST))
.PHONY: table sweep $(PAPER_TABLES)

table2-%:         TABLE = multvae-table2
table3-%:         TABLE = multvae-table3
table4-%:         TABLE = multvae-table4
multvae-table1-%: TABLE = multvae-table1
table1-% evcf-table1-%: TABLE = evcf-table1
table1-ml1m: TABLE = pvae-table1
table2-gating-%:  TABLE = evcf-table2
recvae-%:         TABLE = recvae-table
recvae-ablation-%: TABLE = recvae-ablation
%-ml20m:          DATASET = ml-20m
%-netflix:        DATASET = netflix
%-msd:            DATASET = msd
%-ml1m:           DATASET = ml-1m
%-movietweetings: DATASET = movietweetings
table3-ml1m: DATASET = ncf-ml-1m
table3-pinterest: DATASET = ncf-pinterest

$(PAPER_TABLES) table: $(READY)
	$(TFVAE) table $(TABLE) --dataset $(DATASET) $(SOURCE_OPTION) $(SPLITS_OPTION)

table:                   ## any table on any data set: make table TABLE=multvae-table2 DATASET=ml-100k
sweep: $(READY)          ## tune a row on validation users: make sweep TABLE=multvae-table2 ROW=mult-vae DATASET=ml-1m TRIALS=20
	$(TFVAE) sweep $(TABLE) --row $(ROW) --dataset $(DATASET) --trials $(TRIALS) $(SOURCE_OPTION)
