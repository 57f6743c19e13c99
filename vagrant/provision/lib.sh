# What the provisioning scripts share. Sourced by them.
# shellcheck shell=bash

say() {
    echo "naru: $*"
}

die() {
    echo "naru: $*" >&2
    exit 1
}

# The interface that has an address.
interface_of() {
    local name
    name=$(ip -o -4 addr show to "$1/32" | awk '{ print $2; exit }')
    [[ -n $name ]] || die "no interface has $1: is the host-only network there?"
    echo "$name"
}

# Runs a command every second until it succeeds, for so many seconds at most.
wait_for() {
    local seconds=$1 what=$2
    shift 2
    local end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            journalctl --quiet --no-pager --lines 20 --unit 'naru*' || true
            die "$what: not so after $seconds s"
        fi
        sleep 1
    done
}

# Installs packages that are not there yet.
need() {
    local missing=() package
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null |
            grep -q 'ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
}
