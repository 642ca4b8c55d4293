package federation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxMapHeld bounds the documents of one map that are held until its end has come, when all of it counts. What differs beyond that
	// is taken from the same map again: no more memory is used, however large it is.
	maxMapHeld = 4 << 20
	// mapPasses bounds how often a map is fetched at once for what did not fit, or changed under way. The rest comes with the next turn.
	mapPasses = 16
	// maxContradictions bounds the alarms that one reading of a map raises.
	maxContradictions = 64
)

// errMapIncomplete says that not all of a map could be taken at once; its next reading takes more.
var errMapIncomplete = errors.New("not all of the map was taken yet; the rest follows")

// mapChange is what a map asks to be written of one trust domain.
type mapChange struct {
	td string
	// known is the revision of the row that led to it; zero: there was none.
	known raftstore.Revision
	// document is a new one; empty: what is stored stays.
	document []byte
	// refused and refusal say why what the hub says is not taken; both empty: it is.
	refused, refusal string
	// gone says that the hub vouches for the domain no more.
	gone bool
}

// knownWord is what is stored of a domain by the word of the hub whose map is read.
type knownWord struct {
	revision         raftstore.Revision
	sum              [32]byte
	refused, refusal string
	// stands says that the hub said it under the relationship that there is now. Other words count no more, and go unless they are said anew.
	stands, seen bool
}

// reading is one reading of a hub's map, against one state.
type reading struct {
	manager *Manager
	view    *raftstore.View
	hub     string
	rules   *relationship.Hub
	known   map[string]*knownWord
	hosted  map[string]bool

	count      observation.MapCount
	changes    []mapChange
	held       int
	incomplete bool
	// firstRefused names the first domain on which the hub's word was refused, and why.
	firstRefused string
	contradicts  []statement.View
	about        []string
}

// newReading begins to read a whole map.
func (m *Manager) newReading(view *raftstore.View, hub string, rules *relationship.Hub) (*reading, error) {
	r := &reading{manager: m, view: view, hub: hub, rules: rules, known: map[string]*knownWord{}, hosted: map[string]bool{}}
	agreement, _, err := relationship.Relationships.Get(view, hub)
	if err != nil {
		return nil, err
	}
	for row, err := range relationship.HubBundles.All(view, "") {
		if err != nil {
			return nil, err
		}
		if row.Value.GetHub() == hub {
			r.known[row.Value.GetTrustDomain()] = knownWordOf(row, agreement.Value)
		}
	}
	for row, err := range m.config.Trust.Hosted.Bundles.All(view, "") {
		if err != nil {
			return nil, err
		}
		r.hosted[row.Key] = true
	}
	return r, nil
}

// newReadingOf begins to read what a hub says of some domains, by name.
func (m *Manager) newReadingOf(view *raftstore.View, hub string, rules *relationship.Hub, names []string) (*reading, error) {
	r := &reading{manager: m, view: view, hub: hub, rules: rules, known: map[string]*knownWord{}, hosted: map[string]bool{}}
	agreement, _, err := relationship.Relationships.Get(view, hub)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		row, found, err := relationship.HubBundles.Get(view, relationship.AttestationKey(name, hub))
		if err != nil {
			return nil, err
		}
		if found {
			r.known[name] = knownWordOf(row, agreement.Value)
		}
		if r.hosted[name], err = m.config.Trust.Hosted.Hosts(view, name); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func knownWordOf(row raftstore.Row[*statev1.HubBundle], agreement *statev1.Relationship) *knownWord {
	v := row.Value
	return &knownWord{
		revision: row.Revision, sum: sha256.Sum256(v.GetDocument()), refused: v.GetRefused(), refusal: v.GetRefusal(), stands: relationship.AttestedUnder(agreement, v),
	}
}

// see takes in what the map says of one domain. An error refuses the map: its form is broken. What is wrong with the word on one domain
// alone, such as a sequence that goes back, is held against that word alone.
func (r *reading) see(td spiffeid.TrustDomain, document []byte) error {
	name := td.Name()
	known, wanted := r.known[name], !r.hosted[name] && name != r.hub && r.rules.Covers(name)
	if wanted && known != nil && known.stands && known.refused == "" && known.sum == sha256.Sum256(document) {
		known.seen = true
		r.count.Accepted++
		return nil
	}
	next, _, err := bundle.ParseMapped(td, document)
	if err != nil {
		return err
	}
	if !wanted {
		r.count.LeftOut++
		return nil // and what is stored of it, if anything is, goes
	}
	change := mapChange{td: name}
	var current *bundle.Bundle
	if known != nil {
		known.seen, change.known = true, known.revision
	}
	if known != nil && known.stands {
		row, found, err := relationship.HubBundles.Get(r.view, relationship.AttestationKey(name, r.hub))
		if err != nil || !found {
			return fmt.Errorf("stored word of the hub on %s: %w", name, err)
		}
		if current, err = relationship.HubBundle(row.Value); err != nil {
			return err
		}
	}
	if err := r.compare(name, next); err != nil {
		return err
	}
	if err := relationship.Accept(current, next); err != nil {
		r.count.Refused++
		change.refused, change.refusal = relationship.ReasonOf(err), relationship.Clip(err.Error())
		if r.firstRefused == "" {
			r.firstRefused = name + ": " + change.refusal
		}
		if known == nil {
			return nil // nothing is stored of it, and nothing is worth storing
		}
		if !known.stands {
			known.seen = false
			return nil // nothing that counts is, and what is stored goes
		}
		if known.refused == change.refused && known.refusal == change.refusal {
			return nil
		}
		r.changes = append(r.changes, change)
		return nil
	}
	r.count.Accepted++
	if canonical := next.Marshal(); known == nil || !known.stands || known.sum != sha256.Sum256(canonical) {
		if r.held += len(canonical); r.held > maxMapHeld {
			r.incomplete = true
			return nil
		}
		change.document = canonical
	} else if known.refused == "" {
		return nil // another form of what is stored
	}
	r.changes = append(r.changes, change)
	return nil
}

// compare holds the hub's word against what the domain itself showed, where there is a relationship with it.
func (r *reading) compare(name string, next *bundle.Bundle) error {
	view := statement.ViewOf(next, "hub "+r.hub)
	split, err := relationship.Contradicts(r.view, name, view)
	if err == nil && split != nil && len(r.about) < maxContradictions {
		r.contradicts, r.about = append(r.contradicts, view), append(r.about, name)
	}
	return err
}

// withdrawn adds what the hub vouched for and does no more, once the map has come to its end.
func (r *reading) withdrawn() {
	for td, known := range r.known {
		if !known.seen {
			r.changes = append(r.changes, mapChange{td: td, known: known.revision, gone: true})
		}
	}
}

// tell says what was refused, if it is to be logged, and raises the alarms that what was read and not stored asks for. The error says that one was
// not written: it is raised when the same is read again.
func (r *reading) tell(ctx context.Context, logged bool) error {
	if r.count.Refused > 0 && logged {
		r.manager.log.Warn("a hub's word on some domains is refused; what is stored of them is kept, and the others are taken", "hub", r.hub, "refused", r.count.Refused, "first", r.firstRefused)
	}
	var failed error
	for i, td := range r.about {
		failed = errors.Join(failed, r.manager.intake.Compare(ctx, td, r.contradicts[i]))
	}
	return failed
}

// refreshMap reads the map of a hub, and takes what its relationship lists. It can run on any member, and several times at once. The
// error is errUnfinished or nil: of all others it says itself.
func (m *Manager) refreshMap(ctx context.Context, hub string, w *fetch.Wait) error {
	var count observation.MapCount
	var result string
	var err error
	var b basis
	for range mapPasses {
		view := m.config.Store.View()
		if row, found, err := relationship.Relationships.Get(view, hub); err != nil || !found || row.Value.GetHub() == nil {
			return nil //nolint:nilerr // as below, for the many that never were one
		}
		if b, err = m.basisOf(view, hub); err != nil || b.Rel.Hub == nil {
			return nil //nolint:nilerr // it ended, or is no hub any more
		}
		b.wait = w
		if result, count, err = m.readMap(ctx, hub, b); !errors.Is(err, errMapIncomplete) && !errors.Is(err, relationship.ErrSuperseded) {
			break
		}
	}
	if errors.Is(err, relationship.ErrEnded) || ctx.Err() != nil {
		return nil //nolint:nilerr // nobody waits for it any more
	}
	if errors.Is(err, relationship.ErrUnfinished) {
		return err
	}
	failure := ""
	if err != nil {
		result, failure = relationship.ReasonOf(err), relationship.Clip(err.Error())
		m.log.Warn("a hub's bundle map was not taken; what was taken from it before is kept", "hub", hub, "result", result, "error", failure)
		if relationship.IsDecision(result) {
			m.intake.Record(actionRefuseMap, hub, result, failure, 0)
		}
	}
	m.metrics.maps.WithLabelValues(result).Inc()
	// Nothing of an incomplete map is old, so that it counts as a success.
	m.observations.Attempted(hub+relationship.MapSuffix, b.Rel.Generation, m.now(), err == nil || errors.Is(err, errMapIncomplete), result, failure)
	if err == nil && result != relationship.ResultNotModified && result != relationship.ResultConfirmed {
		m.observations.Counted(hub+relationship.MapSuffix, count)
		m.log.Debug("a hub's bundle map was read", "hub", hub, "result", result, "accepted", count.Accepted, "refused", count.Refused, "left_out", count.LeftOut)
	}
	return nil
}

// mapClient is what asks the endpoint of a hub for its map.
func (m *Manager) mapClient(hub string, b basis) (*endpoint.Client, error) {
	config := m.config.Client
	config.Bundles = nil
	if d := b.Rel.Limits.Timeout; d > 0 {
		config.Timeout = d
	}
	if b.Rel.Endpoint.Profile() == endpoint.HTTPSSPIFFE {
		if b.Trust == nil {
			return nil, fmt.Errorf("fetch the bundle map of %s: %w", hub, relationship.ErrNoTrust)
		}
		config.Bundles = b.Trust
	}
	return endpoint.NewClient(config), nil
}

// readMap reads the map once, and writes what is different.
func (m *Manager) readMap(ctx context.Context, hub string, b basis) (string, observation.MapCount, error) {
	client, err := m.mapClient(hub, b)
	if err != nil {
		return "", observation.MapCount{}, err
	}
	ep := m.routes.Endpoint(hub, b.Rel, m.now())
	if m.looksOnly(hub, b) {
		err := b.wait.On(ctx, func(ctx context.Context) error { return client.ProbeMap(ctx, ep, b.Rel.Hub.URL) })
		if err == nil {
			return relationship.ResultConfirmed, observation.MapCount{}, nil
		}
		if errors.Is(err, relationship.ErrUnfinished) || ctx.Err() != nil {
			return "", observation.MapCount{}, err
		}
		m.log.Debug("a hub's endpoint does not say whether it serves its map; the map is read", "hub", hub, "error", relationship.Clip(err.Error()))
	}
	r, err := m.newReading(m.config.Store.View(), hub, b.Rel.Hub)
	if err != nil {
		return "", observation.MapCount{}, err
	}
	tag := m.mapReadings.tag(hub, r.tagBasis(b))
	var answer endpoint.MapResult
	err = b.wait.On(ctx, func(ctx context.Context) (err error) {
		answer, err = client.FetchMap(ctx, ep, b.Rel.Hub.URL, tag, r.see)
		return err
	})
	if err != nil {
		return "", observation.MapCount{}, err
	}
	if answer.NotModified {
		m.mapReadings.compared(hub, m.now())
		return relationship.ResultNotModified, observation.MapCount{}, nil
	}
	r.withdrawn()
	if err := m.writeMap(ctx, r, b); err != nil {
		return "", observation.MapCount{}, err
	}
	untold := r.tell(ctx, true)
	if r.incomplete {
		return "", observation.MapCount{}, errMapIncomplete
	}
	m.mapReadings.compared(hub, m.now())
	if r.count.Refused == 0 && untold == nil { // what was refused is to be looked at again
		written, err := m.newReading(m.config.Store.View(), hub, b.Rel.Hub)
		if err != nil {
			return "", observation.MapCount{}, err
		}
		m.mapReadings.taken(hub, written.tagBasis(b), answer.ETag)
	}
	if len(r.changes) == 0 {
		return relationship.ResultUnchanged, r.count, nil
	}
	return relationship.ResultStored, r.count, nil
}

// tagBasis names all that what was taken from a map depends on: of the words that are stored only this hub's, or each change of one hub's
// map would have the maps of all others read whole. No row is written without a newer revision, and none is taken away without being one
// fewer. Of hosted domains only the names count: a new bundle of one's own has no map read anew.
func (r *reading) tagBasis(b basis) string {
	var newest raftstore.Revision
	for _, known := range r.known {
		newest = max(newest, known.revision)
	}
	return fmt.Sprint(b.Rel.Generation, " ", len(r.known), " ", newest, " ", slices.Sorted(maps.Keys(r.hosted)))
}
