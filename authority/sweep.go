package authority

import (
	"context"
	"crypto/x509"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// orphanAge is the time for which a key is kept that no known authority ever had: a transaction whose outcome was
// unknown when the member stopped can still add its authority.
const orphanAge = 10 * time.Minute

// sweeper deletes the keys of authorities that are gone. Only one goroutine uses it.
type sweeper struct {
	store    *raftstore.Store
	member   string
	keys     keys.Store
	upstream upstream.Upstream
	now      func() time.Time
	log      hclog.Logger

	// known are the authorities of this member that were seen in the tables.
	known map[string]bool
	// orphans are the keys without an authority, with the time at which they were first seen.
	orphans map[string]time.Time
	// swept is the revision of the authorities at the last complete sweep.
	swept raftstore.Revision
}

// sweep deletes the keys of authorities that are gone, and returns the time of the next run. made is true if keys were
// made since the last sweep. The keys are compared with a linearizable read: this member's own state may still lack an
// authority whose key it made before a restart.
func (s *sweeper) sweep(ctx context.Context, made bool) (next time.Time, err error) {
	if s.known == nil {
		s.known, s.orphans = map[string]bool{}, map[string]time.Time{}
	}
	if !made && changedAt(s.store.View()) == s.swept && len(s.orphans) == 0 {
		return plan.Never, nil
	}
	view, err := s.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return plan.Never, err
	}
	inUse, ids, err := s.inUse(view)
	if err != nil {
		return plan.Never, err
	}
	names, err := s.keys.Names(ctx)
	if err != nil {
		return plan.Never, err
	}
	now := s.now()
	orphans := map[string]time.Time{}
	for _, name := range names {
		if strings.HasPrefix(name, upstream.RootPrefix) {
			continue // it belongs to the upstream
		}
		if ids[name] {
			s.known[name] = true
			continue
		}
		since, ok := s.orphans[name]
		if !ok {
			since = now
		}
		if due := since.Add(orphanAge); !s.known[name] && now.Before(due) {
			orphans[name], next = since, plan.Sooner(next, due)
			continue
		}
		if err := s.keys.Delete(ctx, name); err != nil {
			return plan.Never, err
		}
		delete(s.known, name)
		s.log.Info("deleted the key of an authority that is gone", "id", name)
	}
	if err := s.upstream.Prune(inUse); err != nil {
		return plan.Never, err
	}
	s.orphans, s.swept = orphans, changedAt(view)
	return next, nil
}

// changedAt returns the revision of what decides on the keys that are needed.
func changedAt(v *raftstore.View) raftstore.Revision {
	return max(table.Authorities.PrefixRevision(v, ""), table.UpstreamAnchors.PrefixRevision(v, ""))
}

// inUse returns a function that reports whether an anchor verifies an authority of this member or will, and the IDs of
// the authorities whose keys are needed. Revoked authorities need neither: their keys only serve a thief.
func (s *sweeper) inUse(r raftstore.Reader) (func(*x509.Certificate) bool, map[string]bool, error) {
	anchors, ids := map[string]bool{}, map[string]bool{}
	for row, err := range table.Authorities.All(r, "") {
		if err != nil {
			return nil, nil, err
		}
		if row.Value.GetMember() != s.member || plan.State(row.Value.GetState()) == plan.Revoked {
			continue
		}
		ids[row.Value.GetId()] = true
		for _, anchor := range row.Value.GetAnchors() {
			anchors[string(anchor)] = true
		}
	}
	for row, err := range table.UpstreamAnchors.All(r, "") {
		if err != nil {
			return nil, nil, err
		}
		if row.Value.GetSuccessorOf() == s.member {
			anchors[string(row.Value.GetCertificate())] = true
		}
	}
	return func(c *x509.Certificate) bool { return anchors[string(c.Raw)] }, ids, nil
}
