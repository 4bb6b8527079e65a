# `just` lists the recipes. None of them is needed to build or test: they are short names for the commands they show.

python := env("PYTHON", "python3")

export VIRTUAL_ENV := env("VIRTUAL_ENV", justfile_directory() / ".venv")
export PATH := VIRTUAL_ENV / "bin" + ":" + env("PATH")

_default:
    @just --list --unsorted

# Make .venv with the tools, and the package built for development in it
setup:
    [ -x "$VIRTUAL_ENV/bin/python" ] || {{ python }} -m venv "$VIRTUAL_ENV"
    pip install --quiet 'maturin>=1.9,<2'
    maturin develop --extras dev

# Build the extension module for development; `just build --release` for measurements
build *flags:
    maturin develop {{ flags }}

# Serve an app: just run examples.basic.app:app --port 8000
run target="examples.basic.app:app" *flags:
    anyserve serve {{ target }} {{ flags }}

# Serve the same without Python in the main process
run-node target="examples.basic.app:app" *flags:
    cargo run --release --package anyserve-node -- {{ target }} {{ flags }}

# Every check and every test, as CI runs them
test:
    scripts/test

# Tests that start real replicas, with what is installed now
e2e *flags:
    python -m pytest tests/e2e {{ flags }}

# Formats, ruff, mypy, stubtest, clippy
lint:
    scripts/test --no-install lint

fmt:
    cargo fmt --all
    ruff format .
    ruff check --fix --quiet .

# Load a running replica: just bench echo --connections 4
bench *flags:
    anyserve bench {{ flags }}

# The comparison of benchmarks/README.md
overhead *flags:
    python benchmarks/overhead.py {{ flags }}

# The object plane, measured: the second half of benchmarks/README.md
objects *flags:
    python benchmarks/objects.py {{ flags }}

# Workers that come and go, measured: the third part of benchmarks/README.md
workers *flags:
    python benchmarks/workers.py {{ flags }}

# The API server, measured: the fourth part of benchmarks/README.md
cluster *flags:
    python benchmarks/cluster.py {{ flags }}

# Regenerate the code of proto/ that is checked in
gen-proto:
    cargo run --package anyserve-proto --example generate

docs:
    cargo doc --workspace --no-deps --exclude anyserve-py

clean:
    cargo clean
    rm -rf dist .pytest_cache .mypy_cache .ruff_cache
    find python tests examples -name __pycache__ -prune -exec rm -rf {} +
    rm -f python/anyserve/_core*.so
