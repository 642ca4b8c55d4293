package federation

import (
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
)

// sourceOf returns where the bundle of a relationship comes from, for a list.
func sourceOf(r *ententev1.Relationship) string {
	if r.GetOriginHub() != "" {
		return "hub " + r.GetOriginHub()
	}
	if r.GetStatic() {
		return "static"
	}
	return r.GetUrl()
}

// hubFields adds what concerns hubs.
func hubFields(t *cli.Table, r *ententev1.Relationship) {
	if r.GetAttest() {
		t.Field(
			"attested",
			"yes: while it is fresh or stale its bundle stands in the bundle map that this cluster serves",
		)
	}
	if r.GetHub() == nil {
		return
	}
	t.Field("hub for", strings.Join(r.GetHub().GetInclude(), ", "))
	if exclude := r.GetHub().GetExclude(); len(exclude) > 0 {
		t.Field("  exclude", strings.Join(exclude, ", "))
	}
	if r.GetHub().GetUrl() != "" {
		t.Field("  map at", r.GetHub().GetUrl())
	}
	s := r.GetHubStatus()
	t.Field("  map freshness", cli.EnumName(s.GetFreshness()))
	t.Field("  domains accepted", fmt.Sprint(s.GetAccepted()))
	t.Field("  refused", fmt.Sprint(s.GetRefused()))
	t.Field("  not listed", fmt.Sprint(s.GetLeftOut()))
	t.Field("  last success", cli.Time(s.GetLastSuccessTime()))
	t.Field("  last result", s.GetLastResult())
	if s.GetLastError() != "" {
		t.Field("  last error", s.GetLastError())
	}
}
