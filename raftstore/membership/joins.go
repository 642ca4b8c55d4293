package membership

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

const (
	// joinsEach and joinsAtOnce limit the rate of joins, whichever the callers: no cluster needs more, and each costs a
	// round through the leader.
	joinsEach   = rate.Limit(5)
	joinsAtOnce = 20
	// tokenKept is how long a token is kept after its expiry, so that a joiner whose answer was lost can try again, and
	// a refusal can contain what became of the token.
	tokenKept = 24 * time.Hour
	// maxOpenTokens bounds the tokens that wait for their joiners.
	maxOpenTokens = 256
)

// Auditor records each join, whose caller no other room authenticates. If it returns an error, the joiner is refused.
type Auditor interface {
	RecordJoin(JoinEvent) error
}

// JoinEvent is one decision on a joiner. Result is empty for the intent, and then "ok" or the refusal.
type JoinEvent struct {
	MemberID string
	Identity memberid.Digest
	Address  string
	TokenID  string
	Result   string
	Revision raftstore.Revision
}

// joins makes join tokens, and admits the members that present them.
type joins struct {
	store     *raftstore.Store
	directory *directory.Directory
	cluster   join.Cluster
	auditor   Auditor
	now       func() time.Time
	log       hclog.Logger
	metrics   *metrics
	limit     *rate.Limiter
	leader    *leaderClient
	changes   *changes
}

// joinService serves joiners.
type joinService struct {
	ententev1.UnimplementedJoinServiceServer
	joins *joins
}

// Join implements JoinService.
func (s joinService) Join(ctx context.Context, req *ententev1.JoinRequest) (*ententev1.JoinResponse, error) {
	answer, err := s.joins.join(ctx, req)
	err = raftstore.StatusError(err)
	s.joins.metrics.joins.WithLabelValues(status.Code(err).String()).Inc()
	return answer, err
}

// join redeems the token and adds the joiner to the cluster. Every step can be repeated with the same request and has
// the same result.
func (j *joins) join(ctx context.Context, req *ententev1.JoinRequest) (*ententev1.JoinResponse, error) {
	if !j.limit.Allow() {
		return nil, status.Error(
			codes.ResourceExhausted,
			"too many requests to join at the moment; try again in a second",
		)
	}
	identity, err := join.CheckRequest(req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// The token may have been made on another member a moment ago.
	v, err := j.store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, err
	}
	if err := j.redeem(v, nil, req, identity); err != nil {
		j.log.Warn("a joiner was refused", "member", req.GetId(), "address", req.GetAddress(),
			"identity", memberid.Short(identity), "error", err)
		return nil, j.auditRefusal(req, identity, err, 0)
	}
	if err := j.audit(req, identity, "", 0); err != nil {
		return nil, err
	}
	revision, err := j.store.Update(ctx, func(tx *raftstore.Tx) error { return j.redeem(tx, tx, req, identity) })
	if err != nil {
		return nil, j.auditRefusal(req, identity, err, 0)
	}
	answer, err := j.addServer(ctx, &ententev1.MemberIdentity{
		Id: req.GetId(), Address: req.GetAddress(), Identity: identity[:],
	})
	if err != nil {
		return nil, j.auditRefusal(req, identity, err, revision)
	}
	if err := j.audit(req, identity, "ok", revision); err != nil {
		return nil, err
	}
	j.log.Info("a member has joined", "member", req.GetId(), "address", req.GetAddress(),
		"identity", memberid.Short(identity), "version", join.DescribeVersion(req.GetVersion()))
	return &ententev1.JoinResponse{
		ClusterId: j.store.ClusterID(), Members: answer.GetMembers(), Revision: answer.GetRevision(),
	}, nil
}

// audit records one decision on a joiner.
func (j *joins) audit(
	req *ententev1.JoinRequest, identity memberid.Digest, result string, revision raftstore.Revision,
) error {
	err := j.auditor.RecordJoin(JoinEvent{
		MemberID: req.GetId(), Identity: identity, Address: req.GetAddress(), TokenID: req.GetTokenId(),
		Result: result, Revision: revision,
	})
	if err != nil {
		j.log.Error("the audit log cannot be written: no member is admitted until it can", "error", err)
		return status.Error(codes.Unavailable, "this member's audit log cannot be written, "+
			"and what cannot be audited is not done; try another member")
	}
	return nil
}

// auditRefusal records why a joiner was not admitted, and returns that reason.
func (j *joins) auditRefusal(
	req *ententev1.JoinRequest, identity memberid.Digest, why error, revision raftstore.Revision,
) error {
	if err := j.audit(req, identity, status.Convert(why).Message(), revision); err != nil {
		return err
	}
	return why
}

// addServer adds a member to the Raft configuration, on the leader.
func (j *joins) addServer(
	ctx context.Context, m *ententev1.MemberIdentity,
) (answer *ententev1.AddServerResponse, err error) {
	_, err = j.leader.forward(ctx,
		func(ctx context.Context) (err error) {
			answer, err = j.changes.addServer(ctx, m)
			return err
		},
		func(ctx context.Context, leader ententev1.MemberServiceClient) (err error) {
			answer, err = leader.AddServer(ctx, &ententev1.AddServerRequest{Member: m})
			return err
		})
	return answer, err
}

// redeem decides on a joiner and, given a transaction, binds its ID and key to the token and stores its row.
func (j *joins) redeem(
	r raftstore.Reader, tx *raftstore.Tx, req *ententev1.JoinRequest, identity memberid.Digest,
) error {
	row, _, err := joinTokens.Get(r, req.GetTokenId())
	if err != nil {
		return err
	}
	now := j.now()
	// A caller without a token learns nothing of the cluster.
	if err := join.Redeemable(row.Value, req.GetTokenSecret(), req.GetId(), identity, now); err != nil {
		return err
	}
	rows, err := Members.List(r, "")
	if err != nil {
		return err
	}
	cluster := j.cluster
	cluster.CommandVersion = raftstore.CommandVersion
	known := false
	for _, m := range rows {
		cluster.CommandVersion = min(cluster.CommandVersion, m.Value.GetCommandVersion())
		known = known || m.Key == req.GetId()
	}
	if err := join.Compatible(cluster, req); err != nil {
		return err
	}
	if err := join.Admissible(rows, req.GetId(), identity); err != nil {
		return err
	}
	spent := row.Value.GetRedemption() != nil
	if spent && !known {
		return status.Errorf(codes.PermissionDenied, "member %s joined with this token before and was removed since; "+
			"empty its data folder and make a new token with `entente cluster join-token`", req.GetId())
	}
	if tx == nil || spent {
		return nil
	}
	row.Value.Redemption = &statev1.Redemption{
		MemberId: req.GetId(), Identity: identity[:], Time: timestamppb.New(now),
	}
	return errors.Join(
		joinTokens.Put(tx, req.GetTokenId(), row.Value),
		Members.Put(tx, req.GetId(), &statev1.Member{
			Id: req.GetId(), Region: req.GetRegion(), Zone: req.GetZone(), Address: req.GetAddress(),
			Identity: identity[:], Version: req.GetVersion(), CommandVersion: req.GetCommandVersion(),
			JoinTime: timestamppb.New(now),
		}))
}

// createToken makes a token that lasts for ttl.
func (j *joins) createToken(ctx context.Context, ttl time.Duration) (*ententev1.CreateJoinTokenResponse, error) {
	if ttl < time.Second || ttl > join.MaxTTL {
		return nil, status.Errorf(codes.InvalidArgument,
			"ttl is %s; a join token lasts from 1s to %s", ttl, join.MaxTTL)
	}
	members, _ := j.directory.Members()
	var identities []memberid.Digest
	for _, m := range members {
		identities = append(identities, m.Identity)
	}
	now := j.now()
	token := join.NewToken(j.cluster.Name, now.Add(ttl), identities)
	text, err := token.Text()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	secret := sha256.Sum256(token.Secret[:])
	revision, err := j.store.Update(ctx, func(tx *raftstore.Tx) error {
		if err := deleteOldTokens(tx, now); err != nil {
			return err
		}
		return joinTokens.Put(tx, token.ID, &statev1.JoinToken{
			SecretSha256: secret[:], CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(token.Expires),
		})
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.CreateJoinTokenResponse{
		Revision: uint64(revision), Token: text, ExpireTime: timestamppb.New(token.Expires),
	}, nil
}

// deleteOldTokens deletes tokens that expired long ago, and refuses a new one while too many are open.
func deleteOldTokens(tx *raftstore.Tx, now time.Time) error {
	rows, err := joinTokens.List(tx, "")
	if err != nil {
		return err
	}
	open := 0
	for _, row := range rows {
		switch expires := row.Value.GetExpireTime().AsTime(); {
		case now.After(expires.Add(tokenKept)):
			if err := joinTokens.Delete(tx, row.Key); err != nil {
				return err
			}
		case row.Value.GetRedemption() == nil && now.Before(expires):
			open++
		}
	}
	if open >= maxOpenTokens {
		return status.Errorf(codes.ResourceExhausted,
			"%d join tokens are open, the most that there can be; use them, or wait until they expire", open)
	}
	return nil
}
