package authority

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/publish"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// signedVersions waits until every version of a domain's bundle has its statement, or will never have one.
func (f *fleet) signedVersions(td spiffeid.TrustDomain) (versions []*statev1.BundleVersion) {
	f.t.Helper()
	f.retry(func(ctx context.Context) error {
		view, err := f.nodes[0].store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
		if err != nil {
			return err
		}
		if versions, err = publish.History(view, td.Name()); err != nil {
			return err
		}
		for _, v := range versions {
			if v.GetStatement() == "" && v.GetUnstated() == "" {
				return fmt.Errorf("version %d has no statement", v.GetNumber())
			}
		}
		return nil
	})
	return versions
}

// chain checks that each statement on a domain's bundle continues the one before, as a reader does that has seen every
// version: with the JWT keys of the version before alone. It returns the reasons of the statements that restart the
// chain.
func (f *fleet) chain(td spiffeid.TrustDomain) (starts []string) {
	f.t.Helper()
	versions := f.signedVersions(td)
	store := f.nodes[0].store
	var before *bundle.Bundle
	var last *statement.Statement
	for _, v := range versions {
		b, err := publish.HistoryVersion(store.View(), v)
		require.NoError(f.t, err)
		if v.GetUnstated() != "" {
			starts = append(starts, "none: "+v.GetUnstated())
			before, last = b, nil
			continue
		}
		s, err := statement.Parse(v.GetStatement())
		require.NoError(f.t, err)
		require.Equal(f.t, b.Digest(), s.Claims().Keys)
		require.Equal(f.t, v.GetSequence(), s.Sequence())
		switch {
		case s.Starts():
			require.NoError(f.t, s.VerifiedBy(b.JWTAuthorities()))
			if before != nil {
				starts = append(starts, s.Claims().Start)
			}
		default:
			require.NoError(f.t, s.VerifiedBy(before.JWTAuthorities()))
			require.NoError(f.t, s.Continues(last))
		}
		before, last = b, s
	}
	require.True(f.t, before.SameKeys(f.bundle(td)), "the newest version is what is published")
	return starts
}

// TestChainOverRotations: members join by preparing keys that no version before has, rotate and change the hint. Every
// version continues the one before.
func TestChainOverRotations(t *testing.T) {
	f := newThree(t, nil)
	ctx := context.Background()
	require.Empty(t, f.chain(home))
	for i := range 3 {
		_, err := f.nodes[i].AuthorityService().
			RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{Anchors: i == 1})
		require.NoError(t, err)
		f.settle()
		f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	}
	f.advance(plan.DefaultCATTL / 2)
	f.advance(plan.DefaultCATTL / 2)
	require.Empty(t, f.chain(home))
	require.Greater(t, len(f.bundle(home).JWTAuthorities()), 2)
	require.Zero(t, f.nodes[0].metricSum("entente_authority_statement_chains_total"))
}

// TestChainOverRevocation: neither a revoked nor a tainted key signs later versions, not even in the transaction that
// revokes it. The chain continues with the keys that are left.
func TestChainOverRevocation(t *testing.T) {
	f := allSign(t, nil)
	ctx := context.Background()
	gone := map[string]bool{}
	for _, c := range f.nodes[:2] {
		f.signedVersions(home) // a version that waits for the key would start the chain again
		a := f.active(c.id, ententev1.AuthorityKind_AUTHORITY_KIND_JWT)
		gone[a.GetId()] = true
		_, err := c.AuthorityService().TaintAuthority(ctx, taintRequest(a.GetId()))
		require.NoError(t, err)
		f.settle()
		f.signedVersions(home)
		_, err = c.AuthorityService().RevokeAuthority(ctx, revokeRequest(a.GetId()))
		require.NoError(t, err)
		f.settle()
		statements, err := publish.Statements(c.store.View(), home.Name())
		require.NoError(t, err)
		for _, text := range statements[len(statements)-1:] {
			s, err := statement.Parse(text)
			require.NoError(t, err)
			require.False(t, gone[s.KeyID()], "revoked, and signed")
			require.NotContains(t, s.Claims().Next, a.GetId())
		}
	}
	require.Empty(t, f.chain(home))
}

// TestChainOfALostMember: the leader ends the authorities of a lost member, and the other members continue to sign.
func TestChainOfALostMember(t *testing.T) {
	f := allSign(t, nil)
	require.Empty(t, f.chain(home)) // a version that waits for the lost member's key would start the chain again
	f.remove(f.nodes[2])
	f.settle()
	for range 8 {
		f.advance(plan.DefaultCATTL / 8)
	}
	require.Empty(t, f.chain(home))
}

// TestChainRestarts: if every key that could continue the chain is revoked at once, the chain restarts with the reason.
func TestChainRestarts(t *testing.T) {
	f, c := newSingle(t, nil)
	_, err := c.store.Update(context.Background(),
		func(tx *raftstore.Tx) error { return c.RemoveMember(tx, c.id, true) })
	require.NoError(t, err)
	f.settle()
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	starts := f.chain(home)
	// The X.509 authority can be prepared before the JWT authority, in a version of its own.
	require.Contains(t, []int{2, 3}, len(starts), "%v", starts)
	for _, unstated := range starts[:len(starts)-1] {
		require.Equal(t, "none: no JWT authority of it could sign one", unstated)
	}
	require.Equal(t, statement.StartUnstated, starts[len(starts)-1])
	require.Eventually(t, func() bool {
		f.wake()
		return c.metricSum("entente_authority_statement_chains_total") == float64(len(starts))
	}, testTimeout, pollInterval)
}

// TestChainOverARestore: a restore leaps in sequence, and its statement continues the one before the restore.
func TestChainOverARestore(t *testing.T) {
	f, c := newSingle(t, nil)
	ctx := context.Background()
	var snapshot bytes.Buffer
	_, err := c.store.Snapshots().Save(ctx, &snapshot)
	require.NoError(t, err)
	_, err = c.AuthorityService().RotateAuthorities(ctx, &ententev1.RotateAuthoritiesRequest{})
	require.NoError(t, err)
	f.settle()
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	before, err := publish.Statements(c.store.View(), home.Name())
	require.NoError(t, err)
	_, err = c.store.Snapshots().Restore(ctx, bytes.NewReader(snapshot.Bytes()))
	require.NoError(t, err)
	f.settle()
	require.Empty(t, f.chain(home))
	after, err := publish.Statements(c.store.View(), home.Name())
	require.NoError(t, err)
	require.Equal(t, before, after[:len(before)], "no statement is withdrawn")
	newest, err := statement.Parse(after[len(before)])
	require.NoError(t, err)
	require.Greater(t, newest.Sequence(), uint64(sequenceLeap))

	// A domain that is gone takes its history with it.
	_, err = c.DomainService().
		CreateDomain(ctx, &ententev1.CreateDomainRequest{Domain: &ententev1.Domain{TrustDomain: shop.Name()}})
	require.NoError(t, err)
	f.settle()
	require.Empty(t, f.chain(shop))
	_, err = c.DomainService().DeleteDomain(ctx, &ententev1.DeleteDomainRequest{TrustDomain: shop.Name()})
	require.NoError(t, err)
	for _, prefix := range []raftstore.Prefix{
		table.HostedHistory.Prefix(table.DomainPrefix(shop.Name())),
		table.HostedHistoryKeys.Prefix(table.DomainPrefix(shop.Name())),
	} {
		require.Empty(t, prefixed(t, c, prefix))
	}
}

func prefixed(t *testing.T, c *node, p raftstore.Prefix) (keys []string) {
	t.Helper()
	switch p.Table {
	case table.HostedHistory.Name():
		rows, err := table.HostedHistory.List(c.store.View(), p.Key)
		require.NoError(t, err)
		for _, row := range rows {
			keys = append(keys, row.Key)
		}
	default:
		rows, err := table.HostedHistoryKeys.List(c.store.View(), p.Key)
		require.NoError(t, err)
		for _, row := range rows {
			keys = append(keys, row.Key)
		}
	}
	return keys
}

// remoteKeys keeps keys where no transaction reaches them.
type remoteKeys struct{ keys.Store }

// remoteKey is a signer whose key is elsewhere.
type remoteKey struct{ key crypto.Signer }

func (k remoteKey) Public() crypto.PublicKey { return k.key.Public() }
func (k remoteKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return k.key.Sign(r, digest, o)
}

func (s remoteKeys) Signer(name string) (crypto.Signer, error) {
	key, err := s.Store.Signer(name)
	return remoteKey{key}, err
}

func (s remoteKeys) Create(ctx context.Context, name string) (crypto.Signer, error) {
	key, err := s.Store.Create(ctx, name)
	return remoteKey{key}, err
}

// TestChainOfRemoteKeys: keys that no transaction reaches sign right after the transaction.
func TestChainOfRemoteKeys(t *testing.T) {
	f := newThree(t, func(c *Config) { c.Keys = remoteKeys{keys.NewMemory()} })
	_, err := f.nodes[1].AuthorityService().
		RotateAuthorities(context.Background(), &ententev1.RotateAuthoritiesRequest{})
	require.NoError(t, err)
	f.settle()
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	require.Empty(t, f.chain(home))
	require.NotEmpty(
		t,
		append(
			f.nodes[0].audit.about(publish.ActionSign),
			append(f.nodes[1].audit.about(publish.ActionSign), f.nodes[2].audit.about(publish.ActionSign)...)...),
	)
}

// TestChainOfLostKeys: all members lose their keys at once, as members with keys in memory do. None waits for
// another's.
func TestChainOfLostKeys(t *testing.T) {
	f := newThree(t, func(c *Config) { c.Keys = keys.NewMemory() })
	for _, c := range f.nodes {
		f.halt(c)
	}
	for _, c := range f.nodes {
		f.start(c)
	}
	f.settle()
	require.NotEmpty(t, f.chain(home))
	_, err := f.nodes[1].AuthorityService().
		RotateAuthorities(context.Background(), &ententev1.RotateAuthoritiesRequest{})
	require.NoError(t, err)
	f.settle()
	count := len(f.chain(home))
	f.advance(plan.HintsBeforeUse * plan.DefaultRefreshHint)
	require.Len(t, f.chain(home), count, "from there on it continues")
}
