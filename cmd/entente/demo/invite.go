package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// invite prints what to try while the demo runs: the environment of a terminal for each region, and commands.
func (s *story) invite(out io.Writer, executable string) {
	fmt.Fprintln(out, "\nEverything keeps running, with both regions calling each other, until you press Ctrl-C.\n"+
		"In another terminal for each region:")
	for _, r := range s.regions() {
		fmt.Fprintf(out, "\n  # %s\n  alias entente=%s\n  export ENTENTE_SOCKET=%s\n",
			r.name, strconv.Quote(executable), strconv.Quote(r.members[0].socket()))
		for _, published := range s.regions() {
			fmt.Fprintf(out, "  export %s_ENDPOINT=%s\n",
				strings.ToUpper(published.name), bundleURL(s.endpoints[published], published))
		}
	}
	us := s.us.domain.Name()
	fmt.Fprintf(out, `
What the demo made, as eu has it:

  entente status                          # members, authorities and peers on one screen
  entente hint %[1]s --locality eu/%[2]s        # the instances of the service, the nearest first
  entente service show %[1]s
  entente service exports
  entente service imports
  entente federation show %[3]s
  entente bundle show %[3]s
  entente bundle show --format spiffe     # the bundle that eu publishes
  curl -k $EU_ENDPOINT                    # the same, from its endpoint
  entente authority list
  entente audit tail --lines 5
  entente federation suspend %[3]s    # changes the hint
  entente federation resume %[3]s     # ends that

`, serviceName, callerZone, us)
	fmt.Fprintln(out, "Metrics and logs:")
	for _, r := range s.regions() {
		for _, m := range r.members {
			fmt.Fprintf(out, "  %s  http://%s/metrics  %s\n", m.id, m.operations, m.logFile())
		}
	}
	fmt.Fprintln(out)
}
