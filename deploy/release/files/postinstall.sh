#!/bin/sh
# The user of the units, and the units themselves. Nothing is started: the configuration needs names first.
set -e
if command -v systemd-sysusers >/dev/null 2>&1; then
	systemd-sysusers entente.conf
elif ! getent passwd entente >/dev/null; then
	useradd --system --user-group --home-dir /var/lib/entente --shell /usr/sbin/nologin entente
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
