#!/usr/bin/env bash
# Asks the cluster's API once a second and writes what has changed to the directory of
# manifests: naru-follow-cluster KUBECTL...
set -euo pipefail

file=/etc/naru/manifests/cluster.yaml
draft=/etc/naru/cluster/draft.yaml

while true; do
    # All kinds in one file, which is replaced as a whole.
    "$@" --kubeconfig /etc/naru/cluster/kubeconfig --request-timeout 5s \
        get services,endpointslices,nodes --all-namespaces --output yaml >"$draft"
    cmp --quiet "$draft" "$file" || mv "$draft" "$file"
    sleep 1
done
