# Needs a Python of 3.10 to 3.13 somewhere on the machine (.ci/environment finds it; PYTHON=... decides);
# everything else goes to .venv.
MODEL := model:cue_loihi2
NET := net.h5

.PHONY: help run test slow lint site clean environment

help:
	@echo 'make run     export the shipped model to $(NET) and run it on Lava, compared with the emulator'
	@echo 'make test    the quick tests'
	@echo 'make slow    the tests that take minutes'
	@echo 'make lint    ruff and mypy'
	@echo 'make site    the documentation below build/site'
	@echo 'make clean   remove everything that make made, .venv too'

environment:
	@bash .ci/environment make test

run: environment
	.venv/bin/delaynet export $(MODEL) -o $(NET)
	.venv/bin/delaynet run $(NET) --task cue --samples 8 --seed 1 --backend lava --check emulator

# A file of tests stays in one process, which makes what its tests share once.
test: environment
	.venv/bin/python -m pytest -q -n 2 --dist loadfile

slow: environment
	.venv/bin/python -m pytest -q -m slow

# mypy sees packages on a path, not the import hook of an editable installation, and this one is put
# together from three folders: it reads a copy installed below build/.
lint:
	@bash .ci/environment make test dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	@rm -rf build
	@.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --target build/lint .
	MYPYPATH=build/lint .venv/bin/mypy -p delaynet_lava

site:
	@bash .ci/environment make test docs
	@bash .ci/site

clean:
	rm -rf .venv .venv-other build dist delaynet_lava.egg-info $(NET) .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find delaynet_lava export hw_profiles tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
