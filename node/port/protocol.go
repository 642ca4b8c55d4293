package port

import (
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

// Starting is the name of connections under h2 whose caller was not verified, because this member is starting and has
// no state to verify it by ([Config.Starting]). It is no ALPN protocol.
const Starting Protocol = "starting"

var protocols = []Protocol{Raft, Member, GRPC, Join}

// negotiate selects the protocol of a caller from those that it offers. It ignores unknown names, as RFC 7301 requires.
// It refuses a caller that offers two protocols of the port: each verifies callers in its own way, and the order of a
// list must not decide which applies.
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
		return "", refuse(ReasonNoProtocol, "the caller offers none of the ALPN protocols of this port; clients use "+
			"gRPC, which offers h2")
	}
	return "", refuse(ReasonSeveralProtocols, "the caller offers %s together; offer exactly one",
		strings.Join(ours, ", "))
}
