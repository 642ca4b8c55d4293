#!/bin/sh
# On removal, not on an upgrade: 'remove' is Debian's word for it, 0 that of RPM.
set -e
if [ -d /run/systemd/system ] && { [ "$1" = remove ] || [ "$1" = 0 ]; }; then
	systemctl disable --now entente.service >/dev/null 2>&1 || true
fi
