package authority

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

// authorityService serves entente.v1.AuthorityService.
type authorityService struct {
	ententev1.UnimplementedAuthorityServiceServer
	m *Manager
}

// AuthorityService returns the service that shows and rotates authorities. Who may call it is decided before it is called.
func (m *Manager) AuthorityService() ententev1.AuthorityServiceServer { return &authorityService{m: m} }

// ListAuthorities lists the authorities of one hosted domain or of all, of every member, each with what it waits for.
func (s *authorityService) ListAuthorities(ctx context.Context, r *ententev1.ListAuthoritiesRequest) (*ententev1.ListAuthoritiesResponse, error) {
	view, err := s.m.view(ctx, r.GetRead())
	if err != nil {
		return nil, err
	}
	domains, err := s.m.named(view, r.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	response := &ententev1.ListAuthoritiesResponse{Revision: uint64(view.Revision())}
	for _, domain := range domains {
		situation, rows, err := s.m.situation(view, domain, s.m.config.Now())
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		situation.Peers = s.m.peersOf(ctx, domain.GetTrustDomain(), situation, true)
		for _, row := range rows {
			message, err := authorityMessage(situation, row)
			if err != nil {
				return nil, raftstore.StatusError(err)
			}
			response.Authorities = append(response.Authorities, message)
		}
	}
	return response, nil
}

// RotateAuthorities counts one more rotation; every member answers to it by itself. The duration is that of the
// domain that takes longest.
func (s *authorityService) RotateAuthorities(ctx context.Context, r *ententev1.RotateAuthoritiesRequest) (*ententev1.RotateAuthoritiesResponse, error) {
	revision, expected, err := s.ask(ctx, r.GetTrustDomain(), func(tx *raftstore.Tx, domain *statev1.Domain) (time.Duration, error) {
		return s.m.rotate(tx, domain, r.GetAnchors())
	})
	if err != nil {
		return nil, err
	}
	return &ententev1.RotateAuthoritiesResponse{Revision: uint64(revision), ExpectedDuration: durationpb.New(expected)}, nil
}

// ask writes down a request that every member answers to by itself, for the domain of that name or for all, and says how long
// the one takes that takes longest.
func (s *authorityService) ask(ctx context.Context, name string, one func(*raftstore.Tx, *statev1.Domain) (time.Duration, error)) (revision raftstore.Revision, longest time.Duration, err error) {
	revision, err = s.m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		longest = 0
		domains, err := s.m.named(tx, name)
		if err != nil {
			return err
		}
		for _, domain := range domains {
			takes, err := one(tx, domain)
			if err != nil {
				return err
			}
			longest = max(longest, takes)
		}
		return nil
	})
	if err != nil {
		return 0, 0, raftstore.StatusError(err)
	}
	return revision, longest, nil
}

func (m *Manager) rotate(tx *raftstore.Tx, domain *statev1.Domain, anchors bool) (time.Duration, error) {
	td := domain.GetTrustDomain()
	situation, _, err := m.situation(tx, domain, m.config.Now())
	if err != nil {
		return 0, err
	}
	asked := situation.Rotations
	row := &statev1.Rotation{TrustDomain: td, Rotation: asked.Last + 1, AnchorRotation: asked.Anchors, Reserve: asked.Reserve, RequestTime: timestamppb.New(situation.Now)}
	if anchors {
		row.AnchorRotation = row.Rotation
	}
	return plan.RotationTakes(situation), table.Rotations.Put(tx, td, row)
}

// named returns the hosted domain of that name, or all of them for the empty name.
func (m *Manager) named(r raftstore.Reader, name string) ([]*statev1.Domain, error) {
	if name == "" {
		var all []*statev1.Domain
		for row, err := range table.Domains.All(r, "") {
			if err != nil {
				return nil, raftstore.StatusError(err)
			}
			all = append(all, row.Value)
		}
		return all, nil
	}
	td, err := parseDomainName(name)
	if err != nil {
		return nil, err
	}
	row, ok, err := table.Domains.Get(r, td.Name())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !ok {
		return nil, notHosted(td.Name())
	}
	return []*statev1.Domain{row.Value}, nil
}

func authorityMessage(s plan.Situation, row *statev1.Authority) (*ententev1.Authority, error) {
	message := &ententev1.Authority{
		Id:           row.GetId(),
		TrustDomain:  row.GetTrustDomain(),
		Member:       row.GetMember(),
		Kind:         ententev1.AuthorityKind(row.GetKind()),
		State:        ententev1.AuthorityState(row.GetState()),
		KeyId:        row.GetId(),
		NotBefore:    row.GetNotBefore(),
		NotAfter:     row.GetNotAfter(),
		PrepareTime:  row.GetPrepareTime(),
		ActivateTime: row.GetActivateTime(),
		RetireTime:   row.GetRetireTime(),
		TaintTime:    row.GetTaintTime(),
		RevokeTime:   row.GetRevokeTime(),
	}
	if plan.Kind(row.GetKind()) == plan.X509 {
		anchor, err := table.AnchorOf(row)
		if err != nil {
			return nil, err
		}
		message.KeyId = svid.AnchorID(anchor)
	}
	at, waits := plan.Wait(s, table.AuthorityOf(row))
	if !at.Equal(plan.Never) {
		message.NextTime = timestamppb.New(at)
	}
	message.WaitsFor = waits
	message.Unacknowledged = unacknowledgedMessages(s, table.AuthorityOf(row))
	return message, nil
}
