package membership

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// Joiners that wait for approval are bounded. Those that wait keep their places, a token that was made with automatic
// approval needs none, and a place is free again when a joiner was approved or rejected, or when its token has expired
// long ago.
func TestJoinersThatWaitAreBounded(t *testing.T) {
	store := raftstoretest.New(t)
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	j := &joins{store: store, now: func() time.Time { return now }}
	name := func(n int) string { return fmt.Sprintf("%032x", n) }
	redeem := func(n int, autoApprove bool) error {
		t.Helper()
		secret := sha256.Sum256([]byte{byte(n)})
		req := &ententev1.JoinRequest{TokenId: name(n), TokenSecret: []byte{byte(n)}, Id: fmt.Sprintf("eu-%d", n),
			CommandVersion: math.MaxUint32}
		_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
			if _, found, err := joinTokens.Get(tx, name(n)); err != nil || !found {
				err = joinTokens.Put(tx, name(n), &statev1.JoinToken{
					SecretSha256: secret[:], MemberId: req.GetId(), ExpireTime: timestamppb.New(now.Add(time.Hour)),
					AutoApprove: autoApprove,
				})
				if err != nil {
					return err
				}
			}
			_, err := j.redeem(tx, tx, req, memberid.Digest{byte(n)})
			return err
		})
		return err
	}
	full := func(n int) {
		t.Helper()
		err := redeem(n, false)
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
		require.ErrorContains(t, err, "10 joiners wait for the approval of an administrator, as many as can")
	}
	for n := range join.MaxAwaiting {
		require.NoError(t, redeem(n, false))
	}
	full(10)
	require.NoError(t, redeem(0, false), "one that waits repeats its request")
	require.NoError(t, redeem(11, true))
	full(12)

	for freed, leaves := range map[int]func(tx *raftstore.Tx, row raftstore.Row[*statev1.JoinToken]) error{
		1: func(tx *raftstore.Tx, row raftstore.Row[*statev1.JoinToken]) error {
			return makeMember(tx, row.Key, row.Value, now)
		},
		2: func(tx *raftstore.Tx, row raftstore.Row[*statev1.JoinToken]) error {
			return joinTokens.Delete(tx, row.Key)
		},
	} {
		_, err := store.Update(t.Context(), func(tx *raftstore.Tx) error {
			row, found, err := joinTokens.Get(tx, name(freed))
			require.True(t, found)
			require.NoError(t, err)
			return leaves(tx, row)
		})
		require.NoError(t, err)
		require.NoError(t, redeem(20+freed, false))
		full(12)
	}
	now = now.Add(time.Hour + tokenKept + time.Second)
	require.NoError(t, redeem(30, false))
}
