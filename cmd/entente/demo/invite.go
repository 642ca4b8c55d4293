package demo

import (
	"fmt"
	"io"
	"strconv"
)

// invite says how to look around while the demo stays up.
func (s *story) invite(out io.Writer, executable string) {
	eu, us := s.eu.members[0], s.us.members[0]
	e := strconv.Quote(executable)
	fmt.Fprintf(out, `
It all stays up, with both regions calling each other, until you press Ctrl-C. In another terminal:

  export ENTENTE_SOCKET=%q     # one member of eu; for us: %q
  alias entente=%s

  entente hint %s --locality eu/%s                     # near first; the other region behind it
  entente cluster members
  entente bundle show %s                # the foreign bundle as this cluster has it
  entente federation list
  entente authority list
  entente service list
  entente audit tail

  entente federation suspend %s         # and see how the hint leaves us out
  entente federation resume %s
  curl -k https://%s/bundles/%s

Metrics and health of each member:
`, eu.socket(), us.socket(), e, serviceName, callerZone, s.us.domain.Name(), s.us.domain.Name(), s.us.domain.Name(), s.endpoints[s.eu].endpoint, s.eu.domain.Name())
	for _, r := range s.regions() {
		for _, m := range r.members {
			fmt.Fprintf(out, "  %s  http://%s/metrics  log %s\n", m.id, m.operations, m.logFile())
		}
	}
	fmt.Fprintln(out)
}
