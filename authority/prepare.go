package authority

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/raftstore"
)

// tendPrepared prepares the authorities that this member's domains need next, except for those that tendJWT does. It ends a
// round in which the upstream has failed for too long, and begins the next one where it ended.
func (m *Manager) tendPrepared(ctx context.Context) (next time.Time, err error) {
	domains, next, err := m.hosted(ctx)
	if err != nil {
		return plan.Never, err
	}
	var errs []error
	began := time.Now()
	for _, td := range from(domains, m.resume) {
		if len(errs) > 0 && time.Since(began) > lastRetry {
			m.resume = td
			return plan.Never, errors.Join(errs...)
		}
		at, err := m.prepareIn(ctx, td, false)
		if err != nil {
			errs = append(errs, fmt.Errorf("authorities of %s: %w", td, err))
		}
		next = plan.Sooner(next, at)
	}
	m.resume = ""
	m.making.Lock()
	defer m.making.Unlock()
	at, err := m.sweep(ctx)
	return plan.Sooner(next, at), errors.Join(append(errs, err)...)
}

// tendJWT prepares the JWT authorities of this member's domains. They need no upstream, and so wait for none that fails or hangs.
func (m *Manager) tendJWT(ctx context.Context) (next time.Time, err error) {
	domains, next, err := m.hosted(ctx)
	if err != nil {
		return plan.Never, err
	}
	m.making.Lock()
	defer m.making.Unlock()
	var errs []error
	for _, td := range domains {
		at, err := m.prepareIn(ctx, td, true)
		if err != nil {
			errs = append(errs, fmt.Errorf("JWT authorities of %s: %w", td, err))
		}
		next = plan.Sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// together says whether a domain is to begin with authorities of all kinds in one bundle: it has none yet, and nothing keeps
// the upstream from signing the first one.
func (m *Manager) together(s plan.Situation, td string) bool {
	_, trouble := m.troubles.get(td, plan.X509)
	return len(s.Authorities) == 0 && !trouble
}

// from are the names from one on, in order, and then those before it.
func from(names []string, first string) []string {
	i := slices.IndexFunc(names, func(name string) bool { return name >= first })
	if i < 0 {
		return names
	}
	return append(slices.Clone(names[i:]), names[:i]...)
}

// prepareIn prepares what the plan for a domain asks for, and says when it will: the JWT authorities, or the rest, which holds
// JWT authorities only where a domain begins with all kinds together.
func (m *Manager) prepareIn(ctx context.Context, td string, jwt bool) (time.Time, error) {
	for range maxRounds {
		view := m.config.Store.View()
		domain, ok, err := table.Domains.Get(view, td)
		if err != nil || !ok {
			return plan.Never, err
		}
		s, _, err := m.situation(view, domain.Value, m.config.Now())
		if err != nil {
			return plan.Never, err
		}
		actions, next := plan.Next(s)
		together := m.together(s, td)
		actions = slices.DeleteFunc(actions, func(a plan.Action) bool { return a.Do != plan.Prepare || (a.Kind == plan.JWT && !together) != jwt })
		if len(actions) == 0 {
			return next, nil
		}
		// The intent comes first: with an audit log that cannot be written no key is made, and no upstream is asked to sign.
		if err := m.intend(td); err != nil {
			return plan.Never, err
		}
		candidates, prepareErr := m.prepare(ctx, s, domain.Value, actions)
		if len(candidates) == 0 {
			return plan.Never, errors.Join(prepareErr, m.failed(td, prepareErr))
		}
		updateErr := m.carry(ctx, td, func(tx *raftstore.Tx) ([]done, error) { return m.carryOut(tx, td, candidates, nil) })
		m.unswept.Store(true)
		m.changed.fire()
		if err := errors.Join(prepareErr, updateErr, m.discard(ctx, candidates, updateErr)); err != nil {
			return plan.Never, err
		}
	}
	return m.config.Now().Add(lastRetry), nil
}

// prepare makes the keys that the plan asks for, and has them signed. The keys are on disk when it returns. It ends with the first
// failure: once that of the upstream is known, tendJWT waits for it no more.
func (m *Manager) prepare(ctx context.Context, s plan.Situation, domain *statev1.Domain, actions []plan.Action) (map[plan.Kind]candidate, error) {
	made := map[plan.Kind]candidate{}
	for _, action := range actions {
		row, err := m.newAuthority(ctx, s, domain, action)
		if err != nil {
			err = fmt.Errorf("prepare an authority for %s: %w", action.Kind, err)
		}
		m.outcome(ctx, domain.GetTrustDomain(), action.Kind, err)
		if err != nil {
			return made, err
		}
		made[action.Kind] = candidate{row, action.NewAnchor, s.Now}
	}
	return made, nil
}

// outcome takes note of how an attempt to prepare an authority ended. Those who wait only while there is no failure are told of
// the first one.
func (m *Manager) outcome(ctx context.Context, td string, kind plan.Kind, err error) {
	if ctx.Err() == nil && m.troubles.set(td, kind, err) {
		m.changed.fire()
	}
}

// discard deletes the keys of candidates when it is certain that their transaction was not made.
func (m *Manager) discard(ctx context.Context, candidates map[plan.Kind]candidate, err error) error {
	if !errors.Is(err, raftstore.ErrNoLeader) && !errors.Is(err, raftstore.ErrBusy) && !errors.Is(err, raftstore.ErrTooLarge) && !errors.Is(err, errClock) {
		return nil // sweep finds those that were not needed
	}
	var errs []error
	for _, c := range candidates {
		errs = append(errs, m.keys.Delete(ctx, c.row.GetId()))
	}
	return errors.Join(errs...)
}

func (m *Manager) newAuthority(ctx context.Context, s plan.Situation, domain *statev1.Domain, action plan.Action) (*statev1.Authority, error) {
	td, err := spiffeid.TrustDomainFromString(domain.GetTrustDomain())
	if err != nil {
		return nil, err
	}
	id := newAuthorityID()
	key, err := m.keys.Create(ctx, id)
	if err != nil {
		return nil, err
	}
	row := &statev1.Authority{
		Id: id, TrustDomain: td.Name(), Member: m.config.Member,
		Kind:  statev1.AuthorityKind(action.Kind),
		State: statev1.AuthorityState_AUTHORITY_STATE_PREPARED,
	}
	if action.Kind == plan.JWT {
		row.NotBefore, row.NotAfter = timestamppb.New(s.Now), timestamppb.New(s.Now.Add(s.Settings.CATTL))
		row.JwtKey, err = x509.MarshalPKIXPublicKey(key.Public())
		return row, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a request for a signing certificate: %w", err), m.keys.Delete(ctx, id))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("make a request for a signing certificate: %w", err)
	}
	refused, err := m.refusedAnchor(m.config.Store.View(), td.Name())
	if err != nil {
		return nil, errors.Join(err, m.keys.Delete(ctx, id))
	}
	signed, err := m.upstream.SignCA(ctx, upstream.Request{
		TrustDomain: td, CSR: csr, Now: s.Now, TTL: s.Settings.CATTL, NewAnchor: action.NewAnchor, Refused: refused,
		Failed: func(err error) { m.outcome(ctx, td.Name(), plan.X509, err) },
	})
	if err == nil {
		err = upstream.Check(td, key.Public(), signed, s.Now, s.Settings.X509SVIDTTL)
	}
	if err == nil {
		err = m.admitAnchor(ctx, td, signed.Anchors[0])
	}
	if err != nil {
		return nil, errors.Join(err, m.keys.Delete(ctx, id))
	}
	m.second.ca(signed)
	_, row.UpstreamAnchor = m.upstream.(upstream.Revoker)
	// The moment that the certificate names as its beginning does not count where it lies in the past: of a short life it would
	// make half be over at once.
	row.NotBefore, row.NotAfter = timestamppb.New(latest(s.Now, signed.Chain[0].NotBefore)), timestamppb.New(signed.Chain[0].NotAfter)
	for _, c := range signed.Chain {
		row.Chain = append(row.Chain, c.Raw)
	}
	anchors := signed.Anchors
	if m.anchors != nil {
		anchors = anchors[:1] // the others are in the bundle by themselves, for as long as the upstream has them
	}
	for _, c := range anchors {
		row.Anchors = append(row.Anchors, c.Raw)
	}
	return row, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// newAuthorityID draws 80 bits, in letters and digits that do as a file name, a kid and a word on a command line.
func newAuthorityID() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the program instead
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}
