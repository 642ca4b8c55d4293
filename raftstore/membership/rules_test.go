package membership

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func requireRefusal(t *testing.T, err error, code codes.Code, says string) {
	t.Helper()
	if code == codes.OK {
		require.NoError(t, err)
		return
	}
	require.Equal(t, code, status.Code(err), "%v", err)
	require.ErrorContains(t, err, says)
}

func TestRedeemable(t *testing.T) {
	secret := []byte("the secret of a token, 32 bytes.")
	sum := sha256.Sum256(secret)
	key, other := Digest{1}, Digest{2}
	open := &statev1.JoinToken{SecretSha256: sum[:], ExpireTime: timestamppb.New(noon.Add(time.Minute))}
	spent := &statev1.JoinToken{SecretSha256: sum[:], ExpireTime: timestamppb.New(noon.Add(-time.Hour)),
		Redemption: &statev1.Redemption{MemberId: "eu-2", Identity: key[:], Time: timestamppb.New(noon.Add(-2 * time.Hour))}}
	expired := &statev1.JoinToken{SecretSha256: sum[:], ExpireTime: timestamppb.New(noon)}
	for name, c := range map[string]struct {
		row    *statev1.JoinToken
		secret []byte
		id     string
		key    Digest
		code   codes.Code
		says   string
	}{
		"open":                         {row: open, secret: secret, id: "eu-2", key: key},
		"spent by the same, even late": {row: spent, secret: secret, id: "eu-2", key: key},
		"unknown":                      {secret: secret, id: "eu-2", key: key, code: codes.PermissionDenied, says: "this cluster has no such join token"},
		"another secret":               {row: open, secret: []byte("x"), id: "eu-2", key: key, code: codes.PermissionDenied, says: "this cluster has no such join token"},
		"expired at that very moment":  {row: expired, secret: secret, id: "eu-2", key: key, code: codes.PermissionDenied, says: "the join token expired at 2026-11-22T12:00:00Z; make a new one with `entente cluster join-token`"},
		"spent by another member":      {row: spent, secret: secret, id: "eu-3", key: key, code: codes.PermissionDenied, says: "the join token was used by member eu-2 at 2026-11-22T10:00:00Z, and a token admits one member once"},
		"spent by another key":         {row: spent, secret: secret, id: "eu-2", key: other, code: codes.PermissionDenied, says: "was used by member eu-2"},
	} {
		t.Run(name, func(t *testing.T) {
			requireRefusal(t, redeemable(c.row, c.secret, c.id, c.key, noon), c.code, c.says)
		})
	}
}

func TestAdmissible(t *testing.T) {
	key, other := Digest{1}, Digest{2}
	rows := []raftstore.Row[*statev1.Member]{{Key: "eu-1", Value: &statev1.Member{Id: "eu-1", Identity: key[:], JoinTime: timestamppb.New(noon)}}}
	var full []raftstore.Row[*statev1.Member]
	for range maxFellows {
		full = append(full, raftstore.Row[*statev1.Member]{Value: &statev1.Member{}})
	}
	requireRefusal(t, admissible(rows, "eu-2", other), codes.OK, "")
	requireRefusal(t, admissible(rows, "eu-1", key), codes.OK, "")
	requireRefusal(t, admissible(rows, "eu-1", other), codes.AlreadyExists,
		"the cluster has a member eu-1 with another identity key, which joined at 2026-11-22T12:00:00Z; the token was not used: if that member lost its disk, "+
			"remove it with `entente cluster remove eu-1` and start this one again, otherwise give this one another id")
	requireRefusal(t, admissible(rows, "eu-2", key), codes.AlreadyExists, "the identity key is that of member eu-1; the token was not used")
	requireRefusal(t, admissible(full, "eu-2", other), codes.ResourceExhausted, "the cluster has 64 members")
}

func TestRemovable(t *testing.T) {
	server := func(id string, voter bool) raftstore.Server { return raftstore.Server{MemberID: id, Voter: voter} }
	three := []raftstore.Server{server("a", true), server("b", true), server("c", true)}
	for name, c := range map[string]struct {
		servers []raftstore.Server
		heard   string
		target  string
		code    codes.Code
		says    string
	}{
		"one of three":            {servers: three, heard: "abc", target: "b"},
		"the dead one":            {servers: three, heard: "ab", target: "c"},
		"a living one beside it":  {servers: three, heard: "ab", target: "b", code: codes.FailedPrecondition, says: "without member b only 1 of 2 members with a vote would be heard, no majority; remove or repair [c] first"},
		"the last one":            {servers: three[:1], heard: "a", target: "a", code: codes.FailedPrecondition, says: "member a is the last one with a vote"},
		"the last vote":           {servers: []raftstore.Server{server("a", true), server("b", false)}, heard: "ab", target: "a", code: codes.FailedPrecondition, says: "is the last one with a vote"},
		"one without a vote":      {servers: []raftstore.Server{server("a", true), server("b", false)}, heard: "a", target: "b"},
		"one of two":              {servers: three[:2], heard: "ab", target: "a"},
		"one that is not in Raft": {servers: three, heard: "a", target: "d"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := func(id string) bool { return len(id) == 1 && contains(c.heard, id[0]) }
			requireRefusal(t, removable(c.servers, heard, c.target), c.code, c.says)
		})
	}
}

func contains(s string, b byte) bool {
	for i := range len(s) {
		if s[i] == b {
			return true
		}
	}
	return false
}

func TestMarks(t *testing.T) {
	heard := func(ids ...string) func(string) bool {
		return func(id string) bool {
			for _, i := range ids {
				if i == id {
					return true
				}
			}
			return false
		}
	}
	on, off := marks([]string{"a", "b"}, []string{"a"}, heard("a", "b"), true)
	assert.Equal(t, []string{"b"}, on)
	assert.Empty(t, off)
	on, off = marks([]string{"a", "b"}, []string{"a", "b"}, heard("a"), true)
	assert.Empty(t, on)
	assert.Equal(t, []string{"b"}, off)
	_, off = marks([]string{"a", "b"}, []string{"a", "b"}, heard("a"), false)
	assert.Empty(t, off, "a new leader gives everybody the time to be heard")
	_, off = marks([]string{"a"}, []string{"a", "b"}, heard("a", "b"), false)
	assert.Equal(t, []string{"b"}, off, "who is no member is not alive")
}

func TestClockDistance(t *testing.T) {
	for name, c := range map[string]struct {
		offsets map[string]time.Duration
		of      string
		voters  int
		want    time.Duration
		known   bool
	}{
		"alone":                         {map[string]time.Duration{"a": 0}, "a", 1, 0, true},
		"no majority heard":             {map[string]time.Duration{"a": 0}, "a", 3, 0, false},
		"not heard itself":              {map[string]time.Duration{"a": 0, "b": 0}, "c", 3, 0, false},
		"two of three agree":            {map[string]time.Duration{"a": 0, "b": time.Second, "c": time.Hour}, "a", 3, time.Second, true},
		"the third is off":              {map[string]time.Duration{"a": 0, "b": time.Second, "c": time.Hour}, "c", 3, time.Hour - time.Second, true},
		"the leader itself is off":      {map[string]time.Duration{"a": 0, "b": time.Hour, "c": time.Hour}, "a", 3, time.Hour, true},
		"of two, both must agree":       {map[string]time.Duration{"a": 0, "b": -6 * time.Minute}, "b", 2, 6 * time.Minute, true},
		"behind and ahead count alike":  {map[string]time.Duration{"a": 0, "b": -time.Minute, "c": 2 * time.Minute}, "a", 3, time.Minute, true},
		"of five, the third nearest is": {map[string]time.Duration{"a": 0, "b": 1, "c": 2, "d": time.Hour, "e": time.Hour}, "a", 5, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, known := clockDistance(c.offsets, c.of, c.voters)
			assert.Equal(t, c.known, known)
			assert.Equal(t, c.want, got)
		})
	}
}

func TestCompatible(t *testing.T) {
	good := joinFacts{"eu", "eu.example.org", "1.0", 2}
	requireRefusal(t, compatible("eu", "eu.example.org", good, 2), codes.OK, "")
	requireRefusal(t, compatible("us", "eu.example.org", good, 2), codes.FailedPrecondition, `the joiner's configuration says cluster.name = "eu", but this cluster is "us"`)
	requireRefusal(t, compatible("eu", "us.example.org", good, 2), codes.FailedPrecondition, `cluster.trust_domain = "eu.example.org", but this cluster's is "us.example.org"`)
	requireRefusal(t, compatible("eu", "eu.example.org", good, 3), codes.FailedPrecondition, `the joiner's version "1.0" applies commands up to version 2, but this cluster uses version 3; install a newer one`)
}

func TestOwner(t *testing.T) {
	assert.Empty(t, Owner("x", nil))
	three, two := []string{"a", "b", "c"}, []string{"a", "b"}
	count := map[string]int{}
	for i := range 3000 {
		key := string(rune('a'+i%26)) + time.Duration(i).String()
		owner := Owner(key, three)
		assert.Equal(t, owner, Owner(key, []string{"c", "a", "b"}), "the order of members does not matter")
		if owner != "c" {
			assert.Equal(t, owner, Owner(key, two), "only what c had moves")
		}
		count[owner]++
	}
	for _, m := range three {
		assert.InDelta(t, 1000, count[m], 150)
	}
}
