#!/usr/bin/env bash
# k3s with Flannel: the server on the control plane, agents elsewhere. Without its own
# load balancer, whose part Naru has, and without Traefik, which would take an address.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$PROVISION/lib.sh"

need curl ca-certificates
# The first interface has the same address in every machine: nodes and Flannel must not
# take that.
args=(--node-ip "$ADDRESS" --flannel-iface "$LAN")
if [[ $ADDRESS == "$CONTROL_PLANE" ]]; then
    bash "$PROVISION/reader-token.sh"
    args=(server "${args[@]}" --advertise-address "$ADDRESS" --cluster-cidr "$PODS"
        --disable servicelb --disable traefik --write-kubeconfig-mode 0644
        --kube-apiserver-arg token-auth-file=/etc/naru/cluster/tokens.csv)
else
    args=(agent "${args[@]}" --server "https://$CONTROL_PLANE:6443")
fi
token=$(<"$SHARED/cluster.token")
curl --silent --show-error --fail --location https://get.k3s.io |
    K3S_TOKEN=$token sh -s - "${args[@]}"
if [[ $ADDRESS == "$CONTROL_PLANE" ]]; then
    wait_for 180 "the API answers" k3s kubectl get nodes
    k3s kubectl apply -f "$PROVISION/reader.yaml"
fi
wait_for 180 "Flannel's interface is there" ip link show flannel.1
