package node

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/node/port"
)

func TestRefusedConnectionsAreSampledInTheAuditLog(t *testing.T) {
	remote := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}
	r := make(refusals, 1)
	r.add(port.Sample{
		Remote: remote, Protocol: port.GRPC, Reason: port.ReasonUntrustedDomain, Detail: "no", Omitted: 3,
	})
	r.add(port.Sample{Remote: remote}) // no room: it does not block
	require.Equal(t, audit.Event{
		Caller: "unauthenticated at 192.0.2.1:9", Action: "connect", Object: "h2", Result: audit.ResultDenied,
		Detail: "untrusted_domain: no; before it 3 more without a line of their own",
	}, refusalEvent(<-r))
}
