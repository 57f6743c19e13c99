#!/usr/bin/env bash
# On the control plane, before the API starts: the token by which every node's Naru reads
# the cluster. It is what the machines share, since a node's own identity may not read
# EndpointSlices.
set -euo pipefail

install -d -m 0700 /etc/naru/cluster
(umask 077 && echo "$(<"$SHARED/cluster.token"),naru,naru" >/etc/naru/cluster/tokens.csv)
