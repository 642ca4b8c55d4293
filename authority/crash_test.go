package authority

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/trust"
)

// TestEveryStepOfALife plays a whole life of authorities (the first ones, a rotation, new anchors, a reserve, a taint,
// a revocation) repeatedly. At each step that outlives the process something happens: the process stops and is
// restarted on what it left, the step fails, the clock jumps, or leadership changes. After each, the guarantees of the
// package hold.
func TestEveryStepOfALife(t *testing.T) {
	for _, test := range []struct {
		kind    string
		members int
		// follower: it happens to one that does not lead, as it begins.
		follower      bool
		first, stride int
	}{
		{stops, 1, false, 1, 1},
		{fails, 1, false, 2, 5},
		{daysAhead, 1, false, 1, 5},
		{daysBack, 1, false, 2, 5},
		{stops, 3, true, 3, 19},
		{elects, 3, false, 1, 17},
		{elects, 3, true, 4, 19},
		{daysAhead, 3, true, 2, 23},
		{daysBack, 3, false, 5, 23},
	} {
		who := map[bool]string{false: "leader", true: "follower"}[test.follower]
		t.Run(fmt.Sprintf("%s, %s of %d", test.kind, who, test.members), func(t *testing.T) {
			t.Parallel() // they mostly wait
			if testing.Short() {
				test.stride *= 6
			}
			for at := test.first; ; at += test.stride {
				hit := false
				if !t.Run(fmt.Sprint(at),
					func(t *testing.T) { hit = life(t, test.kind, test.members, test.follower, at) }) ||
					!hit {
					break
				}
			}
		})
	}
}

// life plays the life with an accident at a step, and reports whether there was such a step.
func life(t *testing.T, kind string, members int, follower bool, at int) bool {
	a := &accident{kind: kind, at: at}
	stores := []*raftstore.Store{}
	if members == 1 {
		stores = append(stores, raftstoretest.New(t))
	} else {
		cluster := raftstoretest.NewCluster(t, members)
		cluster.Leader()
		for i := range members {
			stores = append(stores, cluster.Store(i))
		}
	}
	chosen := slices.IndexFunc(stores, func(s *raftstore.Store) bool { return s.IsLeader() != follower })
	require.GreaterOrEqual(t, chosen, 0)
	versions := stores[0].Watch([]raftstore.Prefix{table.HostedBundles.Prefix("")}, 0)
	defer versions.Close()
	f := prepareFleet(t, a.attend, stores...)
	a.f, f.repair, a.of = f, a.repair, func() *node { return f.nodes[chosen] }
	for _, c := range f.nodes {
		f.start(c)
	}
	f.settle()
	l := &lived{accident: a, t: t, c: f.nodes[chosen], versions: versions}

	l.goOn(0)
	l.goOn(12 * time.Hour) // half of the life: a successor is prepared
	l.goOn(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	l.goOn(plan.DefaultSigningGrace + plan.DefaultX509SVIDTTL)
	l.operate(func(ctx context.Context, s ententev1.AuthorityServiceServer) error {
		_, err := s.RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{Anchors: true})
		return err
	})
	l.goOn(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	l.operate(func(ctx context.Context, s ententev1.AuthorityServiceServer) error {
		_, err := s.PrepareAuthorities(ctx, &ententev1.PrepareAuthoritiesRequest{})
		return err
	})
	for _, k := range []ententev1.AuthorityKind{
		ententev1.AuthorityKind_AUTHORITY_KIND_X509, ententev1.AuthorityKind_AUTHORITY_KIND_JWT,
	} {
		id := f.active(l.c.id, k).GetId()
		l.operate(func(ctx context.Context, s ententev1.AuthorityServiceServer) error {
			_, err := s.TaintAuthority(ctx, taintRequest(id))
			return err
		})
		l.operate(func(ctx context.Context, s ententev1.AuthorityServiceServer) error {
			_, err := s.RevokeAuthority(
				ctx,
				revokeRequest(id),
			)
			return err
		})
	}
	l.goOn(plan.DefaultSigningGrace + plan.DefaultX509SVIDTTL)
	l.goOn(orphanAge + time.Minute)
	l.end()
	a.mu.Lock()
	defer a.mu.Unlock()
	t.Logf("step %d: %s", at, a.happened)
	return a.happened != ""
}

// lived checks a life against the guarantees of the package.
type lived struct {
	*accident
	t        *testing.T
	c        *node
	alive    []issued
	listed   []*ententev1.Authority // when it was last looked at
	versions *raftstore.Watch
	sequence uint64
}

// goOn advances the clock, and has every member sign.
func (l *lived) goOn(d time.Duration) {
	l.t.Helper()
	l.f.advance(d)
	l.check()
	for i, c := range l.f.nodes {
		l.alive = append(l.alive, l.signs(c, workload(i))...)
	}
}

// signs has a member issue SVIDs. It must succeed, unless the accident happens meanwhile.
func (l *lived) signs(c *node, id string) []issued {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for {
		all, err := l.f.tryIssue(c, id)
		if err == nil {
			return all
		}
		l.mu.Lock()
		happened := l.happened != ""
		l.mu.Unlock()
		if !happened || loop.WaitFor(ctx, nil, time.Millisecond) != nil {
			l.t.Fatalf("member %s at +%v: %v", c.id, l.f.ahead, err)
		}
		for _, c := range l.f.nodes {
			l.repair(c)
		}
	}
}

// operate has an operator call the member.
func (l *lived) operate(do func(context.Context, ententev1.AuthorityServiceServer) error) {
	l.t.Helper()
	l.call(l.c, func(ctx context.Context) error { return do(ctx, l.c.AuthorityService()) })
	l.goOn(0)
}

func (l *lived) check() {
	l.t.Helper()
	rows := l.f.list(home)
	state := map[string]ententev1.AuthorityState{}
	for _, row := range rows {
		state[row.GetId()] = row.GetState()
		for what, at := range map[string]time.Time{
			"prepared": row.GetPrepareTime().AsTime(), "active": row.GetActivateTime().AsTime(),
			"retired": row.GetRetireTime().AsTime(),
		} {
			require.False(l.t, at.After(l.f.now()), "%s is %s by a clock that was ahead", row.GetId(), what)
			require.True(l.t, at.Unix() == 0 || !at.Before(l.f.base), "%s is %s by a clock that was behind",
				row.GetId(), what)
		}
		c := l.f.nodes[slices.IndexFunc(l.f.nodes, func(c *node) bool { return c.id == row.GetMember() })]
		switch row.GetState() {
		case ententev1.AuthorityState_AUTHORITY_STATE_PREPARED, ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE:
			_, err := c.keys.Signer(row.GetId())
			require.NoError(l.t, err, "%s is in the bundle, and no member has its key", row.GetId())
		default:
			require.NotNil(l.t, row.GetActivateTime(), "%s is listed, and never signed", row.GetId())
		}
	}
	now := l.f.bundle(home)
	l.alive = slices.DeleteFunc(l.alive, func(s issued) bool {
		id := s.what[strings.LastIndex(s.what, " ")+1:]
		return !l.f.now().Before(s.expire) || state[id] == ententev1.AuthorityState_AUTHORITY_STATE_REVOKED
	})
	for _, svid := range l.alive {
		require.NoError(l.t, svid.verify(now, l.f.now()), svid.what)
	}
	// Nothing ended before its time, by whatever clock.
	for _, was := range l.listed {
		if state[was.GetId()] != 0 || was.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_PREPARED {
			continue
		}
		due := was.GetNotAfter().AsTime()
		if was.GetState() != ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
			due = was.GetNextTime().AsTime()
		}
		require.False(l.t, l.f.now().Before(due), "%s was %s, and is gone before %v", was.GetId(), was.GetState(), due)
	}
	l.listed = rows
	// Each version of the bundle has the next sequence.
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	last, _ := now.Sequence()
	for l.sequence < last {
		batch, err := l.versions.Next(ctx)
		require.NoError(l.t, err)
		for _, change := range batch.Changes {
			row, err := table.HostedBundles.Decode(change.Value)
			require.NoError(l.t, err)
			b, err := trust.Parse(row)
			require.NoError(l.t, err)
			l.sequence++
			require.Equal(l.t, l.sequence, sequenceOf(b))
		}
	}
}

// end compares the keys on the disk with the authorities that need them: none is missing, and none is left once it is
// certain that no authority needs it.
func (l *lived) end() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for _, c := range l.f.nodes {
		for waited := time.Duration(0); ; waited += time.Minute {
			wrong := l.keys(c)
			if wrong == "" {
				break
			}
			if waited < 3*orphanAge { // a restarted process keeps unknown keys for a while
				l.f.advance(time.Minute)
			}
			c.changed.Fire()
			if err := loop.WaitFor(ctx, nil, pollInterval); err != nil {
				l.t.Fatalf("member %s: %s", c.id, wrong)
			}
		}
	}
	l.check()
}

// keys returns what is wrong with the keys of a member, or "".
func (l *lived) keys(c *node) string {
	l.t.Helper()
	view, err := c.store.Read(context.Background(), raftstore.ReadOptions{Linearizable: true})
	require.NoError(l.t, err)
	inUse, ids, err := c.preparer.sweeper.inUse(view)
	require.NoError(l.t, err)
	names, err := c.keys.Names(context.Background())
	require.NoError(l.t, err)
	for _, name := range names {
		if strings.HasPrefix(name, upstream.RootPrefix) {
			if root, err := c.keys.Certificate(name); err == nil && (root == nil || !inUse(root)) {
				return "nothing is below root " + name
			}
			continue
		}
		if !ids[name] {
			return "no authority needs key " + name
		}
		delete(ids, name)
	}
	if len(ids) > 0 {
		return fmt.Sprintf("keys are missing: %v", ids)
	}
	return ""
}
