package demo

import (
	"fmt"
	"io"
	"strconv"
)

// invite prints what to try while the demo runs.
func (s *story) invite(out io.Writer, executable string) {
	eu, us := s.eu.members[0], s.us.members[0]
	e := strconv.Quote(executable)
	fmt.Fprintf(out, `
Everything keeps running, with both regions calling each other, until you press Ctrl-C. In another terminal:

  alias entente=%s
  export ENTENTE_SOCKET=%q
      # that is %s; for the other region: %q

  entente hint %s --locality eu/%s
  entente cluster members
  entente bundle show %s
  entente federation list
  entente authority list
  entente service list
  entente audit tail
  entente federation suspend %s     # then look at the hint again, and resume it
  curl -k https://%s/bundles/%s

`, e, eu.socket(), eu.id, us.socket(), serviceName, callerZone, s.us.domain.Name(), s.us.domain.Name(),
		s.endpoints[s.eu].endpoint, s.eu.domain.Name())
	fmt.Fprintln(out, "Metrics and logs:")
	for _, r := range s.regions() {
		for _, m := range r.members {
			fmt.Fprintf(out, "  %s  http://%s/metrics  %s\n", m.id, m.operations, m.logFile())
		}
	}
	fmt.Fprintln(out)
}
