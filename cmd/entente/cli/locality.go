package cli

import (
	"context"
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// WarnOfLocality warns on standard error if a locality differs only in case from a known one, or if its region or its
// zone is in none: a member or an instance makes a locality known.
func (env *Env) WarnOfLocality(locality *ententev1.Locality, known []*ententev1.Locality) {
	region, zone := false, locality.GetZone() == ""
	for _, k := range known {
		if differsInCase(locality, k) {
			fmt.Fprintf(env.Stderr, "entente: warning: the locality %s differs only in case from %s, which is "+
				"known; they do not match\n", Printable(Locality(locality)), Printable(Locality(k)))
			return
		}
		if k.GetRegion() == locality.GetRegion() {
			region, zone = true, zone || k.GetZone() == locality.GetZone()
		}
	}
	switch {
	case len(known) == 0: // the first instance, or a caller who may not list them
	case !region:
		fmt.Fprintf(env.Stderr, "entente: warning: the region %s is unknown: no member and no instance is in it\n",
			Printable(locality.GetRegion()))
	case !zone:
		fmt.Fprintf(env.Stderr, "entente: warning: the zone %s is unknown: no member and no instance of the region %s "+
			"is in it\n", Printable(locality.GetZone()), Printable(locality.GetRegion()))
	}
}

// KnownLocalities returns the localities of all instances but the one at an address of a service, and for callers at
// the admin socket, who can list them, those of the members.
func (env *Env) KnownLocalities(
	ctx context.Context, member *Member, service, address string,
) (out []*ententev1.Locality) {
	stale := &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE}
	if _, socket, err := env.target(); err == nil && socket != "" {
		members, err := member.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{Read: stale})
		if err != nil {
			return nil
		}
		for _, m := range members.GetMembers() {
			out = append(out, &ententev1.Locality{Region: m.GetRegion(), Zone: m.GetZone()})
		}
	}
	services, err := member.Routing().ListServices(ctx, &ententev1.ListServicesRequest{Read: stale})
	if err != nil {
		return nil
	}
	for _, s := range services.GetServices() {
		for _, i := range s.GetInstances() {
			if s.GetName() != service || i.GetAddress() != address {
				out = append(out, i.GetLocality())
			}
		}
	}
	return out
}

// differsInCase reports whether the first part in which two localities differ is the same but for case.
func differsInCase(a, b *ententev1.Locality) bool {
	for _, part := range [][2]string{
		{a.GetRegion(), b.GetRegion()}, {a.GetZone(), b.GetZone()}, {a.GetSubZone(), b.GetSubZone()},
	} {
		if part[0] != part[1] {
			return strings.EqualFold(part[0], part[1])
		}
	}
	return false
}
