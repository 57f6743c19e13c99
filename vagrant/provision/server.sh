#!/usr/bin/env bash
# Without a cluster: an HTTP server on the node, and the manifests that make all nodes'
# servers one service.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$PROVISION/lib.sh"

need python3
install -m 0755 "$PROVISION/nest-server.py" /usr/local/bin/nest-server
cat >/etc/systemd/system/nest-server.service <<END
[Unit]
Description=HTTP server that answers with the node's name
After=network.target

[Service]
ExecStart=/usr/local/bin/nest-server $ADDRESS 3000
Restart=always
DynamicUser=yes

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --quiet nest-server
systemctl restart nest-server
install -m 0644 "$SHARED"/manifests/nest-server*.yaml /etc/naru/manifests/
naru check /etc/naru/manifests
