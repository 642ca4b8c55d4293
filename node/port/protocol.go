package port

import (
	"fmt"
	"slices"
	"strings"
)

// Protocol is an ALPN protocol name that the port serves.
type Protocol string

// The protocols of the port.
const (
	Raft   Protocol = "entente-raft/1"
	Member Protocol = "entente-member/1"
	GRPC   Protocol = "h2"
	Join   Protocol = "entente-join/1"
)

var protocols = []Protocol{Raft, Member, GRPC, Join}

// negotiate picks the protocol of a caller from those that it offers. Names that this port does not know
// are passed over, as RFC 7301 asks. A caller that offers two of the port's own is refused: each has its
// own way to check who is calling, and which of them was meant must not be left to the order of a list.
func negotiate(offered []string) (Protocol, error) {
	var ours []string
	for _, p := range protocols {
		if slices.Contains(offered, string(p)) {
			ours = append(ours, string(p))
		}
	}
	switch len(ours) {
	case 1:
		return Protocol(ours[0]), nil
	case 0:
		return "", refuse(ReasonNoProtocol, "the caller offers none of the ALPN protocols of this port; clients speak gRPC, which offers h2")
	}
	return "", refuse(ReasonSeveralProtocols, fmt.Sprintf("the caller offers %s together; offer exactly one", strings.Join(ours, ", ")))
}
