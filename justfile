# Common tasks; CONTRIBUTING.md says what each is for.

default:
    @just --list

# The fast tests
test *args:
    pytest -n auto {{args}}

# The slow tests: small trainings, blocks of pages, the site in a browser
slow *args:
    pytest -m slow {{args}}

lint:
    ruff check .
    ruff format --check .

types:
    mypy

# The site, into site/
docs:
    python -m docs.make

serve:
    python -m docs.make --serve

# Tests of the plugins that ship in this repository
plugins:
    for plugin in plugins/*/; do (cd "$plugin" && python -m pytest) || exit 1; done

# Everything, in a clean checkout and a fresh environment
ci:
    .ci/run
