package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// invite prints what to try while the demo runs: the environment of a terminal for each region, commands unless the
// regions are apart, and the provider block of each region for Terraform.
func (s *story) invite(out io.Writer, executable string, apart bool) {
	running := "Everything keeps running, with both regions calling each other,"
	if apart {
		running = "Both regions keep running, without any trust between them,"
	}
	fmt.Fprintf(out, "\n%s until you press Ctrl-C.\nIn another terminal for each region:\n", running)
	for _, r := range s.regions() {
		fmt.Fprintf(out, "\n  # %s\n  alias entente=%s\n  export ENTENTE_SOCKET=%s\n",
			r.name, strconv.Quote(executable), strconv.Quote(r.members[0].socket()))
		for _, published := range s.regions() {
			fmt.Fprintf(out, "  export %s_ENDPOINT=%s\n",
				strings.ToUpper(published.name), bundleURL(s.endpoints[published], published))
		}
	}
	if !apart {
		s.inviteCommands(out)
	}
	fmt.Fprint(out, "\nFor Terraform, which terraform/README.md describes:\n\n")
	for _, r := range s.regions() {
		fmt.Fprintf(out, "  provider \"entente\" {\n    alias  = %q\n    socket = %q\n  }\n", r.name,
			r.members[0].socket())
	}
	fmt.Fprintln(out, "\nMetrics and logs:")
	for _, r := range s.regions() {
		for _, m := range r.members {
			fmt.Fprintf(out, "  %s  http://%s/metrics  %s\n", m.id, m.operations, m.logFile())
		}
	}
	fmt.Fprintln(out)
}

// inviteCommands prints commands that show what the demo made.
func (s *story) inviteCommands(out io.Writer) {
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
}
