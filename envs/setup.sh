#!/usr/bin/env bash
# Set-up for `make`: the Debian packages of apt.txt and a virtual environment from
# requirements.lock. Does only what is missing; a second run just looks.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "mcuforge: $*" >&2; }

install_packages() {
    local wanted missing=() package root=()
    mapfile -t wanted < <(sed 's/#.*//' envs/apt.txt | awk 'NF {print $1}')
    if ! command -v dpkg-query > /dev/null; then
        say "not a Debian system; make sure these are installed: ${wanted[*]}"
        return
    fi
    for package in "${wanted[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null || true)" = installed ] \
            || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2> /dev/null; then
            say "no right to install packages; ask for: apt-get install ${missing[*]}"
            exit 1
        fi
        root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}"
}

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            command -v "$python"
            return
        fi
    done
    say "Python 3.11 or newer with the venv module is needed: apt-get install python3 python3-venv"
    exit 1
}

make_venv() {
    local stamp=.venv/.mcuforge-stamp want
    want=$(sha256sum envs/requirements.lock pyproject.toml)
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2> /dev/null)" = "$want" ]; then
        return
    fi
    local python
    python=$(find_python)
    say "creating .venv with $("$python" --version)"
    "$python" -m venv .venv
    .venv/bin/python -m pip install -q --require-hashes -r envs/requirements.lock
    .venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
    echo "$want" > "$stamp"
}

install_packages
make_venv
