package membership

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// JoinService admits new members. It is served under entente-join/1 alone, to callers of whom nothing is
// known; any member serves it.
func (m *Manager) JoinService() ententev1.JoinServiceServer { return joinService{m: m} }

type joinService struct {
	ententev1.UnimplementedJoinServiceServer
	m *Manager
}

func (s joinService) Join(ctx context.Context, req *ententev1.JoinRequest) (*ententev1.JoinResponse, error) {
	answer, err := s.m.join(ctx, req)
	err = raftstore.StatusError(err)
	s.m.metrics.joins.WithLabelValues(status.Code(err).String()).Inc()
	return answer, err
}

// tokenKept is how long a token is kept after its expiry, so that a joiner whose answer was lost can ask
// again, and a refusal can still say what became of the token.
const tokenKept = 24 * time.Hour

// join redeems the token and brings the joiner into the cluster. Every step can be done again with the same
// request and leads to the same end.
func (m *Manager) join(ctx context.Context, req *ententev1.JoinRequest) (*ententev1.JoinResponse, error) {
	if !m.joins.Allow() {
		return nil, status.Error(codes.ResourceExhausted, "too many requests to join at the moment; try again in a second")
	}
	identity, err := checkJoin(req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// The token may have been made on another member a moment ago.
	v, err := m.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, err
	}
	if err := m.redeem(v, nil, req, identity); err != nil {
		m.Logger.Warn("a joiner was refused", "member", req.GetId(), "address", req.GetAddress(), "identity", short(identity), "error", err)
		return nil, m.auditRefusal(req, identity, err, 0)
	}
	if err := m.audit(req, identity, "", 0); err != nil {
		return nil, err
	}
	revision, err := m.Store.Update(ctx, func(tx *raftstore.Tx) error { return m.redeem(tx, tx, req, identity) })
	if err != nil {
		return nil, m.auditRefusal(req, identity, err, 0)
	}
	member := &ententev1.MemberIdentity{Id: req.GetId(), Address: req.GetAddress(), Identity: identity[:]}
	answer, _, err := m.enlistOnLeader(ctx, member)
	if err != nil {
		return nil, m.auditRefusal(req, identity, err, revision)
	}
	if err := m.audit(req, identity, "ok", revision); err != nil {
		return nil, err
	}
	m.Logger.Info("a member has joined", "member", req.GetId(), "address", req.GetAddress(), "identity", short(identity), "version", describe(req.GetVersion()))
	return &ententev1.JoinResponse{ClusterId: m.Store.ClusterID(), Members: answer.GetMembers(), Revision: answer.GetRevision()}, nil
}

// audit records one decision on a joiner.
func (m *Manager) audit(req *ententev1.JoinRequest, identity Digest, result string, revision raftstore.Revision) error {
	err := m.Audit.RecordJoin(JoinEvent{
		MemberID: req.GetId(), Identity: identity, Address: req.GetAddress(), TokenID: req.GetTokenId(), Result: result, Revision: revision,
	})
	if err != nil {
		m.Logger.Error("the audit log cannot be written: nobody is admitted until it can", "error", err)
		return status.Error(codes.Unavailable, "this member's audit log cannot be written, and what cannot be audited is not done; try another member")
	}
	return nil
}

// auditRefusal records why a joiner was not admitted, and returns that reason.
func (m *Manager) auditRefusal(req *ententev1.JoinRequest, identity Digest, why error, revision raftstore.Revision) error {
	if err := m.audit(req, identity, status.Convert(why).Message(), revision); err != nil {
		return err
	}
	return why
}

func (m *Manager) enlistOnLeader(ctx context.Context, member *ententev1.MemberIdentity) (answer *ententev1.EnlistResponse, tries int, err error) {
	tries, err = m.onLeader(ctx,
		func(ctx context.Context) (err error) {
			answer, err = m.enlist(ctx, member)
			return err
		},
		func(ctx context.Context, leader ententev1.MemberServiceClient) (err error) {
			answer, err = leader.Enlist(ctx, &ententev1.EnlistRequest{Member: member})
			return err
		})
	return answer, tries, err
}

// checkJoin refuses a request that no joiner sends.
func checkJoin(req *ententev1.JoinRequest) (Digest, error) {
	const maxSecret = 64
	if err := errors.Join(
		CheckID(req.GetId()), CheckAddress(req.GetAddress()),
		checkName("region", req.GetRegion()), checkName("zone", req.GetZone()), checkName("version", req.GetVersion()),
		checkName("cluster name", req.GetClusterName()), checkName("home trust domain", req.GetHomeTrustDomain()),
	); err != nil {
		return Digest{}, err
	}
	if len(req.GetTokenId()) != 2*tokenIDBytes || len(req.GetTokenSecret()) > maxSecret {
		return Digest{}, errors.New("the token's id or secret is malformed")
	}
	return parseIdentityCertificate(req.GetIdentityCertificate())
}

// redeem decides on a joiner and, given a transaction, binds its id and key to the token and stores its row.
func (m *Manager) redeem(r raftstore.Reader, tx *raftstore.Tx, req *ententev1.JoinRequest, identity Digest) error {
	row, _, err := joinTokens.Get(r, req.GetTokenId())
	if err != nil {
		return err
	}
	now := m.Now()
	// Whoever has no token is told nothing of the cluster.
	if err := redeemable(row.Value, req.GetTokenSecret(), req.GetId(), identity, now); err != nil {
		return err
	}
	rows, err := Members.List(r, "")
	if err != nil {
		return err
	}
	inUse := uint32(raftstore.CommandVersion)
	known := false
	for _, member := range rows {
		inUse = min(inUse, member.Value.GetCommandVersion())
		known = known || member.Key == req.GetId()
	}
	facts := joinFacts{req.GetClusterName(), req.GetHomeTrustDomain(), req.GetVersion(), req.GetCommandVersion()}
	if err := compatible(m.ClusterName, m.HomeTrustDomain, facts, inUse); err != nil {
		return err
	}
	if err := admissible(rows, req.GetId(), identity); err != nil {
		return err
	}
	spent := row.Value.GetRedemption() != nil
	if spent && !known {
		return status.Errorf(codes.PermissionDenied, "member %s joined with this token before and was removed since; empty its data folder and make a new token with `entente cluster join-token`", req.GetId())
	}
	if tx == nil || spent {
		return nil
	}
	row.Value.Redemption = &statev1.Redemption{MemberId: req.GetId(), Identity: identity[:], Time: timestamppb.New(now)}
	return errors.Join(
		joinTokens.Put(tx, req.GetTokenId(), row.Value),
		Members.Put(tx, req.GetId(), &statev1.Member{
			Id: req.GetId(), Region: req.GetRegion(), Zone: req.GetZone(), Address: req.GetAddress(), Identity: identity[:],
			Version: req.GetVersion(), CommandVersion: req.GetCommandVersion(), JoinTime: timestamppb.New(now),
		}))
}
