package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func (a *app) hintCommand() *cobra.Command {
	var locality localityFlag
	cmd := &cobra.Command{
		Use:     "hint NAME --locality REGION[/ZONE[/SUB-ZONE]]",
		Short:   "Say where a caller should send requests for a service",
		Args:    arguments("NAME"),
		PreRunE: required("locality"),
		RunE: a.asking(func(ctx context.Context, conn *grpc.ClientConn, _ *cobra.Command, args []string) error {
			hint, err := ententev1.NewRoutingServiceClient(conn).GetHint(ctx, &ententev1.GetHintRequest{Service: args[0], Locality: locality.locality})
			if err != nil {
				return err
			}
			return a.print(hint, hintTable(hint))
		}),
	}
	cmd.Flags().Var(&locality, "locality", "where the caller is: `REGION[/ZONE[/SUB-ZONE]]`")
	return cmd
}

func hintTable(h *ententev1.Hint) func(*table) {
	return func(t *table) {
		t.columns("PRIORITY", "LOAD", "LOCALITY", "SHARE", "ADDRESS", "HEALTH", "WEIGHT", "SPIFFE ID", "TRUST")
		for _, p := range h.GetPriorities() {
			load := fmt.Sprintf("%d%%", p.GetLoad())
			if p.GetDegradedLoad() > 0 {
				load += fmt.Sprintf(" +%d%% degraded", p.GetDegradedLoad())
			}
			if p.GetPanic() {
				load += " (panic)"
			}
			for _, l := range p.GetLocalities() {
				for _, e := range l.GetEndpoints() {
					t.row(p.GetPriority(), load, place(l.GetLocality()), fmt.Sprintf("%d%%", l.GetShare()), e.GetAddress(), name(e.GetHealth()), e.GetWeight(), e.GetSpiffeId(), name(e.GetFreshness()))
				}
			}
		}
		var notes []string
		for _, x := range h.GetExcluded() {
			notes = append(notes, fmt.Sprintf("Left out: %s (%s): %s", printable(x.GetAddress()), printable(x.GetSpiffeId()), printable(x.GetReason())))
		}
		if h.GetReason() != "" {
			nowhere := fmt.Sprintf("There is nowhere to send requests for %s: %s.", h.GetService(), h.GetReason())
			notes = append([]string{printable(nowhere)}, notes...)
		}
		t.otherwise("")
		t.note = strings.Join(notes, "\n")
	}
}
