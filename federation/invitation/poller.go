package invitation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

const (
	// pollEvery is how often a member checks which exchanges are due.
	pollEvery = time.Second
	// maxCalls is how many exchanges run at once. As many more run after decisions of operators, so that clusters that
	// hang do not delay those.
	maxCalls = 8
	// exchangeWithin bounds one exchange over all addresses of the other side, and exchangeEach that with one address.
	exchangeWithin, exchangeEach = 30 * time.Second, 10 * time.Second
	// maxTriggered bounds the triggers that wait for the mirror to show their relationship.
	maxTriggered = 1000
	// receiveEach and receiveBurst bound how often the other side of one agreement is received: what is new is written.
	receiveEach, receiveBurst = time.Second, 20
	// ownEndpoint is in place of the name of a relationship where this member's own row is written.
	ownEndpoint = " endpoint"
	// maxNotices is how often a termination notice is sent. The other side also exchanges consents by itself.
	maxNotices = 10
)

// poller exchanges consents with the other sides of agreements. The owner of a relationship does so at a pace of its
// own; a member where an operator has decided does so at once. A change of this cluster's members is announced to all:
// the other sides know the members by their identity keys, must refuse one that was removed, and need their addresses.
type poller struct {
	agreements *Agreements
	signal     chan struct{}
	// paced and urgent are the places of running exchanges. Each has a buffer of maxCalls.
	paced, urgent chan struct{}
	work          sync.WaitGroup

	mu        sync.Mutex
	triggered map[string]bool
	notices   []notice
	next      map[string]schedule
	// running has the relationships of which an exchange runs.
	running map[string]bool
	// known are the relationships of the last poll, of all members. It is nil until a poll found any.
	known map[string]*relationship.Relationship
	// own are this cluster's members at the last poll, and announced what each other side received of them.
	own       string
	announced map[string]string
	// limits are the rate limits of the other sides, by relationship.
	limits map[string]*rate.Limiter
}

// notice is the message to the other side that this side has ended an agreement.
type notice struct {
	row   *statev1.Relationship
	tries int
	after time.Time
}

func newPoller(m *Agreements) *poller {
	return &poller{
		agreements: m, signal: make(chan struct{}, 1),
		paced: make(chan struct{}, maxCalls), urgent: make(chan struct{}, maxCalls),
		triggered: map[string]bool{}, next: map[string]schedule{}, running: map[string]bool{},
		announced: map[string]string{}, limits: map[string]*rate.Limiter{},
	}
}

func (p *poller) wake() {
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

func (p *poller) trigger(name string) {
	p.mu.Lock()
	p.triggered[name] = true
	p.mu.Unlock()
	p.wake()
}

// triggerHome uses the paced places, because the other cluster decides how often it reports that it has no
// relationship.
func (p *poller) triggerHome(home string) {
	now := p.agreements.config.Now()
	var names []string
	p.agreements.config.Mirror.EachAgreement(func(name string, e mirror.Entry) {
		if r := e.Rel; r.Peer != nil && r.Peer.Home.Name() == home {
			names = append(names, name)
		}
	})
	p.mu.Lock()
	for _, name := range names {
		p.next[name] = schedule{at: now, soon: true}
	}
	p.mu.Unlock()
	p.wake()
}

// Terminated sends the other side a notice that this side has ended an agreement, if it has not ended it itself.
func (m *Agreements) Terminated(row *statev1.Relationship) {
	a := row.GetAgreement()
	if a == nil || a.GetEndTime() != nil || a.GetLinkedHome() || m.config.Transport.Dial == nil {
		return
	}
	m.poller.mu.Lock()
	m.poller.notices = append(m.poller.notices, notice{row: row})
	m.poller.mu.Unlock()
	m.poller.wake()
}

// allows reports whether the rate limit of the other side of an agreement allows a call now.
func (p *poller) allows(name string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.limits[name]
	if limit == nil {
		limit = rate.NewLimiter(rate.Every(receiveEach), receiveBurst)
		p.limits[name] = limit
	}
	return limit.AllowN(now, 1)
}

func (p *poller) run(ctx context.Context) error {
	if p.agreements.config.Transport.Dial == nil {
		return nil
	}
	defer p.work.Wait()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-p.signal:
		}
		p.poll(ctx)
	}
}

// poll starts the exchanges that are due and find a place. The others stay due.
func (p *poller) poll(ctx context.Context) {
	m := p.agreements
	members, err := m.config.Alive(m.config.Store.View())
	if err != nil {
		return
	}
	now, own := m.config.Now(), fmt.Sprintf("%q", m.config.announcement(m.config.Home, nil))
	known := map[string]*relationship.Relationship{}
	m.config.Mirror.EachAgreement(func(name string, e mirror.Entry) {
		if r := e.Rel; !r.AgreementEnded {
			known[name] = r
		}
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start(true, ownEndpoint, func() { p.storeEndpoint(ctx) })
	changed := p.own != "" && p.own != own
	p.own = own
	for name, r := range known {
		t, seen := p.next[name]
		s := situation{
			seen: seen, appeared: p.known != nil && p.known[name] == nil, triggered: p.triggered[name],
			owned:     membership.Owner(name, members) == m.config.Store.MemberID(),
			consented: r.Consented, unannounced: p.announced[name] != own, changed: changed,
			streamed: func() bool { return r.Peer != nil && m.config.Streamed(r.Peer.Home.Name(), name) },
		}
		next, due := t.after(s, now, rand.Float64())
		if due && !p.start(s.triggered, name, func() { p.exchange(ctx, name, own) }) {
			if changed || s.appeared { // the next poll does not see the change any more
				p.next[name] = schedule{at: now}
			}
			continue
		}
		if due {
			delete(p.triggered, name)
		}
		if due || s.owned {
			p.next[name] = next
		}
	}
	p.prune(known)
	if len(known) > 0 {
		p.known = known
	}
	waiting := p.notices
	p.notices = nil
	for _, n := range waiting {
		if now.Before(n.after) || !p.start(true, "", func() { p.notify(ctx, n) }) {
			p.notices = append(p.notices, n)
		}
	}
}

// storeEndpoint keeps this member's row of how its endpoint is reached and verified as its files are.
func (p *poller) storeEndpoint(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, exchangeEach)
	defer cancel()
	doubts, err := p.agreements.config.storeEndpoint(ctx)
	switch {
	case err != nil && !errors.Is(err, errUnreadable): // as without a leader
		p.agreements.config.Log.Debug("the endpoint of this member could not be stored; retrying", "error", err)
	case err != nil:
		p.agreements.config.Log.Warn("the web roots of this member's bundle endpoint are not announced; the other "+
			"sides of agreements keep those that they have", "error", err)
	case len(doubts) > 0:
		p.agreements.config.Log.Warn("other clusters may refuse the bundle endpoint of this member",
			"reason", doubts[0])
	}
}

// start runs an exchange if there is a place, and reports whether there was one. A relationship has one exchange at a
// time. p.mu is held.
func (p *poller) start(urgent bool, name string, fn func()) bool {
	places := p.paced
	if urgent {
		places = p.urgent
	}
	if p.running[name] {
		return false
	}
	select {
	case places <- struct{}{}:
	default:
		return false
	}
	if name != "" {
		p.running[name] = true
	}
	p.work.Go(func() {
		fn()
		p.mu.Lock()
		delete(p.running, name)
		p.mu.Unlock()
		<-places
		if name != ownEndpoint { // whose place nothing waits for
			p.wake()
		}
	})
	return true
}

// prune forgets relationships that are gone. p.mu is held.
func (p *poller) prune(known map[string]*relationship.Relationship) {
	gone := func(name string) bool { return known[name] == nil }
	maps.DeleteFunc(p.next, func(name string, _ schedule) bool { return gone(name) })
	maps.DeleteFunc(p.announced, func(name string, _ string) bool { return gone(name) })
	maps.DeleteFunc(p.limits, func(name string, _ *rate.Limiter) bool { return gone(name) })
	if len(p.triggered) > maxTriggered {
		maps.DeleteFunc(p.triggered, func(name string, _ bool) bool { return gone(name) })
	}
}

// exchange sends the other side of an agreement this side's consent and members, and stores the answer.
func (p *poller) exchange(ctx context.Context, name, own string) {
	m := p.agreements
	// A member that is behind would announce what the others have replaced.
	reading, cancel := context.WithTimeout(ctx, exchangeEach)
	view, err := m.config.Store.Read(reading, raftstore.ReadOptions{Linearizable: true})
	cancel()
	if err != nil {
		return // without a leader, nothing could be stored either
	}
	row, found, err := relationship.Relationships.Get(view, name)
	if err != nil || !found {
		return
	}
	a := row.Value.GetAgreement()
	answer, err := m.exchangeConsent(ctx, row.Value, relationship.ConsentOf(a))
	if err != nil {
		if ctx.Err() == nil {
			m.config.Log.Info("other side of an agreement not reached; retrying", "trust_domain", name, "error",
				relationship.Clip(err.Error()))
		}
		return
	}
	p.mu.Lock()
	p.announced[name] = own
	p.mu.Unlock()
	announced, err := relationship.ParseAnnouncement(answer, m.config.Now())
	if err != nil {
		m.config.Log.Warn("announcement of the other side of an agreement refused; its consent counts all the same",
			"trust_domain", name, "error", relationship.Clip(err.Error()))
		announced = relationship.Announcement{}
	}
	if err := m.receive(ctx, name, a.GetId(), answer.GetConsent(), announced, false); err != nil && ctx.Err() == nil {
		m.config.Log.Warn("consent of the other side not stored; retrying", "trust_domain", name, "error", err)
	}
}

// notify sends a termination notice, and schedules another attempt if no address answered.
func (p *poller) notify(ctx context.Context, n notice) {
	m := p.agreements
	_, err := m.exchangeConsent(ctx, n.row, ententev1.Consent_CONSENT_ENDED)
	if err == nil || ctx.Err() != nil {
		return
	}
	if n.tries++; n.tries >= maxNotices {
		m.config.Log.Warn(
			"termination notice not delivered; the other side learns that the agreement has ended when it calls",
			"trust_domain", n.row.GetTrustDomain(), "error", relationship.Clip(err.Error()))
		return
	}
	n.after = m.config.Now().Add(min(firstPoll<<n.tries, lastPoll))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notices = append(p.notices, n)
}

// exchangeConsent calls the members of the other side, one after the other, until one answers.
func (m *Agreements) exchangeConsent(ctx context.Context, row *statev1.Relationship, consent ententev1.Consent,
) (answer *ententev1.ExchangeConsentResponse, err error) {
	a := row.GetAgreement()
	own := m.config.announcement(a.GetHostedTrustDomain(), a.GetAdvertised())
	content, err := proto.Marshal(&ententev1.ExchangeConsentContent{
		AgreementId: a.GetId(), TrustDomain: a.GetHostedTrustDomain(), OtherTrustDomain: row.GetTrustDomain(),
		Consent: consent, Identities: own.Identities, Addresses: own.Addresses, Urls: own.Urls, HomeUrls: own.HomeURLs,
		WebRoots: own.WebRoots,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, exchangeWithin)
	defer cancel()
	failures := []error{errors.New("no address answered")}
	addresses := slices.Clone(row.GetPeer().GetAddresses())
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	for _, address := range addresses {
		if ctx.Err() != nil {
			break // the next exchange tries the others
		}
		err := m.callMember(ctx, exchangeEach, address, func(presented [32]byte) error {
			if relationship.HasMember(a.GetIdentities(), presented) {
				return nil
			}
			return fmt.Errorf(
				"the other side does not name identity key %x, which was presented there; nothing was sent",
				presented[:8])
		}, func(ctx context.Context, client ententev1.InvitationServiceClient, binding []byte) error {
			signed, err := m.sign(purposeConsent, binding, content)
			if err != nil {
				return err
			}
			answer, err = client.ExchangeConsent(ctx,
				&ententev1.ExchangeConsentRequest{Content: content, Signed: signed})
			return err
		})
		if err == nil {
			return answer, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", address, err))
	}
	return nil, errors.Join(failures...)
}
