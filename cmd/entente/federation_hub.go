package main

import (
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// whereFrom says in a list where the bundle of a relationship comes from.
func whereFrom(r *ententev1.Relationship) string {
	if r.GetOriginHub() != "" {
		return "hub " + r.GetOriginHub()
	}
	return r.GetUrl()
}

// hubFields show what a relationship has to do with hubs.
func hubFields(t *table, r *ententev1.Relationship) {
	if r.GetVouch() {
		t.field("vouched for", "yes: while it is fresh or stale its bundle stands in the bundle map that this cluster serves")
	}
	if r.GetHub() == nil {
		return
	}
	t.field("hub for", strings.Join(r.GetHub().GetTake(), ", "))
	if except := r.GetHub().GetExcept(); len(except) > 0 {
		t.field("  except", strings.Join(except, ", "))
	}
	if r.GetHub().GetUrl() != "" {
		t.field("  map at", r.GetHub().GetUrl())
	}
	s := r.GetHubStatus()
	t.field("  map freshness", name(s.GetFreshness()))
	t.field("  domains taken", fmt.Sprint(s.GetTaken()))
	t.field("  refused", fmt.Sprint(s.GetRefused()))
	t.field("  not listed", fmt.Sprint(s.GetLeftOut()))
	t.field("  last success", exact(s.GetLastSuccessTime()))
	t.field("  last result", s.GetLastResult())
	if s.GetLastError() != "" {
		t.field("  last error", s.GetLastError())
	}
}
