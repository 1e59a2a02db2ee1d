# make demo, figures, tables, test, mutants, lint: the first call sets up a virtual environment in
# .venv; VENV=DIR takes or makes another.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo figures tables test mutants lint clean

$(VENV)/installed: requirements.txt tests/requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.txt -r tests/requirements.txt
	@touch $@

# Digits at ipc 1: random whole images, random images four to a canvas, BACON's images. The same
# five judges for each.
DEMO = $(RUN) -u BACON_mnist.py --dataset Digits --model ConvNetW32 --ipc 1 --num_exp 1 \
	--epoch_eval_train 300 --precision fp32 --no_compile --overwrite

demo: $(VENV)/installed
	$(DEMO) --Iteration 0 --no_aug --save_path result/demo/random_whole
	$(DEMO) --Iteration 0 --save_path result/demo/random_four
	$(DEMO) --Iteration 100 --save_path result/demo/BACON
	@echo
	@$(RUN) evaluate.py --table result/demo

figures: $(VENV)/installed
	PYTHON=$(RUN) docs/figures.sh --data_path data
	$(RUN) docs/pictures.py

tables: $(VENV)/installed
	$(RUN) docs/tables.py

test: $(VENV)/installed
	$(RUN) -m pytest -n auto

# Small faults put into the code, one at a time: how many do the tests notice?
# MUTANTS="--sample 20 --seed 1" asks for fewer.
mutants: $(VENV)/installed
	$(RUN) tests/mutants.py $(MUTANTS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

clean:
	rm -rf $(VENV) result .pytest_cache .ruff_cache .mutants
