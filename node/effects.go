package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry"
)

// effects returns to a room what in the other rooms depends on what it is about to destroy. It changes nothing.
type effects struct{ m *member }

// ofDistrust returns what the end of the trust in a domain takes from callers and services.
func (e effects) ofDistrust(r raftstore.Reader, td spiffeid.TrustDomain) ([]*ententev1.Effect, error) {
	instances, err := registry.List(r)
	if err != nil {
		return nil, err
	}
	services := map[string]int{}
	for _, i := range instances {
		if i.ID.MemberOf(td) {
			services[i.Service]++
		}
	}
	var out []*ententev1.Effect
	for _, service := range slices.Sorted(maps.Keys(services)) {
		out = append(out, &ententev1.Effect{
			Kind: "instances", Subject: fmt.Sprintf("%d of %s", services[service], service),
			Detail: "are left out of hints: callers cannot verify them",
		})
	}
	grants, err := grant.List(r)
	for _, g := range grants {
		if id, err := spiffeid.FromString(g.GetSpiffeId()); err != nil || !id.MemberOf(td) {
			continue
		}
		out = append(out, &ententev1.Effect{
			Kind: "grant", Subject: g.GetSpiffeId(),
			Detail: "can no longer call this cluster, although it keeps its role",
		})
	}
	return out, err
}

// ofDeletion returns what the deletion of a hosted domain does to other clusters.
func (e effects) ofDeletion(
	ctx context.Context, r raftstore.Reader, td spiffeid.TrustDomain,
) ([]*ententev1.Effect, error) {
	out, err := e.ofDistrust(r, td)
	if err != nil {
		return nil, err
	}
	known, complete, err := e.m.federation.Streams().Acknowledged(ctx, td.Name())
	for _, p := range known {
		out = append(out, &ententev1.Effect{
			Kind: "peer", Subject: p.Peer,
			Detail: "gets no update any more; it keeps the bundle until its operator deletes the relationship",
		})
	}
	if err != nil || !complete {
		out = append(out, &ententev1.Effect{
			Kind: "peer", Subject: "unknown",
			Detail: "no leader reported which clusters have streams: there may be more",
		})
	}
	return out, nil
}

// ofRestore returns what the restore of a snapshot undoes.
func (e effects) ofRestore(r raftstore.Reader, at raftstore.Revision) ([]*ententev1.Effect, error) {
	made, err := record.MadeAfter(r, at)
	if err != nil {
		return nil, err
	}
	const shown = 20
	var out []*ententev1.Effect
	if n := len(made); n > shown {
		out = append(out, &ententev1.Effect{
			Kind: "changes", Subject: fmt.Sprintf("%d earlier ones", n-shown),
			Detail: "are undone: 'entente audit tail' shows them",
		})
		made = made[n-shown:]
	}
	for _, c := range made {
		out = append(out, &ententev1.Effect{
			Kind: "change", Subject: c.GetAction() + " " + c.GetObject(),
			Detail: fmt.Sprintf("made by %s at %s: undone, unless it is a revocation or about members", c.GetCaller(),
				c.GetTime().AsTime().UTC().Format(time.RFC3339)),
		})
	}
	return append(out,
		&ententev1.Effect{
			Kind: "instances", Subject: "all", Detail: "are those of the snapshot, until control planes register again",
		},
		&ententev1.Effect{Kind: "token", Subject: "all join tokens and open invitations", Detail: "are void"},
	), nil
}
