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

	"github.com/cenkalti/backoff/v5"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// firstRetry and lastRetry bound the wait after a failure: short enough that an election costs nothing, long
	// enough that an upstream that is down for hours is not stormed.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second

	// clockCheck is how often a member whose clock is not known to be right looks again.
	clockCheck = 250 * time.Millisecond

	// maxRounds bounds how often one look at a domain plans again. Three suffice: prepare, activate, nothing more.
	maxRounds = 8
)

func newBackoff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.RandomizationFactor = firstRetry, lastRetry, 0.5
	return b
}

// tend runs once at each change of the tables and at the moments that once itself asks for, until ctx ends. After a
// failure it waits longer each time.
func (m *Manager) tend(ctx context.Context, what string, once func(context.Context) (time.Time, error)) error {
	retry := newBackoff()
	var complained complaint
	for {
		changed := m.changed.next()
		next, err := once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := until(next, m.config.Now())
		if err != nil {
			wait, changed = retry.NextBackOff(), nil
			m.metrics.failures.WithLabelValues("tend").Inc()
			if complained.worth(oneLine(err), time.Now()) {
				m.log.Warn("could not "+what+"; trying again", "error", oneLine(err), "in", wait)
			}
		} else {
			retry.Reset()
			if complained.over() {
				m.log.Info("could " + what + " again")
			}
		}
		if err := waitFor(ctx, changed, wait); err != nil {
			return err
		}
	}
}

// oneLine is the text of an error for a log, where one event is one line; [errors.Join] puts each error on a line of its own.
func oneLine(err error) string { return strings.Join(strings.Split(err.Error(), "\n"), "; ") }

// hosted are the hosted domains, once this member may begin and end authorities of them; else when to ask again.
func (m *Manager) hosted(ctx context.Context) (domains []string, next time.Time, err error) {
	if !m.config.Contact.ClockSane() {
		return nil, m.config.Now().Add(clockCheck), nil // it must not end or begin anything by its clock
	}
	// A member that founds a cluster, or joins one, is written down a moment after it starts. Until then its authorities
	// would be ended as those of a lost member; and one that was removed must not begin any.
	members, err := m.config.Members(m.config.Store.View())
	if err != nil || !slices.Contains(members, m.config.Member) {
		return nil, never, err
	}
	if err := m.ensureHome(ctx); err != nil {
		return nil, never, err
	}
	rows, err := Domains.List(m.config.Store.View(), "")
	for _, row := range rows {
		domains = append(domains, row.Key)
	}
	return domains, never, err
}

// tendOwn takes this member's authorities of every hosted domain through their states. It waits for nobody else: an upstream
// that hangs must not keep an authority that is there from becoming active, or one that has expired from being ended.
func (m *Manager) tendOwn(ctx context.Context) (next time.Time, err error) {
	domains, next, err := m.hosted(ctx)
	if err != nil {
		return never, err
	}
	var errs []error
	for _, td := range domains {
		at, err := m.tendDomain(ctx, td)
		if err != nil {
			// The other domains do not wait for this one.
			errs = append(errs, fmt.Errorf("authorities of %s: %w", td, err))
		}
		next = sooner(next, at)
	}
	return next, errors.Join(errs...)
}

// tendPrepared prepares the authorities that this member's domains need next. While the upstream fails, the JWT authorities of
// all domains come first, since they need none. It ends a round in which the upstream has failed for too long, and begins the
// next one where it ended.
func (m *Manager) tendPrepared(ctx context.Context) (next time.Time, err error) {
	domains, next, err := m.hosted(ctx)
	if err != nil {
		return never, err
	}
	var errs []error
	prepare := func(td string, kinds ...Kind) {
		at, err := m.prepareIn(ctx, td, kinds)
		if err != nil {
			errs = append(errs, fmt.Errorf("authorities of %s: %w", td, err))
		}
		next = sooner(next, at)
	}
	if m.troubles.any(X509) {
		for _, td := range domains {
			prepare(td, JWT)
		}
	}
	began := time.Now()
	for _, td := range from(domains, m.resume) {
		if len(errs) > 0 && time.Since(began) > lastRetry {
			m.resume = td
			return never, errors.Join(errs...)
		}
		prepare(td, Kinds[:]...)
	}
	m.resume = ""
	at, err := m.sweep(ctx)
	return sooner(next, at), errors.Join(append(errs, err)...)
}

// from are the names from one on, in order, and then those before it.
func from(names []string, first string) []string {
	i := slices.IndexFunc(names, func(name string) bool { return name >= first })
	if i < 0 {
		return names
	}
	return append(slices.Clone(names[i:]), names[:i]...)
}

// ensureHome creates the home domain where it is not there.
func (m *Manager) ensureHome(ctx context.Context) error {
	home := m.config.Home.Name()
	if hosted, err := Hosts(m.config.Store.View(), home); err != nil || hosted {
		return err
	}
	_, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if hosted, err := Hosts(tx, home); err != nil || hosted {
			return err
		}
		domain := &statev1.Domain{TrustDomain: home, CreateTime: timestamppb.New(m.config.Now())}
		setSettings(domain, m.config.Defaults)
		return Domains.Put(tx, home, domain)
	})
	if err != nil {
		return fmt.Errorf("create the home domain %s: %w", home, err)
	}
	return nil
}

// tendDomain carries out plans for one domain, but for what is to be prepared, until there is nothing to do, and says when
// there will be.
func (m *Manager) tendDomain(ctx context.Context, td string) (time.Time, error) {
	for range maxRounds {
		view := m.config.Store.View()
		domain, ok, err := Domains.Get(view, td)
		if err != nil || !ok {
			return never, err
		}
		s, _, err := m.situation(view, domain.Value, m.config.Now())
		if err != nil {
			return never, err
		}
		s.Peers = m.peersOf(ctx, td, s, false)
		actions, next := Plan(s)
		if !slices.ContainsFunc(actions, func(a Action) bool { return a.Do != Prepare }) {
			return next, nil
		}
		if err := m.update(ctx, td, func(tx *raftstore.Tx) ([]done, error) { return m.carryOut(tx, td, nil, s.Peers) }); err != nil {
			return never, err
		}
	}
	return m.config.Now().Add(lastRetry), nil
}

// prepareIn prepares the authorities of some kinds that the plan for a domain asks for, and says when it will. They are
// published together, so that a new domain begins with all of them.
func (m *Manager) prepareIn(ctx context.Context, td string, kinds []Kind) (time.Time, error) {
	for range maxRounds {
		view := m.config.Store.View()
		domain, ok, err := Domains.Get(view, td)
		if err != nil || !ok {
			return never, err
		}
		s, _, err := m.situation(view, domain.Value, m.config.Now())
		if err != nil {
			return never, err
		}
		actions, next := Plan(s)
		actions = slices.DeleteFunc(actions, func(a Action) bool { return a.Do != Prepare || !slices.Contains(kinds, a.Kind) })
		if len(actions) == 0 {
			return next, nil
		}
		// The intent comes first: with an audit log that cannot be written no key is made, and no upstream is asked to sign.
		if err := m.intend(td); err != nil {
			return never, err
		}
		candidates, prepareErr := m.prepare(ctx, s, domain.Value, actions)
		if len(candidates) == 0 {
			return never, errors.Join(prepareErr, m.failed(td, prepareErr))
		}
		updateErr := m.carry(ctx, td, func(tx *raftstore.Tx) ([]done, error) { return m.carryOut(tx, td, candidates, nil) })
		if err := errors.Join(prepareErr, updateErr, m.discard(ctx, candidates, updateErr)); err != nil {
			return never, err
		}
	}
	return m.config.Now().Add(lastRetry), nil
}

// tendLost does for the leader what nobody else will.
func (m *Manager) tendLost(ctx context.Context) (next time.Time, err error) {
	if !m.config.Contact.ClockSane() {
		return m.config.Now().Add(clockCheck), nil
	}
	domains, err := Domains.List(m.config.Store.View(), "")
	if err != nil {
		return never, err
	}
	for _, domain := range domains {
		td := domain.Key
		actions, at, err := m.planForLost(m.config.Store.View(), domain.Value)
		if err != nil {
			return never, err
		}
		if len(actions) > 0 {
			if err := m.update(ctx, td, func(tx *raftstore.Tx) ([]done, error) { return m.carryOutLost(tx, td) }); err != nil {
				return never, err
			}
			if _, at, err = m.planForLost(m.config.Store.View(), domain.Value); err != nil {
				return never, err
			}
		}
		next = sooner(next, at)
	}
	return next, nil
}

// prepare makes the keys that the plan asks for, and has them signed. The keys are on disk when it returns. What fails
// is missing in the result; the rest of the plan does not wait for it.
func (m *Manager) prepare(ctx context.Context, s Situation, domain *statev1.Domain, actions []Action) (map[Kind]candidate, error) {
	made := map[Kind]candidate{}
	var errs []error
	for _, action := range actions {
		row, err := m.newAuthority(ctx, s, domain, action)
		if err != nil {
			err = fmt.Errorf("prepare an authority for %s: %w", action.Kind, err)
			errs = append(errs, err)
		}
		if ctx.Err() == nil {
			m.troubles.set(domain.GetTrustDomain(), action.Kind, err)
		}
		if err == nil {
			made[action.Kind] = candidate{row, action.NewAnchor, s.Now}
		}
	}
	return made, errors.Join(errs...)
}

// discard deletes the keys of candidates when it is certain that their transaction was not made.
func (m *Manager) discard(ctx context.Context, candidates map[Kind]candidate, err error) error {
	if !errors.Is(err, raftstore.ErrNoLeader) && !errors.Is(err, raftstore.ErrBusy) && !errors.Is(err, raftstore.ErrTooLarge) && !errors.Is(err, errClock) {
		return nil // sweep finds those that were not needed
	}
	var errs []error
	for _, c := range candidates {
		errs = append(errs, m.keys.Delete(ctx, c.row.GetId()))
	}
	return errors.Join(errs...)
}

func (m *Manager) newAuthority(ctx context.Context, s Situation, domain *statev1.Domain, action Action) (*statev1.Authority, error) {
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
	if action.Kind == JWT {
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
	revoked, err := revokedOf(m.config.Store.View(), td.Name())
	if err != nil {
		return nil, errors.Join(err, m.keys.Delete(ctx, id))
	}
	signed, err := m.upstream.SignCA(ctx, CARequest{
		TrustDomain: td, CSR: csr, Now: s.Now, TTL: s.Settings.CATTL, NewAnchor: action.NewAnchor,
		Revoked: func(anchor *x509.Certificate) bool { return revoked(anchor.Raw) },
	})
	if err == nil {
		err = checkSigned(td, key.Public(), signed, s.Now, s.Settings.X509SVIDTTL)
	}
	if err == nil && revoked(signed.Anchors[0].Raw) {
		err = fmt.Errorf("the upstream signs below the anchor %s, which was revoked; make an issuer below another one its default", AnchorID(signed.Anchors[0]))
	}
	if err != nil {
		return nil, errors.Join(err, m.keys.Delete(ctx, id))
	}
	m.second.ca(signed)
	_, row.UpstreamAnchor = m.upstream.(Revoker)
	// The moment that the certificate names as its beginning does not count where it lies in the past: of a short life it would
	// make half be over at once.
	row.NotBefore, row.NotAfter = timestamppb.New(latest(s.Now, signed.Chain[0].NotBefore)), timestamppb.New(signed.Chain[0].NotAfter)
	for _, c := range signed.Chain {
		row.Chain = append(row.Chain, c.Raw)
	}
	for _, c := range signed.Anchors {
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

// changeAuthorities is what the audit log calls a transaction that carries out part of a plan.
const changeAuthorities = "change authorities"

// update runs a transaction that carries out part of a plan, between its lines in the audit log.
func (m *Manager) update(ctx context.Context, td string, fn func(*raftstore.Tx) ([]done, error)) error {
	if err := m.intend(td); err != nil {
		return err
	}
	return m.carry(ctx, td, fn)
}

// intend writes the line before a change of a domain's authorities. What cannot be audited is not begun.
func (m *Manager) intend(td string) error {
	err := m.config.Audit.Record(access.Event{Caller: "authority", Action: changeAuthorities, Object: td, Result: access.ResultBegun})
	if err != nil {
		return fmt.Errorf("nothing was changed, since the audit log cannot be written: %w", err)
	}
	return nil
}

// failed writes the line after a change that was not made.
func (m *Manager) failed(td string, err error) error {
	return m.config.Audit.Record(access.Event{
		Caller: "authority", Action: changeAuthorities, Object: td, Result: access.ResultFailed, Detail: err.Error(),
	})
}

// carry runs the transaction, and writes the lines after it.
func (m *Manager) carry(ctx context.Context, td string, fn func(*raftstore.Tx) ([]done, error)) error {
	var carried []done
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) (err error) {
		carried, err = fn(tx)
		return err
	})
	if err != nil {
		return errors.Join(err, m.failed(td, err))
	}
	return m.report(td, carried, revision)
}

// report tells the log, the metrics and the audit log what was done to a domain's authorities.
func (m *Manager) report(td string, carried []done, revision raftstore.Revision) error {
	for _, d := range carried {
		m.log.Info(string(d.Do)+" authority", "trust_domain", td, "kind", d.Kind, "id", d.ID, "why", d.Why, "revision", revision)
		if d.Alarm {
			m.metrics.forced.WithLabelValues(td, d.Kind.String()).Inc()
			m.log.Error("an authority had to become active before everybody can know it; look at refresh_hint, ca_ttl and the upstream", "trust_domain", td, "kind", d.Kind, "id", d.ID)
		}
		detail := fmt.Sprintf("%s authority %s: %s", d.Kind, d.ID, d.Why)
		if d.Sequence > 0 {
			detail = fmt.Sprintf("%s; bundle sequence %d", detail, d.Sequence)
		}
		if err := m.config.Audit.Record(access.Event{
			Caller: "authority", Action: string(d.Do) + " authority", Object: td, Result: access.ResultDone,
			Revision: uint64(revision), Detail: detail, Durable: true,
		}); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
	}
	return nil
}
