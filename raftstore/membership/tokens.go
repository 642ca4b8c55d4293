package membership

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/token"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/repeat"
)

const (
	// tokenKept is how long a token is kept after its expiry, so that a joiner whose answer was lost can try again, one
	// that waits for approval can be approved, and a refusal can contain what became of the token.
	tokenKept = 24 * time.Hour
	// maxOpenTokens bounds the tokens that are open or whose joiners wait for approval.
	maxOpenTokens = 256
)

// tokens makes and ends join tokens, and approves the joiners that redeemed them. At most one token of a member ID can
// admit a member at any time.
type tokens struct {
	store     *raftstore.Store
	directory *directory.Directory
	joins     *joins
	self      string
	// administrator returns who makes a call, for the row of a token.
	administrator func(ctx context.Context) string
	now           func() time.Time
}

// create makes a token that admits one member within ttl. It replaces the open token of that member.
func (t *tokens) create(
	ctx context.Context, req *ententev1.CreateJoinTokenRequest, ttl time.Duration,
) (*ententev1.CreateJoinTokenResponse, error) {
	id := req.GetMemberId()
	if id == "" {
		return nil, status.Error(codes.InvalidArgument,
			"member_id is missing: a join token is for one member, as in `entente cluster join-token eu-2`")
	}
	if err := memberid.CheckID(id); err != nil {
		return nil, apierror.Invalid(apierror.InField("member_id", err))
	}
	if ttl < time.Second || ttl > join.MaxTTL {
		return nil, status.Errorf(codes.InvalidArgument,
			"ttl is %s; a join token lasts from 1s to %s", ttl, join.MaxTTL)
	}
	secret, err := token.Choose(req.GetSecretSha256())
	if err != nil {
		return nil, err
	}
	now := t.now()
	made := join.NewToken(t.joins.cluster.Name, now.Add(ttl), t.identities())
	row := &statev1.JoinToken{
		SecretSha256: secret.Digest(), CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(made.Expires),
		MemberId: id, AutoApprove: req.GetAutoApprove(), NonVoter: req.GetNonVoter(),
		CreatedBy: t.administrator(ctx), CreatedOn: t.self,
	}
	for _, d := range made.Identities {
		row.Identities = append(row.Identities, d[:])
	}
	text, err := secret.Text(token.JoinPrefix, t.contentOf(made.ID, row))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	repeat.Generated(ctx, made.ID)
	revision, err := t.store.Update(ctx, func(tx *raftstore.Tx) error {
		if _, found, err := Members.Get(tx, id); err != nil || found {
			return cmp.Or(err, status.Errorf(codes.AlreadyExists, "the cluster has a member %s: if it lost its disk, "+
				"remove it with `entente cluster remove %s` first, because a token made before a removal is "+
				"void", id, id))
		}
		if err := makeRoom(tx, id, now); err != nil {
			return err
		}
		return joinTokens.Put(tx, made.ID, row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.CreateJoinTokenResponse{
		Revision: uint64(revision), Token: text, ExpireTime: row.GetExpireTime(),
		JoinToken: t.message(made.ID, row),
	}, nil
}

// earlier returns the token that an earlier call with the same request id has made, without its secret.
func (t *tokens) earlier(call *repeat.Made) (*ententev1.CreateJoinTokenResponse, error) {
	row, found, err := joinTokens.Get(t.store.View(), call.Name)
	if err != nil || !found {
		return nil, cmp.Or(raftstore.StatusError(err), status.Error(codes.NotFound, "the token was revoked"))
	}
	return &ententev1.CreateJoinTokenResponse{
		Revision: uint64(call.Revision), ExpireTime: row.Value.GetExpireTime(),
		JoinToken: t.message(row.Key, row.Value),
	}, nil
}

// identities returns the digests of the identity keys of the members.
func (t *tokens) identities() (all []memberid.Digest) {
	members, _ := t.directory.Members()
	for _, m := range members {
		all = append(all, m.Identity)
	}
	return all
}

// makeRoom deletes the open token of a member ID and all tokens that expired long ago. It refuses a new token while the
// joiner with that ID waits for approval, or while too many tokens are in use.
func makeRoom(tx *raftstore.Tx, id string, now time.Time) error {
	rows, err := joinTokens.List(tx, "")
	if err != nil {
		return err
	}
	used := 0
	for _, row := range rows {
		state, same := join.StateOf(row.Value), row.Value.GetMemberId() == id
		expires := row.Value.GetExpireTime().AsTime()
		switch {
		case now.After(expires.Add(tokenKept)), same && state == join.Open:
			if err := joinTokens.Delete(tx, row.Key); err != nil {
				return err
			}
		case same && state == join.Awaiting:
			return status.Errorf(codes.FailedPrecondition, "joiner %s at %s, identity key %x, waits for approval: "+
				"approve it with `entente cluster approve %s`, or reject it with `entente cluster join-token "+
				"revoke %s` "+
				"and make a new token", id, row.Value.GetRedemption().GetAddress(),
				row.Value.GetRedemption().GetIdentity(), id, id)
		case state == join.Awaiting, state == join.Open && now.Before(expires):
			used++
		}
	}
	if used >= maxOpenTokens {
		return status.Errorf(codes.ResourceExhausted,
			"%d join tokens are in use, the most that there can be; revoke some with "+
				"`entente cluster join-token revoke`, or wait until they expire", used)
	}
	return nil
}

// live returns the rows of the tokens that can still admit a member, by member ID.
func live(r raftstore.Reader, now time.Time) ([]raftstore.Row[*statev1.JoinToken], error) {
	rows, err := joinTokens.List(r, "")
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(row raftstore.Row[*statev1.JoinToken]) bool {
		expires := row.Value.GetExpireTime().AsTime()
		switch join.StateOf(row.Value) {
		case join.Open:
			return !now.Before(expires)
		case join.Awaiting:
			return now.After(expires.Add(tokenKept))
		}
		return true
	})
	slices.SortFunc(rows, func(a, b raftstore.Row[*statev1.JoinToken]) int {
		return cmp.Compare(a.Value.GetMemberId(), b.Value.GetMemberId())
	})
	return rows, nil
}

// find returns the token of a member ID that can still admit it.
func find(r raftstore.Reader, id string, now time.Time) (raftstore.Row[*statev1.JoinToken], bool, error) {
	rows, err := live(r, now)
	i := slices.IndexFunc(rows, func(row raftstore.Row[*statev1.JoinToken]) bool {
		return row.Value.GetMemberId() == id
	})
	if err != nil || i < 0 {
		return raftstore.Row[*statev1.JoinToken]{}, false, err
	}
	return rows[i], true, nil
}

// voidAll deletes every token that can still admit a member. Every removal does this: the tokens made before it name
// the removed member's identity key as one to send the secret to, and a compromised member can have made any of them.
func voidAll(tx *raftstore.Tx) error {
	rows, err := joinTokens.List(tx, "")
	if err != nil {
		return err
	}
	for _, row := range rows {
		if join.StateOf(row.Value) != join.Approved {
			if err := joinTokens.Delete(tx, row.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// revoke deletes the token of a member ID that can still admit it.
func (t *tokens) revoke(ctx context.Context, id string) (*ententev1.RevokeJoinTokenResponse, error) {
	if err := memberid.CheckID(id); err != nil {
		return nil, apierror.Invalid(apierror.InField("member_id", err))
	}
	var was *ententev1.JoinToken
	revision, err := t.store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := find(tx, id, t.now())
		if err != nil {
			return err
		}
		if !found {
			return status.Errorf(codes.NotFound, "no join token for %s can admit a member: "+
				"`entente cluster join-token list` shows those that can, and a member that has joined is removed with "+
				"`entente cluster remove`", id)
		}
		was = t.message(row.Key, row.Value)
		return joinTokens.Delete(tx, row.Key)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.RevokeJoinTokenResponse{Revision: uint64(revision), JoinToken: was}, nil
}

// approve makes the joiner with a member ID a member. It is added to Raft at its next request, a moment later.
func (t *tokens) approve(ctx context.Context, id string, identity []byte) (*ententev1.ApproveMemberResponse, error) {
	if err := memberid.CheckID(id); err != nil {
		return nil, apierror.Invalid(apierror.InField("id", err))
	}
	var member *ententev1.Member
	revision, err := t.store.Update(ctx, func(tx *raftstore.Tx) error {
		now := t.now()
		row, found, err := find(tx, id, now)
		if err != nil {
			return err
		}
		if !found || join.StateOf(row.Value) != join.Awaiting {
			return status.Errorf(codes.NotFound, "no joiner %s waits for approval: `entente cluster members` shows "+
				"those that do; a joiner that has not come yet needs no approval if its token is made with "+
				"--auto-approve",
				id)
		}
		if err := join.Approvable(row.Value, identity); err != nil {
			return err
		}
		r := row.Value.GetRedemption()
		// The cluster may have changed since the token was redeemed.
		_, err = t.joins.admissible(tx, &ententev1.JoinRequest{
			Id: id, ClusterName: t.joins.cluster.Name, HomeTrustDomain: t.joins.cluster.HomeTrustDomain,
			Version: r.GetVersion(), CommandVersion: r.GetCommandVersion(),
		}, memberid.Digest(r.GetIdentity()))
		if err != nil {
			return err
		}
		if member = joinerMessage(row.Value); member != nil {
			member.JoinTime = timestamppb.New(now)
		}
		return makeMember(tx, row.Key, row.Value, now)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.ApproveMemberResponse{Revision: uint64(revision), Member: member}, nil
}

// contentOf returns the content of a token, without its secret.
func (t *tokens) contentOf(id string, row *statev1.JoinToken) *statev1.JoinTokenContent {
	return &statev1.JoinTokenContent{
		ClusterName: t.joins.cluster.Name, Id: id, ExpireSeconds: row.GetExpireTime().GetSeconds(),
		Identities: row.GetIdentities(),
	}
}

// message returns a token as the API shows it, with its public part.
func (t *tokens) message(id string, row *statev1.JoinToken) *ententev1.JoinToken {
	m := tokenMessage(id, row)
	if len(row.GetIdentities()) > 0 { // a token of an earlier version has none
		m.PublicPart, _ = token.Public(token.JoinPrefix, t.contentOf(id, row)) // a row encodes
	}
	return m
}

// tokenMessage returns a token as the API shows it.
func tokenMessage(id string, t *statev1.JoinToken) *ententev1.JoinToken {
	return &ententev1.JoinToken{
		Id: id, MemberId: t.GetMemberId(), AutoApprove: t.GetAutoApprove(), NonVoter: t.GetNonVoter(),
		CreateTime: t.GetCreateTime(), ExpireTime: t.GetExpireTime(),
		CreatedBy: t.GetCreatedBy(), CreatedOn: t.GetCreatedOn(),
		Joiner: joinerMessage(t),
	}
}

// joinerMessage returns the joiner that redeemed a token as the API shows it, or nil.
func joinerMessage(t *statev1.JoinToken) *ententev1.Member {
	r := t.GetRedemption()
	if r == nil {
		return nil
	}
	return &ententev1.Member{
		Id: r.GetMemberId(), Region: r.GetRegion(), Zone: r.GetZone(), Address: r.GetAddress(),
		Identity: hexDigest(r.GetIdentity()), Version: r.GetVersion(),
	}
}
