package node

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listen opens a listener. Errors name its purpose and the setting that holds the address.
func listen(what, setting, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen for %s: %w: stop what listens on %s, or set %s to another address",
			what, err, address, setting)
	case err != nil:
		return nil, fmt.Errorf("listen for %s: %w: set %s to an address of this machine that its user may listen on",
			what, err, setting)
	}
	return l, nil
}
