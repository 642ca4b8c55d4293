package memberid

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

const (
	maxIDBytes      = 63 // that of a DNS label
	maxNameBytes    = 255
	maxAddressBytes = 255 + len(":65535")
)

// CheckID checks the ID of a member. It is a part of Raft server IDs, of SPIFFE IDs and of metrics, and therefore has 1
// to 63 letters, digits, hyphens, underscores and dots, of which the first is a letter or digit.
func CheckID(id string) error {
	if id == "" || len(id) > maxIDBytes {
		return fmt.Errorf("member id %.80q has %d bytes; it must have 1 to %d", id, len(id), maxIDBytes)
	}
	for i, c := range []byte(id) {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("-_.", rune(c))) {
			return fmt.Errorf(
				"member id %q: %q is not allowed at position %d; use letters, digits, hyphens, underscores and "+
					"dots, the first a letter or digit",
				id,
				c,
				i+1,
			)
		}
	}
	return nil
}

// CheckAddress checks that other members can dial an address: a host and a port.
func CheckAddress(address string) error {
	if len(address) > maxAddressBytes {
		return fmt.Errorf("address of %d bytes is too long; %d is the most", len(address), maxAddressBytes)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("address %q: the port must be a number from 1 to 65535", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return errors.New(
			"address " + strconv.Quote(
				address,
			) + " names no host; set member.advertise to one that the other members reach",
		)
	}
	if strings.ContainsAny(host, "|@/ \t\r\n") {
		return fmt.Errorf("address %q: the host has a character that no host name has", address)
	}
	return nil
}

// CheckName checks a name that is shown to people. what describes it in the error.
func CheckName(what, s string) error {
	if len(s) > maxNameBytes {
		return fmt.Errorf("%s has %d bytes; %d is the most", what, len(s), maxNameBytes)
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return fmt.Errorf("%s %q has a character that cannot be shown", what, s)
		}
	}
	return nil
}

// Self is a member's description of itself.
type Self struct {
	ID, Region, Zone string
	// Address is where other members and clients reach it.
	Address string
	// Version is that of the software.
	Version  string
	Identity Digest
}
