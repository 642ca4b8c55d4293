package workload

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// dialOwn connects to an address of this machine at which only root or the user of the agent listens, so that no other
// user of the machine answers in the place of a server whose certificate is not verified. It looks before and after it
// connects: the process that accepted the connection was listening then.
func dialOwn(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	if err := ownListener(to); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := ownListener(to); err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	return conn, nil
}

// ownListener returns nil if there are listeners at an address, and all are of root or of the user of the agent.
func ownListener(to netip.AddrPort) error {
	listens := false
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(table)
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("find out who listens at %s: %w", to, err)
		}
		uids, err := listeners(f, to)
		_ = f.Close()
		if err != nil {
			return fmt.Errorf("find out who listens at %s by %s: %w", to, table, err)
		}
		for _, uid := range uids {
			if uid != 0 && (uid != os.Geteuid() || uid == overflow) {
				return fmt.Errorf("the user %d listens at %s, not root, and its certificate is not verified: nothing "+
					"was sent to it; give kubelet.ca_file if it is the kubelet", uid, to)
			}
			listens = true
		}
	}
	if !listens {
		return fmt.Errorf("nothing listens at %s in the network namespace of the agent", to)
	}
	return nil
}

const (
	// listening is the state TCP_LISTEN.
	listening = "0A"
	// overflow is the user that the kernel shows for every one without an ID in the user namespace of the agent.
	overflow = 65534
)

// listeners returns the users of the sockets that listen at an address or at all, by the content of /proc/net/tcp or
// tcp6.
func listeners(table io.Reader, to netip.AddrPort) (uids []int, err error) {
	at := map[string]bool{}
	for _, ip := range []netip.Addr{
		to.Addr(), netip.AddrFrom16(to.Addr().As16()), netip.IPv4Unspecified(), netip.IPv6Unspecified(),
	} {
		var text strings.Builder
		for b := ip.AsSlice(); len(b) > 0; b = b[4:] {
			fmt.Fprintf(&text, "%08X", binary.NativeEndian.Uint32(b))
		}
		at[fmt.Sprintf("%s:%04X", &text, to.Port())] = true
	}
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[3] != listening || !at[fields[1]] {
			continue
		}
		uid, err := strconv.Atoi(fields[7])
		if err != nil {
			return nil, err
		}
		uids = append(uids, uid)
	}
	return uids, lines.Err()
}
