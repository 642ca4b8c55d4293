package membership

import (
	"context"
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
	"github.com/ententehq/entente/raftstore/membership/address"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

const (
	// joinsEach and joinsAtOnce limit the rate of joins, whichever the callers: no cluster needs more, and each costs a
	// round through the leader.
	joinsEach   = rate.Limit(5)
	joinsAtOnce = 20
)

// Auditor audits joins, whose callers no other room authenticates. Its methods are called from any goroutine.
type Auditor interface {
	// AuditJoin runs admit, which adds a joiner to the cluster or to those that await approval, between two audit
	// lines. If the first line cannot be written, it does not run admit and returns an error with a gRPC status.
	// Otherwise it returns the error of admit.
	AuditJoin(j Joiner, admit func() (Admission, error)) error
	// AuditRefusal writes an audit line on a joiner that is refused before anything is done for it.
	AuditRefusal(j Joiner, refusal error)
	// AuditRemoval runs remove, by which the leader removes a dead member by itself, between two audit lines. If the
	// first line cannot be written, it does not run remove and returns an error.
	AuditRemoval(id, why string, remove func() (raftstore.Revision, error)) error
}

// Joiner is a member that requests to join the cluster, as its request describes it.
type Joiner struct {
	MemberID string
	Identity memberid.Digest
	Address  string
	TokenID  string
}

// Admission is what became of a joiner that was not refused.
type Admission struct {
	// Revision is that of the joiner's row.
	Revision raftstore.Revision
	// Awaiting is set if an administrator has to approve the joiner first.
	Awaiting bool
}

// joins admits the members that present a join token.
type joins struct {
	store   *raftstore.Store
	cluster join.Cluster
	auditor Auditor
	now     func() time.Time
	log     hclog.Logger
	metrics *metrics
	limit   *rate.Limiter
	leader  *leaderClient
	changes *changes
}

// joinService serves joiners, and members that look for the others.
type joinService struct {
	ententev1.UnimplementedJoinServiceServer
	joins     *joins
	addresses *address.Exchange
}

// ExchangeAddresses implements JoinService.
func (s joinService) ExchangeAddresses(
	_ context.Context, req *ententev1.ExchangeAddressesRequest,
) (*ententev1.ExchangeAddressesResponse, error) {
	return s.addresses.Serve(req)
}

// Join implements JoinService.
func (s joinService) Join(ctx context.Context, req *ententev1.JoinRequest) (*ententev1.JoinResponse, error) {
	answer, err := s.joins.join(ctx, req)
	err = raftstore.StatusError(err)
	s.joins.metrics.joins.WithLabelValues(status.Code(err).String()).Inc()
	return answer, err
}

// join redeems the token and, once the joiner is approved, adds it to the cluster. Every step can be repeated with the
// same request and has the same result.
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
	joiner := Joiner{MemberID: req.GetId(), Identity: identity, Address: req.GetAddress(), TokenID: req.GetTokenId()}
	state, err := j.redeem(v, nil, req, identity)
	if err != nil {
		j.log.Warn("a joiner was refused", "member", req.GetId(), "address", req.GetAddress(),
			"identity", memberid.Short(identity), "error", err)
		j.auditor.AuditRefusal(joiner, err)
		return nil, err
	}
	if state == join.Awaiting { // nothing has changed since its first request, which was audited
		return &ententev1.JoinResponse{AwaitingApproval: true}, nil
	}
	var answer *ententev1.AddServerResponse
	err = j.auditor.AuditJoin(joiner, func() (Admission, error) {
		revision, err := j.store.Update(ctx, func(tx *raftstore.Tx) (err error) {
			state, err = j.redeem(tx, tx, req, identity)
			return err
		})
		if err != nil || state == join.Awaiting {
			return Admission{revision, state == join.Awaiting}, err
		}
		answer, err = j.addServer(ctx, &ententev1.MemberIdentity{
			Id: req.GetId(), Address: req.GetAddress(), Identity: identity[:],
		})
		return Admission{Revision: revision}, err
	})
	if err != nil {
		return nil, err
	}
	if state == join.Awaiting {
		j.log.Info("a joiner waits for the approval of an administrator: approve it with `entente cluster approve`, "+
			"or reject it with `entente cluster join-token revoke`", "member", req.GetId(),
			"address", req.GetAddress(), "identity", memberid.Short(identity))
		return &ententev1.JoinResponse{AwaitingApproval: true}, nil
	}
	j.log.Info("a member has joined", "member", req.GetId(), "address", req.GetAddress(),
		"identity", memberid.Short(identity), "version", join.DescribeVersion(req.GetVersion()))
	return &ententev1.JoinResponse{
		ClusterId: j.store.ClusterID(), Members: answer.GetMembers(), Revision: answer.GetRevision(),
	}, nil
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

// redeem decides on a joiner and, given a transaction, binds its key to the token. It returns the state of the token
// before, or in a transaction after that. A token with automatic approval makes the joiner a member at once.
func (j *joins) redeem(
	r raftstore.Reader, tx *raftstore.Tx, req *ententev1.JoinRequest, identity memberid.Digest,
) (join.TokenState, error) {
	row, _, err := joinTokens.Get(r, req.GetTokenId())
	if err != nil {
		return 0, err
	}
	now := j.now()
	// A caller without a token learns nothing of the cluster.
	if err := join.Redeemable(row.Value, req.GetTokenSecret(), req.GetId(), identity, now); err != nil {
		return 0, err
	}
	known, err := j.admissible(r, req, identity)
	if err != nil {
		return 0, err
	}
	state := join.StateOf(row.Value)
	if state == join.Approved && !known {
		return 0, status.Errorf(codes.PermissionDenied, "member %s joined with this token before and was removed "+
			"since; "+
			"empty its data folder and make a new token with `entente cluster join-token %s`", req.GetId(), req.GetId())
	}
	if state == join.Open && !row.Value.GetAutoApprove() {
		if err := roomToWait(r, now); err != nil {
			return 0, err
		}
	}
	if tx == nil || state != join.Open {
		return state, nil
	}
	row.Value.Redemption = &statev1.Redemption{
		MemberId: req.GetId(), Identity: identity[:], Time: timestamppb.New(now), Region: req.GetRegion(),
		Zone: req.GetZone(), Address: req.GetAddress(), Version: req.GetVersion(),
		CommandVersion: req.GetCommandVersion(),
	}
	if row.Value.GetAutoApprove() {
		return join.Approved, makeMember(tx, row.Key, row.Value, now)
	}
	return join.Awaiting, joinTokens.Put(tx, row.Key, row.Value)
}

// roomToWait decides whether one more joiner may wait for approval.
func roomToWait(r raftstore.Reader, now time.Time) error {
	rows, err := live(r, now)
	if err != nil {
		return err
	}
	var awaiting []string
	for _, row := range rows {
		if join.StateOf(row.Value) == join.Awaiting {
			awaiting = append(awaiting, row.Value.GetMemberId())
		}
	}
	return join.RoomToWait(awaiting)
}

// admissible decides whether a joiner fits the cluster and its present members. known reports whether one of them has
// its ID and identity key.
func (j *joins) admissible(
	r raftstore.Reader, req *ententev1.JoinRequest, identity memberid.Digest,
) (known bool, _ error) {
	rows, err := Members.List(r, "")
	if err != nil {
		return false, err
	}
	cluster := j.cluster
	cluster.CommandVersion, _ = lowestCommandVersion(rows)
	for _, m := range rows {
		known = known || m.Key == req.GetId()
	}
	if err := join.Compatible(cluster, req); err != nil {
		return false, err
	}
	return known, join.Admissible(rows, req.GetId(), identity)
}

// makeMember makes the joiner that redeemed a token a member. Nothing else makes a member, except that the first member
// of a cluster writes its own row.
func makeMember(tx *raftstore.Tx, tokenID string, redeemed *statev1.JoinToken, now time.Time) error {
	r := redeemed.GetRedemption()
	redeemed.ApproveTime = timestamppb.New(now)
	return errors.Join(
		joinTokens.Put(tx, tokenID, redeemed),
		Members.Put(tx, r.GetMemberId(), &statev1.Member{
			Id: r.GetMemberId(), Region: r.GetRegion(), Zone: r.GetZone(), Address: r.GetAddress(),
			Identity: r.GetIdentity(), Version: r.GetVersion(), CommandVersion: r.GetCommandVersion(),
			JoinTime: timestamppb.New(now), NonVoter: redeemed.GetNonVoter(),
		}))
}
