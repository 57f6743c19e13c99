#!/usr/bin/env bash
# With a cluster: keeps the manifests directory as the cluster is, and gives the agent the
# rights to look after the sockets of pods.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$PROVISION/lib.sh"

if [[ $CLUSTER == k3s ]]; then
    kubectl="/usr/local/bin/k3s kubectl"
    authorities=(/var/lib/rancher/k3s/server/tls/server-ca.crt
        /var/lib/rancher/k3s/agent/server-ca.crt)
else
    kubectl=/usr/bin/kubectl
    authorities=(/etc/kubernetes/pki/ca.crt)
fi
for authority in "${authorities[@]}"; do
    [[ ! -f $authority ]] || break
done

install -D -m 0644 /usr/share/doc/naru/examples/sockets.conf \
    /etc/systemd/system/naru.service.d/sockets.conf
install -m 0755 "$PROVISION/follow-cluster.sh" /usr/local/bin/naru-follow-cluster
install -d -m 0700 /etc/naru/cluster
(umask 077 && cat >/etc/naru/cluster/kubeconfig) <<END
apiVersion: v1
kind: Config
current-context: naru
clusters:
  - name: naru
    cluster: {server: "https://$CONTROL_PLANE:6443", certificate-authority: $authority}
users:
  - name: naru
    user: {token: $(<"$SHARED/cluster.token")}
contexts:
  - name: naru
    context: {cluster: naru, user: naru}
END
cat >/etc/systemd/system/naru-follow-cluster.service <<END
[Unit]
Description=Keeps Naru's manifests as the cluster is
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/local/bin/naru-follow-cluster $kubectl
Environment=HOME=/root
Restart=always
RestartSec=2

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --quiet naru-follow-cluster
systemctl restart naru-follow-cluster
wait_for 120 "the cluster's manifests are there" test -s /etc/naru/manifests/cluster.yaml
# The cluster has Nodes of its own.
rm -f /etc/naru/manifests/nodes.yaml
