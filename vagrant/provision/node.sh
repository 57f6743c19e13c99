#!/usr/bin/env bash
# Makes a node of a machine: the package, its manifests and its service; and, by CLUSTER, a
# cluster or a server of the node's own. May be run again.
#
#   ADDRESS         this node's address on the host-only network
#   CLUSTER         none, k3s or kubeadm
#   CONTROL_PLANE   the address of the node with the cluster's API
#   PODS            the network of pods
#   VIP             the address of the service that all nodes serve
set -euo pipefail

export ADDRESS CLUSTER=${CLUSTER:-none} CONTROL_PLANE PODS VIP
SHARED=/vagrant
PROVISION=$SHARED/provision
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$PROVISION/lib.sh"

LAN=$(interface_of "$ADDRESS")
export LAN SHARED PROVISION

install_package() {
    local deb=$SHARED/naru.deb
    [[ -f $deb ]] || die "there is no package to install; on the host: cargo xtask package"
    say "installing $(dpkg-deb --field "$deb" Package Version | tr '\n' ' ')"
    # Quick, and without a mirror, where all that it needs is there. Configuration is
    # written below, whatever was changed by hand.
    dpkg --force-confold --install "$deb" || apt-get install --yes --quiet "$deb"
}

# Naru sends packets on to other nodes, and the kernel's stack the first one to each.
forward_packets() {
    echo "net.ipv4.conf.$LAN.forwarding = 1" >/etc/sysctl.d/60-naru.conf
    sysctl --quiet --load /etc/sysctl.d/60-naru.conf
}

configure() {
    local args="--interface $LAN"
    [[ $CLUSTER == none ]] || args+=" --interface flannel.1 --cgroup /sys/fs/cgroup"
    install -m 0600 "$SHARED/gossip.key" /etc/naru/gossip.key
    args+=" --gossip-key /etc/naru/gossip.key"
    cat >/etc/naru/naru.env <<END
# Written by the provisioning of the testbed.
NARU_ARGS="--manifests /etc/naru/manifests $args"
END
    install -m 0644 "$SHARED/manifests/nodes.yaml" /etc/naru/manifests/
}

start() {
    systemctl daemon-reload
    systemctl enable --quiet naru
    systemctl restart naru
    wait_for 240 "the agent answers" naru status
    say "serving by $LAN"
}

install_package
forward_packets
configure
case $CLUSTER in
none) bash "$PROVISION/server.sh" ;;
k3s | kubeadm)
    bash "$PROVISION/$CLUSTER.sh"
    bash "$PROVISION/cluster.sh"
    ;;
*) die "CLUSTER=$CLUSTER: choose of none, k3s, kubeadm" ;;
esac
start
