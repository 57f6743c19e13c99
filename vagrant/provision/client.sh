#!/usr/bin/env bash
# Makes a client of a machine: it only asks. May be run again.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source /vagrant/provision/lib.sh

need curl
interface_of "$ADDRESS" >/dev/null
say "try: curl http://$VIP/"
