package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/raftstore"
)

var (
	errNoAnchor = errors.New("there is no anchor")
)

// steered is what an operator's call did to a domain.
type steered struct {
	revision raftstore.Revision
	domain   *statev1.Domain
	carried  []done
	// before and after are the situations around it, without what happened since.
	before, after plan.Situation
	rows          []*statev1.Authority // after
}

// steer carries out what decide says of a domain's authorities, in one transaction.
func (m *Manager) steer(ctx context.Context, name string, decide func(tx *raftstore.Tx, domain *statev1.Domain, s plan.Situation) ([]plan.Action, error)) (steered, error) {
	var did steered
	td, err := parseDomainName(name)
	if err != nil {
		return did, err
	}
	did.revision, err = m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		did = steered{}
		now, err := m.saneNow() // asked here, since the clock can be set on the way
		if err != nil {
			return status.Errorf(codes.FailedPrecondition, "the clock of member %s is not known to be that of the others, and it would write down a wrong time; ask another member", m.config.Member)
		}
		row, ok, err := table.Domains.Get(tx, td.Name())
		if err != nil {
			return err
		}
		if !ok {
			return notHosted(td.Name())
		}
		did.domain = row.Value
		if did.before, _, err = m.situation(tx, did.domain, now); err != nil {
			return err
		}
		actions, err := decide(tx, did.domain, did.before)
		if err != nil {
			return err
		}
		if did.carried, err = m.carryOutAll(tx, did.domain, actions, now); err != nil {
			return err
		}
		did.after, did.rows, err = m.situation(tx, did.domain, now)
		return err
	})
	if err != nil {
		return did, steerError(err)
	}
	m.follows(ctx, did.revision)
	if err := m.report(td.Name(), did.carried, did.revision); err != nil {
		return did, status.Errorf(codes.Unavailable, "it was done at revision %d, but not all of it is in the audit log: %v", did.revision, err)
	}
	return did, nil
}

// follows waits, for a moment at most, until this member signs from a state as new as the revision: whoever is told that an
// authority signs no more is not handed anything of it here from then on.
func (m *Manager) follows(ctx context.Context, revision raftstore.Revision) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for {
		changed := m.changed.next()
		if m.signing.Load().revision >= revision || waitFor(ctx, changed, lookAgain) != nil {
			return
		}
	}
}

// refused is a plan's refusal, which is no failure of the store.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func refuse(actions []plan.Action, err error) ([]plan.Action, error) {
	if err != nil {
		return nil, refused{err}
	}
	return actions, nil
}

func steerError(err error) error {
	var no refused
	switch {
	case !errors.As(err, &no):
		return raftstore.StatusError(err)
	case errors.Is(err, plan.ErrNoAuthority), errors.Is(err, errNoAnchor):
		return status.Error(codes.NotFound, no.Error())
	}
	return status.Error(codes.FailedPrecondition, no.Error())
}

// messages are the authorities that were changed and are there still, as the API shows them.
func (d steered) messages() ([]*ententev1.Authority, error) {
	var messages []*ententev1.Authority
	for _, carried := range d.carried {
		i := slices.IndexFunc(d.rows, func(row *statev1.Authority) bool { return row.GetId() == carried.ID })
		if i < 0 {
			continue
		}
		message, err := authorityMessage(d.after, d.rows[i])
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		messages = append(messages, message)
	}
	return messages, nil
}

// PrepareAuthorities counts one more request for authorities in reserve; every member answers to it by itself.
func (s *authorityService) PrepareAuthorities(ctx context.Context, r *ententev1.PrepareAuthoritiesRequest) (*ententev1.PrepareAuthoritiesResponse, error) {
	revision, expected, err := s.ask(ctx, r.GetTrustDomain(), func(tx *raftstore.Tx, domain *statev1.Domain) (time.Duration, error) {
		td := domain.GetTrustDomain()
		row, _, err := table.Rotations.Get(tx, td)
		if err != nil {
			return 0, err
		}
		if row.Value == nil {
			row.Value = &statev1.Rotation{TrustDomain: td}
		}
		row.Value.Reserve++
		return table.SettingsOf(domain).Dissemination(s.m.config.Now()), table.Rotations.Put(tx, td, row.Value)
	})
	if err != nil {
		return nil, err
	}
	return &ententev1.PrepareAuthoritiesResponse{Revision: uint64(revision), ExpectedDuration: durationpb.New(expected)}, nil
}

// ActivateAuthority has a prepared authority sign at once.
func (s *authorityService) ActivateAuthority(ctx context.Context, r *ententev1.ActivateAuthorityRequest) (*ententev1.ActivateAuthorityResponse, error) {
	did, err := s.m.steer(ctx, r.GetTrustDomain(), func(_ *raftstore.Tx, _ *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
		return refuse(plan.ActivateAuthority(situation.Authorities, r.GetId(), situation.Now))
	})
	if err != nil {
		return nil, err
	}
	response := &ententev1.ActivateAuthorityResponse{Revision: uint64(did.revision)}
	if response.Authorities, err = did.messages(); err != nil {
		return nil, err
	}
	a, err := plan.Find(did.before.Authorities, r.GetId())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if did.before.Now.Before(a.Ready) {
		response.Remarks = append(response.Remarks, fmt.Sprintf("Not everybody can know it yet: until %s, who has not read the bundle since it was published refuses what it signs.", clock(a.Ready)))
	}
	did.before.Peers = s.m.peersOf(ctx, r.GetTrustDomain(), did.before, true)
	if peers := did.before.PeersSentence(a); peers != "" {
		response.Remarks = append(response.Remarks, peers)
	}
	response.Remarks = append(response.Remarks, silent(a, s.m.heard(), "others sign until it is back, if there are any")...)
	return response, nil
}

// TaintAuthority stops an authority.
func (s *authorityService) TaintAuthority(ctx context.Context, r *ententev1.TaintAuthorityRequest) (*ententev1.TaintAuthorityResponse, error) {
	did, err := s.m.steer(ctx, r.GetTrustDomain(), func(_ *raftstore.Tx, _ *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
		return refuse(plan.TaintAuthority(situation.Authorities, r.GetId()))
	})
	if err != nil {
		return nil, err
	}
	response := &ententev1.TaintAuthorityResponse{Revision: uint64(did.revision)}
	if response.Authorities, err = did.messages(); err != nil {
		return nil, err
	}
	alive := s.m.heard()
	response.Remarks = append(taintRemarks(did.before, did.after, r.GetId(), alive), cutOffs(did.before, did.ids(plan.Taint), alive)...)
	return response, nil
}

// RevokeAuthority stops an authority and takes what verifies it out of the bundle, or does so with an anchor.
func (s *authorityService) RevokeAuthority(ctx context.Context, r *ententev1.RevokeAuthorityRequest) (*ententev1.RevokeAuthorityResponse, error) {
	var decide func(*raftstore.Tx, *statev1.Domain, plan.Situation) ([]plan.Action, error)
	switch what := r.GetWhat().(type) {
	case *ententev1.RevokeAuthorityRequest_Id:
		decide = func(_ *raftstore.Tx, _ *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
			return refuse(plan.RevokeAuthority(situation.Authorities, what.Id))
		}
	case *ententev1.RevokeAuthorityRequest_Anchor:
		decide = func(tx *raftstore.Tx, domain *statev1.Domain, situation plan.Situation) ([]plan.Action, error) {
			return s.m.takeAnchor(tx, domain, situation, strings.ToLower(what.Anchor), r.GetForce())
		}
	default:
		return nil, status.Error(codes.InvalidArgument, "neither id nor anchor is given; name one")
	}
	did, err := s.m.steer(ctx, r.GetTrustDomain(), decide)
	if err != nil {
		return nil, err
	}
	told := s.m.tellUpstream(ctx, did)
	response := &ententev1.RevokeAuthorityResponse{Revision: uint64(did.revision)}
	if response.Authorities, err = did.messages(); err != nil {
		return nil, err
	}
	alive := s.m.heard()
	response.Remarks = slices.Concat(revokeRemarks(did, alive), told, cutOffs(did.before, did.ids(plan.Revoke), alive))
	return response, nil
}

// takeAnchor revokes an anchor of the domain's bundle and all below it.
func (m *Manager) takeAnchor(tx *raftstore.Tx, domain *statev1.Domain, s plan.Situation, keyID string, force bool) ([]plan.Action, error) {
	td := domain.GetTrustDomain()
	published, err := hostedBundle(tx, td)
	if err != nil || published == nil {
		return nil, err
	}
	var actions []plan.Action
	found := false
	for _, anchor := range published.X509Authorities() {
		if svid.AnchorID(anchor) != keyID {
			continue
		}
		found = true
		below, err := plan.RevokeAnchor(s.Authorities, string(anchor.Raw), force)
		if err != nil {
			return nil, refused{err}
		}
		actions = append(actions, below...)
		if err := table.PutRevokedAnchor(tx, td, anchor, s.Now); err != nil {
			return nil, err
		}
	}
	if !found {
		if found, err = refuseHeld(tx, td, keyID, s.Now); found || err != nil {
			return nil, err
		}
		return nil, refused{fmt.Errorf("the bundle of %s holds no anchor %q; 'entente authority list --output json' shows them as key_id", td, keyID)}
	}
	if len(actions) > 0 {
		return actions, markAnchors(tx, td, actions)
	}
	_, err = m.publish(tx, domain, s.Now) // nothing stands below it
	return nil, err
}

// refuseHeld revokes an anchor that waits for approval: it never will be approved.
func refuseHeld(tx *raftstore.Tx, td, keyID string, now time.Time) (found bool, err error) {
	rows, err := table.ListUpstreamAnchors(tx, td)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		c, err := x509.ParseCertificate(row.GetCertificate())
		if err != nil {
			return false, fmt.Errorf("an anchor of the upstream of %s: %w", td, err)
		}
		if svid.AnchorID(c) != keyID {
			continue
		}
		found = true
		if err := table.PutRevokedAnchor(tx, td, c, now); err != nil {
			return false, err
		}
	}
	return found, nil
}

// markAnchors notes with authorities of an upstream that their anchor was revoked.
func markAnchors(tx *raftstore.Tx, td string, actions []plan.Action) error {
	for _, action := range actions {
		key := table.AuthorityKey(td, action.ID)
		row, ok, err := table.Authorities.Get(tx, key)
		if err != nil || !ok {
			return err
		}
		row.Value.AnchorRevoked = true
		if err := table.Authorities.Put(tx, key, row.Value); err != nil {
			return err
		}
	}
	return nil
}

// ids are the authorities with which the verb was carried out.
func (d steered) ids(verb plan.Verb) (ids []string) {
	for _, carried := range d.carried {
		if carried.Do == verb {
			ids = append(ids, carried.ID)
		}
	}
	return ids
}

// sequence is that of the bundle which was published, 0 if none.
func (d steered) sequence() uint64 {
	for _, carried := range d.carried {
		if carried.Sequence > 0 {
			return carried.Sequence
		}
	}
	return 0
}

// heard are the members that are heard from. It is a hint, and its lack no reason to fail what was done.
func (m *Manager) heard() []string {
	alive, err := m.config.Alive(m.config.Store.View())
	if err != nil {
		m.log.Warn("cannot read who is alive", "error", err)
	}
	return alive
}

// silent says that the member of an authority is not heard from, and what that means.
func silent(a plan.Authority, alive []string, consequence string) []string {
	if slices.Contains(alive, a.Member) {
		return nil
	}
	return []string{fmt.Sprintf("Member %s is not heard from: %s.", a.Member, consequence)}
}

// cutOffs say of each of the authorities, which signed until now, that its member may not have heard of its end.
func cutOffs(before plan.Situation, ids, alive []string) (remarks []string) {
	for _, a := range before.Authorities {
		if slices.Contains(ids, a.ID) && a.State == plan.Active {
			remarks = append(remarks, silent(a, alive, cutOff(before))...)
		}
	}
	return remarks
}

// cutOff is what a member that is cut off can do at most.
func cutOff(s plan.Situation) string {
	return fmt.Sprintf("if it runs and is cut off, it can sign until %s (signing_grace is %v)", clock(s.Now.Add(s.Grace)), s.Grace)
}

// clock is a moment in a sentence.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
