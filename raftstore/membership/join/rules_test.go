package join

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func requireRefusal(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if code == codes.OK {
		require.NoError(t, err)
		return
	}
	require.Equal(t, code, status.Code(err), "%v", err)
	require.ErrorContains(t, err, text)
}

func TestRedeemable(t *testing.T) {
	secret := []byte("the secret of a token, 32 bytes.")
	sum := sha256.Sum256(secret)
	key, other := memberid.Digest{1}, memberid.Digest{2}
	open := &statev1.JoinToken{
		SecretSha256: sum[:], ExpireTime: timestamppb.New(noon.Add(time.Minute)), MemberId: "eu-2",
	}
	spent := &statev1.JoinToken{SecretSha256: sum[:], ExpireTime: timestamppb.New(noon.Add(-time.Hour)),
		Redemption: &statev1.Redemption{
			MemberId: "eu-2",
			Identity: key[:],
			Time:     timestamppb.New(noon.Add(-2 * time.Hour)),
		}}
	expired := &statev1.JoinToken{SecretSha256: sum[:], ExpireTime: timestamppb.New(noon), MemberId: "eu-2"}
	unbound := &statev1.JoinToken{SecretSha256: sum[:], ExpireTime: timestamppb.New(noon.Add(time.Minute))}
	for name, c := range map[string]struct {
		row    *statev1.JoinToken
		secret []byte
		id     string
		key    memberid.Digest
		code   codes.Code
		text   string
	}{
		"open":                         {row: open, secret: secret, id: "eu-2", key: key},
		"spent by the same, even late": {row: spent, secret: secret, id: "eu-2", key: key},
		"unknown": {
			secret: secret, id: "eu-2", key: key, code: codes.PermissionDenied,
			text: "this cluster has no such join token",
		},
		"another secret": {
			row: open, secret: []byte("x"), id: "eu-2", key: key, code: codes.PermissionDenied,
			text: "this cluster has no such join token",
		},
		"expired at that very moment": {
			row: expired, secret: secret, id: "eu-2", key: key, code: codes.PermissionDenied,
			text: "the join token expired at 2026-11-22T12:00:00Z; make a new one with `entente cluster join-token " +
				"eu-2`",
		},
		"spent by another member": {
			row: spent, secret: secret, id: "eu-3", key: key, code: codes.PermissionDenied,
			text: "the join token was used by member eu-2 with identity key 0100000000000000 at " +
				"2026-11-22T10:00:00Z, and a token admits one member once",
		},
		"for another member": {
			row: open, secret: secret, id: "eu-3", key: key, code: codes.PermissionDenied,
			text: `the join token is for member "eu-2", and this member is eu-3; correct member.id, or make a new ` +
				`one ` +
				"with `entente cluster join-token eu-3`",
		},
		"for no member, as an earlier version made it": {
			row: unbound, secret: secret, id: "eu-3", key: key, code: codes.PermissionDenied,
			text: `the join token is for member "", and this member is eu-3`,
		},
		"spent by another key": {
			row: spent, secret: secret, id: "eu-2", key: other, code: codes.PermissionDenied,
			text: "was used by member eu-2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			requireRefusal(t, Redeemable(c.row, c.secret, c.id, c.key, noon), c.code, c.text)
		})
	}
}

func TestStateOf(t *testing.T) {
	const id = "eu-2"
	redeemed, at := &statev1.Redemption{MemberId: id}, timestamppb.New(noon)
	for name, c := range map[string]struct {
		row  *statev1.JoinToken
		want TokenState
	}{
		"nobody came": {&statev1.JoinToken{MemberId: "eu-2"}, Open},
		"redeemed":    {&statev1.JoinToken{MemberId: "eu-2", Redemption: redeemed}, Awaiting},
		"automatic, and not " +
			"approved": {&statev1.JoinToken{MemberId: id, Redemption: redeemed, AutoApprove: true}, Awaiting},
		"approved": {
			&statev1.JoinToken{MemberId: id, Redemption: redeemed, ApproveTime: at}, Approved,
		},
		"redeemed before approvals":     {&statev1.JoinToken{Redemption: redeemed}, Approved},
		"open, of before approvals":     {&statev1.JoinToken{}, Open},
		"approved without a redemption": {&statev1.JoinToken{MemberId: "eu-2", ApproveTime: at}, Open},
	} {
		require.Equal(t, c.want, StateOf(c.row), name)
	}
}

func TestRoomToWait(t *testing.T) {
	waiting := []string{"eu-2", "eu-3", "eu-4", "eu-5", "eu-6", "eu-7", "eu-8", "eu-9", "eu-10", "eu-11"}
	requireRefusal(t, RoomToWait(nil), codes.OK, "")
	requireRefusal(t, RoomToWait(waiting[:MaxAwaiting-1]), codes.OK, "")
	requireRefusal(t, RoomToWait(waiting), codes.ResourceExhausted, "10 joiners wait for the approval of an "+
		"administrator, as many as can (eu-2, eu-3, eu-4, eu-5, eu-6, eu-7, eu-8, eu-9, eu-10, eu-11); the token "+
		"was not used: approve them with `entente cluster approve`, or reject them with "+
		"`entente cluster join-token revoke`")
}

func TestApprovable(t *testing.T) {
	key, other := memberid.Digest{1}, memberid.Digest{2}
	row := &statev1.JoinToken{Redemption: &statev1.Redemption{
		MemberId: "eu-2", Identity: key[:], Address: "10.0.0.2:7440",
	}}
	requireRefusal(t, Approvable(row, nil), codes.OK, "")
	requireRefusal(t, Approvable(row, key[:]), codes.OK, "")
	requireRefusal(t, Approvable(row, other[:]), codes.FailedPrecondition,
		"the joiner eu-2 at 10.0.0.2:7440 has identity key 01"+strings.Repeat("00", 31)+", not the one given: it "+
			"may be "+
			"another machine than the one meant; reject it with `entente cluster join-token revoke eu-2`")
}

func TestAdmissible(t *testing.T) {
	key, other := memberid.Digest{1}, memberid.Digest{2}
	rows := []raftstore.Row[*statev1.Member]{
		{Key: "eu-1", Value: &statev1.Member{Id: "eu-1", Identity: key[:], JoinTime: timestamppb.New(noon)}},
	}
	var full []raftstore.Row[*statev1.Member]
	for range directory.MaxMembers {
		full = append(full, raftstore.Row[*statev1.Member]{Value: &statev1.Member{}})
	}
	requireRefusal(t, Admissible(rows, "eu-2", other), codes.OK, "")
	requireRefusal(t, Admissible(rows, "eu-1", key), codes.OK, "")
	requireRefusal(
		t,
		Admissible(rows, "eu-1", other),
		codes.AlreadyExists,
		"the cluster has a member eu-1 with another identity key, which joined at 2026-11-22T12:00:00Z; "+
			"the token was not used: if that member lost its disk, "+
			"remove it with `entente cluster remove eu-1` and start this one again, otherwise give this one another id",
	)
	requireRefusal(
		t,
		Admissible(rows, "eu-2", key),
		codes.AlreadyExists,
		"the identity key is that of member eu-1; the token was not used",
	)
	requireRefusal(t, Admissible(full, "eu-2", other), codes.ResourceExhausted, "the cluster has 64 members")
}

func TestCompatible(t *testing.T) {
	good := &ententev1.JoinRequest{
		ClusterName: "eu", HomeTrustDomain: "eu.example.org", Version: "1.0", CommandVersion: 2,
	}
	for _, c := range []struct {
		cluster Cluster
		text    string
	}{
		{Cluster{"eu", "eu.example.org", 2}, ""},
		{Cluster{"us", "eu.example.org", 2}, `the joiner has cluster.name = "eu", but this cluster is "us"; ` +
			"correct the configuration or the join addresses"},
		{Cluster{"eu", "us.example.org", 2}, `the joiner has cluster.trust_domain = "eu.example.org", ` +
			`but this cluster's is "us.example.org"; correct the configuration`},
		{Cluster{"eu", "eu.example.org", 3}, `the joiner's version "1.0" applies commands up to version 2, ` +
			"but this cluster uses version 3; install a newer one"},
	} {
		code := codes.OK
		if c.text != "" {
			code = codes.FailedPrecondition
		}
		requireRefusal(t, Compatible(c.cluster, good), code, c.text)
	}
}
