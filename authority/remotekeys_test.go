package authority

import (
	"context"
	"crypto"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/raftstore"
)

var errAway = errors.New("the keys are away")

// awayKeys is a store whose keys are elsewhere: they can be out of reach, and get lost.
type awayKeys struct {
	*keys.Memory
	away   atomic.Bool
	inside atomic.Bool // a signature was made inside a transaction
	signed atomic.Int64
	lost   chan struct{}
}

func newAwayKeys() *awayKeys {
	return &awayKeys{Memory: keys.NewMemory(), lost: make(chan struct{}, 1)}
}

func (s *awayKeys) Create(ctx context.Context, name string) (crypto.Signer, error) {
	if s.away.Load() {
		return nil, errAway
	}
	key, err := s.Memory.Create(ctx, name)
	return awayKey{key, s}, err
}

func (s *awayKeys) Signer(name string) (crypto.Signer, error) {
	key, err := s.Memory.Signer(name)
	if err != nil {
		return nil, err
	}
	return awayKey{key, s}, nil
}

func (s *awayKeys) Changed() <-chan struct{} { return s.lost }

type awayKey struct {
	crypto.Signer
	store *awayKeys
}

func (k awayKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.store.signed.Add(1)
	if insideTransaction() {
		k.store.inside.Store(true)
	}
	if k.store.away.Load() {
		return nil, errAway
	}
	return k.Signer.Sign(rand, digest, opts)
}

// insideTransaction reports whether its caller runs inside a transaction. Only the stack shows that.
func insideTransaction() bool {
	frames := make([]uintptr, 64)
	all := runtime.CallersFrames(frames[:runtime.Callers(1, frames)])
	for {
		frame, more := all.Next()
		if strings.HasSuffix(frame.Function, "raftstore.(*Store).Update") {
			return true
		}
		if !more {
			return false
		}
	}
}

// TestNoTransactionWaitsForAKey: over preparations, activations, rotations of keys and anchors, a taint, and a domain
// of its own, keys that are elsewhere sign, and never inside a transaction.
func TestNoTransactionWaitsForAKey(t *testing.T) {
	keys := newAwayKeys()
	f, c := newSingle(t, func(c *Config) { c.Keys, c.KeyDir = keys, "" })
	seen := false
	_, err := c.store.Update(t.Context(), func(*raftstore.Tx) error { seen = insideTransaction(); return nil })
	require.NoError(t, err)
	require.True(t, seen, "the stack contains it")

	_, err = c.DomainService().
		CreateDomain(t.Context(), &ententev1.CreateDomainRequest{
			Domain: &ententev1.Domain{TrustDomain: "second.example.org"},
		})
	require.NoError(t, err)
	f.settle()
	for _, anchors := range []bool{false, true} {
		_, err := c.AuthorityService().
			RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{Anchors: anchors})
		require.NoError(t, err)
		f.settle()
		f.advance(plan.HintsBeforeUse*plan.DefaultRefreshHint + time.Second)
		require.NoError(t, issueBoth(t, c))
	}
	for _, a := range f.list(home) {
		if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE &&
			a.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 {
			_, err := c.AuthorityService().
				TaintAuthority(t.Context(), taintRequest(a.GetId()))
			require.NoError(t, err)
		}
	}
	f.settle()
	f.advance(plan.DefaultCATTL)
	require.NoError(t, issueBoth(t, c))
	require.Greater(t, keys.signed.Load(), int64(20))
	require.False(t, keys.inside.Load(), "a transaction waited for a key")
}

func issueBoth(t *testing.T, c *node) error {
	t.Helper()
	_, err := c.SVIDService().IssueX509SVID(t.Context(), x509Request(t, workload(1)))
	if err != nil {
		return err
	}
	_, err = c.SVIDService().IssueJWTSVID(t.Context(), jwtRequest("a"))
	return err
}

// TestKeysOutOfReach: a member whose keys are out of reach forwards requests, loses no authority, and signs again when
// its keys are back. If all keys are out of reach, the error is one sentence.
func TestKeysOutOfReach(t *testing.T) {
	stores := map[string]*awayKeys{}
	f := newThree(t, func(c *Config) {
		stores[c.Member] = newAwayKeys()
		c.Keys, c.KeyDir = stores[c.Member], ""
	})
	f.advance(plan.HintsBeforeUse*plan.DefaultRefreshHint + time.Second) // all three are active
	before := len(f.list(home))
	first := f.nodes[0]
	stores[first.id].away.Store(true)
	require.NoError(t, issueBoth(t, first))

	for _, store := range stores {
		store.away.Store(true)
	}
	err := issueBoth(t, first)
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Contains(t, status.Convert(err).Message(),
		"no member could sign for eu.example.org: sign: the keys are away; member ")
	for _, a := range f.list(home) {
		require.Equal(t, ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE, a.GetState(),
			"no authority is lost by an outage")
	}
	require.Len(t, f.list(home), before)
	for _, store := range stores {
		store.away.Store(false)
	}
	require.NoError(t, issueBoth(t, first))
}

// TestLostKeyIsReplacedAtOnce: an authority whose key is lost while the member runs is retired, and another one signs.
func TestLostKeyIsReplacedAtOnce(t *testing.T) {
	keys := newAwayKeys()
	f, c := newSingle(t, func(c *Config) { c.Keys, c.KeyDir = keys, "" })
	lost := f.list(home)[0]
	require.NoError(t, keys.Delete(t.Context(), lost.GetId()))
	keys.lost <- struct{}{}
	require.Eventually(t, func() bool {
		for _, a := range f.list(home) {
			if a.GetKind() == lost.GetKind() && a.GetId() != lost.GetId() &&
				a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
				return true
			}
		}
		return false
	}, testTimeout, pollInterval)
	f.settle()
	require.NoError(t, issueBoth(t, c))
	_, err := keys.Signer(lost.GetId())
	require.ErrorIs(t, err, fs.ErrNotExist)
}
