#!/usr/bin/env bash
# kubeadm with containerd and Flannel, as in the tutorials.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$PROVISION/lib.sh"

VERSION=v1.34
FLANNEL=https://github.com/flannel-io/flannel/releases/download/v0.27.4/kube-flannel.yml

prepare() {
    swapoff --all
    sed --in-place '/\sswap\s/d' /etc/fstab
    printf '%s\n' overlay br_netfilter >/etc/modules-load.d/kubernetes.conf
    modprobe --all overlay br_netfilter
    printf '%s\n' 'net.bridge.bridge-nf-call-iptables = 1' 'net.ipv4.ip_forward = 1' \
        >/etc/sysctl.d/60-kubernetes.conf
    sysctl --quiet --system
    need ca-certificates curl gpg containerd
    mkdir -p /etc/containerd
    containerd config default | sed 's/SystemdCgroup = false/SystemdCgroup = true/' \
        >/etc/containerd/config.toml
    systemctl restart containerd
}

install_kubernetes() {
    local key=/etc/apt/keyrings/kubernetes.gpg url=https://pkgs.k8s.io/core:/stable:/$VERSION/deb
    mkdir -p /etc/apt/keyrings
    curl --silent --show-error --fail --location "$url/Release.key" | gpg --dearmor --yes -o "$key"
    echo "deb [signed-by=$key] $url/ /" >/etc/apt/sources.list.d/kubernetes.list
    # The first interface has the same address in every machine.
    echo "KUBELET_EXTRA_ARGS=--node-ip=$ADDRESS" >/etc/default/kubelet
    need kubelet kubeadm kubectl
    apt-mark hold kubelet kubeadm kubectl >/dev/null
}

# kubeadm wants a token of a form of its own.
token() {
    local secret
    secret=$(<"$SHARED/cluster.token")
    echo "${secret:0:6}.${secret:6:16}"
}

start_control_plane() {
    bash "$PROVISION/reader-token.sh"
    cat >/etc/naru/cluster/kubeadm.yaml <<END
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: $(token), ttl: 0s}]
localAPIEndpoint: {advertiseAddress: $ADDRESS}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {podSubnet: $PODS}
apiServer:
  extraArgs: [{name: token-auth-file, value: /etc/naru/cluster/tokens.csv}]
  extraVolumes:
    - {name: naru, hostPath: /etc/naru/cluster, mountPath: /etc/naru/cluster, readOnly: true}
END
    kubeadm init --config /etc/naru/cluster/kubeadm.yaml
    install -D -m 0600 /etc/kubernetes/admin.conf /root/.kube/config
    # Flannel takes the interface of the default route where it is not told otherwise.
    curl --silent --show-error --fail --location "$FLANNEL" |
        sed "s|- --kube-subnet-mgr|&\n        - --iface=$LAN|; s|10.244.0.0/16|$PODS|" |
        kubectl apply -f -
    kubectl apply -f "$PROVISION/reader.yaml"
}

prepare
install_kubernetes
if [[ -e /etc/kubernetes/kubelet.conf ]]; then
    say "the node is in a cluster already"
elif [[ $ADDRESS == "$CONTROL_PLANE" ]]; then
    start_control_plane
else
    kubeadm join "$CONTROL_PLANE:6443" --token "$(token)" \
        --discovery-token-unsafe-skip-ca-verification
fi
wait_for 300 "Flannel's interface is there" ip link show flannel.1
