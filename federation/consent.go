package federation

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
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/token"
)

const (
	// lookForConsents is how often a member looks which other sides are to be asked.
	lookForConsents = time.Second
	// maxAskedTogether is how many other sides a member asks at once; as many more where an operator has decided, whom nobody who hangs
	// keeps waiting.
	maxAskedTogether = 8
	// exchangeWithin bounds one question, over all addresses of the other side, and exchangeEach that to one of them.
	exchangeWithin, exchangeEach = 30 * time.Second, 10 * time.Second
	// maxNudged bounds what waits for the catalog to show it: an operator's decision is there before the catalog has read it.
	maxNudged = 1000
	// hearEach and hearAtOnce bound how often the other side of one agreement is heard: what it says anew is written.
	hearEach, hearAtOnce = time.Second, 20
	// maxFarewells is how often it is tried to tell the other side of an end. It asks by itself too.
	maxFarewells = 10
)

// consents tells the other sides of agreements how this side stands to them, and learns how they do. The owner of a relationship asks at
// its own pace; a member where an operator has decided tells of it at once. A change of this cluster's members is told to all: the other
// sides know them by their identity keys, must not listen to one that was removed, and look for them at their addresses.
type consents struct {
	manager *Manager
	signal  chan struct{}
	// paced and urgent are the lanes of questions; each has a buffer of maxAskedTogether.
	paced, urgent chan struct{}
	work          sync.WaitGroup

	mu        sync.Mutex
	nudged    map[string]bool
	farewells []farewell
	next      map[string]asking
	// underWay are the relationships that are being asked about.
	underWay map[string]bool
	// known are the relationships of the last look, of all members; nil: there was none that found any.
	known map[string]*relationship.Relationship
	// own are this cluster's members as they were last looked at, told as each other side heard them.
	own  string
	told map[string]string
	// heard paces the other sides, by relationship.
	heard map[string]*rate.Limiter
}

// farewell tells of an agreement that this side has ended.
type farewell struct {
	row   *statev1.Relationship
	tries int
	after time.Time
}

func newConsents(m *Manager) *consents {
	return &consents{
		manager: m, signal: make(chan struct{}, 1), paced: make(chan struct{}, maxAskedTogether), urgent: make(chan struct{}, maxAskedTogether),
		nudged: map[string]bool{}, next: map[string]asking{}, underWay: map[string]bool{}, told: map[string]string{}, heard: map[string]*rate.Limiter{},
	}
}

func (c *consents) wake() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

// nudge has the other side of an agreement asked at once.
func (c *consents) nudge(name string) {
	c.mu.Lock()
	c.nudged[name] = true
	c.mu.Unlock()
	c.wake()
}

// askSoon has the other sides of all agreements with a cluster asked, which has just said that it has no relationship any more.
// It waits for a lane like every question: that cluster decides how often it says so.
func (c *consents) askSoon(home string) {
	now := c.manager.now()
	var names []string
	c.manager.catalog.EachAgreement(func(name string, e mirror.Entry) {
		if r := e.Rel; r.Peer != nil && r.Peer.Home.Name() == home {
			names = append(names, name)
		}
	})
	c.mu.Lock()
	for _, name := range names {
		c.next[name] = asking{at: now, soon: true}
	}
	c.mu.Unlock()
	c.wake()
}

// part has the other side told that this side has ended an agreement.
func (c *consents) part(row *statev1.Relationship) {
	if a := row.GetAgreement(); a == nil || a.GetEndTime() != nil || a.GetCompanion() || c.manager.config.Invitations.Dial == nil {
		return
	}
	c.mu.Lock()
	c.farewells = append(c.farewells, farewell{row: row})
	c.mu.Unlock()
	c.wake()
}

// hears reports whether the other side of an agreement may be heard now.
func (c *consents) hears(name string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	pace := c.heard[name]
	if pace == nil {
		pace = rate.NewLimiter(rate.Every(hearEach), hearAtOnce)
		c.heard[name] = pace
	}
	return pace.AllowN(now, 1)
}

// run asks until ctx ends.
func (c *consents) run(ctx context.Context) error {
	if c.manager.config.Invitations.Dial == nil {
		return nil
	}
	defer c.work.Wait()
	ticker := time.NewTicker(lookForConsents)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-c.signal:
		}
		c.begin(ctx)
	}
}

// begin begins what is due and finds a lane. What finds none stays due.
func (c *consents) begin(ctx context.Context) {
	m := c.manager
	members, err := m.alive(m.config.Store.View())
	if err != nil {
		return
	}
	now, own := m.now(), fmt.Sprintf("%q", m.tell(m.config.Peers.Home.Name()))
	known := map[string]*relationship.Relationship{}
	m.catalog.EachAgreement(func(name string, e mirror.Entry) {
		if r := e.Rel; !r.AgreementEnded {
			known[name] = r
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.own != "" && c.own != own
	c.own = own
	for name, r := range known {
		t, seen := c.next[name]
		nudged := c.nudged[name]
		q := question{
			seen: seen, appeared: c.known != nil && c.known[name] == nil, nudged: nudged, owned: m.owner(name, members) == m.member, agreed: r.Agreed, untold: c.told[name] != own, changed: changed,
			streamed: func() bool { return r.Peer != nil && m.streams.Covers(r.Peer.Home.Name(), name) },
		}
		next, ask := t.after(q, now, m.chance())
		if ask && !c.start(nudged, name, func() { c.ask(ctx, name, own) }) {
			if changed || q.appeared { // the next look would not know
				c.next[name] = asking{at: now}
			}
			continue
		}
		if ask {
			delete(c.nudged, name)
		}
		if ask || q.owned {
			c.next[name] = next
		}
	}
	c.prune(known)
	if len(known) > 0 {
		c.known = known
	}
	waiting := c.farewells
	c.farewells = nil
	for _, f := range waiting {
		if now.Before(f.after) || !c.start(true, "", func() { c.say(ctx, f) }) {
			c.farewells = append(c.farewells, f)
		}
	}
}

// start runs a question in a lane, and reports whether there was one. About a relationship there is one question at a time. c.mu is held.
func (c *consents) start(urgent bool, name string, fn func()) bool {
	lane := c.paced
	if urgent {
		lane = c.urgent
	}
	if c.underWay[name] {
		return false
	}
	select {
	case lane <- struct{}{}:
	default:
		return false
	}
	if name != "" {
		c.underWay[name] = true
	}
	c.work.Go(func() {
		fn()
		c.mu.Lock()
		delete(c.underWay, name)
		c.mu.Unlock()
		<-lane
		c.wake()
	})
	return true
}

// prune forgets what is about relationships that are gone. c.mu is held.
func (c *consents) prune(known map[string]*relationship.Relationship) {
	gone := func(name string) bool { return known[name] == nil }
	maps.DeleteFunc(c.next, func(name string, _ asking) bool { return gone(name) })
	maps.DeleteFunc(c.told, func(name string, _ string) bool { return gone(name) })
	maps.DeleteFunc(c.heard, func(name string, _ *rate.Limiter) bool { return gone(name) })
	if len(c.nudged) > maxNudged {
		maps.DeleteFunc(c.nudged, func(name string, _ bool) bool { return gone(name) })
	}
}

// ask tells the other side of one agreement how this one stands to it and who its members are, and takes down the answer.
func (c *consents) ask(ctx context.Context, name, own string) {
	row, found, err := relationship.Relationships.Get(c.manager.config.Store.View(), name)
	if err != nil || !found {
		return
	}
	a := row.Value.GetAgreement()
	answer, err := c.exchange(ctx, row.Value, relationship.ConsentOf(a))
	if err != nil {
		if ctx.Err() == nil {
			c.manager.log.Info("the other side of an agreement was not reached; it is asked again, and may ask by itself", "trust_domain", name, "error", relationship.Clip(err.Error()))
		}
		return
	}
	c.mu.Lock()
	c.told[name] = own
	c.mu.Unlock()
	told, err := relationship.ParseAnnouncement(answer)
	if err != nil {
		told = relationship.Announcement{} // its consent counts all the same
	}
	if err := c.manager.hear(ctx, name, a.GetId(), answer.GetConsent(), told, false); err != nil && ctx.Err() == nil {
		c.manager.log.Warn("what the other side says to an agreement was not stored; it is asked again", "trust_domain", name, "error", err)
	}
}

// say tells the other side that this one has ended an agreement, and tries again where nobody is reached.
func (c *consents) say(ctx context.Context, f farewell) {
	if _, err := c.exchange(ctx, f.row, ententev1.Consent_CONSENT_ENDED); err == nil || ctx.Err() != nil {
		return
	} else if f.tries++; f.tries >= maxFarewells {
		c.manager.log.Warn("the other side could not be told that an agreement has ended; it learns of it when it asks", "trust_domain", f.row.GetTrustDomain(), "error", relationship.Clip(err.Error()))
		return
	}
	f.after = c.manager.now().Add(min(firstConsent<<f.tries, lastConsent))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.farewells = append(c.farewells, f)
}

// exchange puts the question to the members of the other side, one after the other.
func (c *consents) exchange(ctx context.Context, row *statev1.Relationship, says ententev1.Consent) (answer *ententev1.ExchangeConsentResponse, err error) {
	m, a := c.manager, row.GetAgreement()
	own := m.tell(a.GetHostedTrustDomain())
	content, err := proto.Marshal(&ententev1.ExchangeConsentContent{
		AgreementId: a.GetId(), TrustDomain: a.GetHostedTrustDomain(), OtherTrustDomain: row.GetTrustDomain(), Consent: says,
		Identities: own.Identities, Addresses: own.Addresses, Urls: own.Urls, HomeUrls: own.HomeURLs,
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
			break // the others are tried the next time
		}
		err := m.callMember(ctx, exchangeEach, address, func(presented [32]byte) error {
			if relationship.HasMember(a.GetIdentities(), presented) {
				return nil
			}
			return fmt.Errorf("who answers has identity key %x, which the other side did not name; nothing was sent to it", presented[:8])
		}, func(ctx context.Context, client ententev1.InvitationServiceClient, binding []byte) error {
			signed, err := m.sign(purposeConsent, binding, content)
			if err != nil {
				return err
			}
			answer, err = client.ExchangeConsent(ctx, &ententev1.ExchangeConsentRequest{Content: content, Signed: signed})
			return err
		})
		if err == nil {
			return answer, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", address, err))
	}
	return nil, errors.Join(failures...)
}

// hear stores what the other side says of an agreement. sure says that it speaks of one that it has, or had.
func (m *Manager) hear(ctx context.Context, name, id string, says ententev1.Consent, told relationship.Announcement, sure bool) error {
	var was, is ententev1.RelationshipState
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		was, is = 0, 0
		changed, err := relationship.UpdateAgreement(tx, name, id, func(row *statev1.Relationship) bool {
			if a := row.GetAgreement(); sure && says == ententev1.Consent_CONSENT_ENDED {
				a.Confirmed = true
			}
			return relationship.ReceiveConsent(row, says, told, m.now())
		})
		if err != nil || !changed {
			return err
		}
		before, _, err := relationship.Relationships.Get(m.config.Store.View(), name)
		if err != nil {
			return err
		}
		after, _, err := relationship.Relationships.Get(tx, name)
		was, is = relationship.StateOf(before.Value), relationship.StateOf(after.Value)
		return err
	})
	if err != nil || is == 0 {
		return err
	}
	if is == ententev1.RelationshipState_RELATIONSHIP_STATE_ENDED {
		m.log.Warn("the other side has ended an agreement; its trust domain is relied on no more", "trust_domain", name)
	} else {
		m.log.Info("the other side of an agreement has spoken", "trust_domain", name, "was", was, "is", is)
	}
	m.intake.Record(actionConsent, name, consentWord(says), "said by the other side of agreement "+id, revision)
	return nil
}

func consentWord(c ententev1.Consent) string {
	switch c {
	case ententev1.Consent_CONSENT_APPROVED:
		return "approved"
	case ententev1.Consent_CONSENT_ENDED:
		return "ended"
	default:
		return "open"
	}
}

// ExchangeConsent answers the other side of an agreement, and takes down what it says. Whoever asks about one that there is not here
// is told that it has ended.
func (s *InvitationService) ExchangeConsent(ctx context.Context, req *ententev1.ExchangeConsentRequest) (*ententev1.ExchangeConsentResponse, error) {
	c := &ententev1.ExchangeConsentContent{}
	signer, err := s.signer(ctx, purposeConsent, req.GetSigned(), req.GetContent(), c)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !token.IsID(c.GetAgreementId()) { // a relationship without an agreement has none, and is nobody else's affair
		return nil, raftstore.StatusError(refuseInvitation("malformed", codes.InvalidArgument, "the agreement's id is malformed"))
	}
	m := s.manager
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{Linearizable: true})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	row, found, err := relationship.Relationships.Get(view, c.GetTrustDomain())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	a := row.Value.GetAgreement()
	if !found || a.GetId() != c.GetAgreementId() || a.GetHostedTrustDomain() != c.GetOtherTrustDomain() {
		return &ententev1.ExchangeConsentResponse{Consent: ententev1.Consent_CONSENT_ENDED}, nil
	}
	if !relationship.HasMember(a.GetIdentities(), signer) {
		return nil, raftstore.StatusError(refuseInvitation("unknown_member", codes.Unauthenticated, "the member that asks is not known here as one of the cluster of %s", c.GetTrustDomain()))
	}
	told, err := relationship.ParseAnnouncement(c)
	if err != nil {
		return nil, raftstore.StatusError(refuseInvitation("malformed", codes.InvalidArgument, "%v", err))
	}
	if !m.consents.hears(c.GetTrustDomain(), m.now()) {
		return nil, raftstore.StatusError(refuseInvitation("too_often", codes.ResourceExhausted, "the agreement with %s was spoken of more often than once in %s; try again then", c.GetTrustDomain(), hearEach))
	}
	if err := m.hear(ctx, c.GetTrustDomain(), a.GetId(), c.GetConsent(), told, true); err != nil {
		return nil, raftstore.StatusError(err)
	}
	own := m.tell(a.GetHostedTrustDomain())
	return &ententev1.ExchangeConsentResponse{Consent: relationship.ConsentOf(a), Identities: own.Identities, Addresses: own.Addresses, Urls: own.Urls, HomeUrls: own.HomeURLs}, nil
}
