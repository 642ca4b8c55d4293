package hub

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

const (
	// maxHeld bounds the documents of one map that are held until its end has arrived, which decides whether they
	// count. What differs beyond that is stored by further readings of the same map, so that memory does not grow with
	// the map.
	maxHeld = 4 << 20
	// maxContradictions bounds the alarms that one reading of a map raises.
	maxContradictions = 64
)

// change is a difference between a map and what is stored of one trust domain.
type change struct {
	td string
	// known is the revision of the stored row, or 0 if there is none.
	known raftstore.Revision
	// document is the new document. If empty, the stored one remains.
	document []byte
	// refused is the reason for which the entry is refused, and refusal its text. Both are empty if it is accepted.
	refused, refusal string
	// withdrawn is set if the hub does not attest the domain any more.
	withdrawn bool
}

// stored is what is stored of a domain by the hub whose map is read.
type stored struct {
	revision         raftstore.Revision
	sum              [32]byte
	refused, refusal string
	// valid is set if the hub attested it under the present relationship. Other attestations do not count, and are
	// deleted unless the hub repeats them.
	valid, seen bool
}

func storedOf(row raftstore.Row[*statev1.HubBundle], hub *statev1.Relationship) *stored {
	v := row.Value
	return &stored{
		revision: row.Revision, sum: sha256.Sum256(v.GetDocument()), refused: v.GetRefused(), refusal: v.GetRefusal(),
		valid: relationship.AttestedUnder(hub, v),
	}
}

// reading compares a map of a hub, or changes of it, with one state of the store.
type reading struct {
	view  *raftstore.View
	trust trust.Sources
	hub   string
	rules *relationship.Hub
	known map[string]*stored

	count      observation.MapCount
	changes    []change
	held       int
	incomplete bool
	// firstRefused names the first refused domain, and the reason.
	firstRefused string
	// contradictions are entries that contradict what the domain itself showed.
	contradictions []contradiction
}

type contradiction struct {
	td   string
	view statement.View
}

// readingOfAll returns a reading of a whole map.
func (c *Config) readingOfAll(view *raftstore.View, hub string, rules *relationship.Hub) (*reading, error) {
	r := &reading{view: view, trust: c.Trust.Sources, hub: hub, rules: rules, known: map[string]*stored{}}
	rel, _, err := relationship.Relationships.Get(view, hub)
	if err != nil {
		return nil, err
	}
	for row, err := range relationship.HubBundles.All(view, "") {
		if err != nil {
			return nil, err
		}
		if row.Value.GetHub() == hub {
			r.known[row.Value.GetTrustDomain()] = storedOf(row, rel.Value)
		}
	}
	return r, nil
}

// readingOf returns a reading of some domains of a map.
func (c *Config) readingOf(
	view *raftstore.View,
	hub string,
	rules *relationship.Hub,
	names []string,
) (*reading, error) {
	r := &reading{view: view, trust: c.Trust.Sources, hub: hub, rules: rules, known: map[string]*stored{}}
	rel, _, err := relationship.Relationships.Get(view, hub)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		row, found, err := relationship.HubBundles.Get(view, relationship.AttestationKey(name, hub))
		if err != nil {
			return nil, err
		}
		if found {
			r.known[name] = storedOf(row, rel.Value)
		}
	}
	return r, nil
}

// readingOfChanges reads the changes of a map that a hub sent over a stream.
func (c *Config) readingOfChanges(
	view *raftstore.View, hub string, rules *relationship.Hub, changes *ententev1.PeerMapChanges,
) (*reading, error) {
	var names []string
	for _, b := range changes.GetBundles() {
		names = append(names, b.GetTrustDomain())
	}
	names = append(names, changes.GetWithdrawn()...)
	domains := make([]spiffeid.TrustDomain, len(names))
	for i, name := range names {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return nil, err
		}
		if names[i] = td.Name(); slices.Contains(domains[:i], td) {
			return nil, fmt.Errorf("%w: %s", bundle.ErrDuplicateTrustDomain, td)
		}
		domains[i] = td
	}
	r, err := c.readingOf(view, hub, rules, names)
	if err != nil {
		return nil, err
	}
	for i, b := range changes.GetBundles() {
		if err := r.add(domains[i], b.GetDocument()); err != nil {
			return nil, err
		}
	}
	r.finish() // those that are named as withdrawn
	return r, nil
}

// add compares the entry of one domain. An invalid entry, such as a rollback, is recorded and skipped; an error is
// returned only if the map itself is malformed.
func (r *reading) add(td spiffeid.TrustDomain, document []byte) error {
	name := td.Name()
	attestable, err := r.trust.Attestable(r.view, name)
	if err != nil {
		return err
	}
	known, wanted := r.known[name], attestable && name != r.hub && r.rules.Covers(name)
	if wanted && known != nil && known.valid && known.refused == "" && known.sum == sha256.Sum256(document) {
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
		return nil // if anything is stored of it, that is deleted
	}
	ch := change{td: name}
	var current *bundle.Bundle
	if known != nil {
		known.seen, ch.known = true, known.revision
	}
	if known != nil && known.valid {
		row, found, err := relationship.HubBundles.Get(r.view, relationship.AttestationKey(name, r.hub))
		if err != nil || !found {
			return fmt.Errorf("stored attestation of the hub on %s: %w", name, err)
		}
		if current, err = relationship.HubBundle(row.Value); err != nil {
			return err
		}
	}
	if err := r.compare(name, next); err != nil {
		return err
	}
	if err := relationship.Accept(current, next); err != nil {
		r.refuse(ch, known, err)
		return nil
	}
	r.count.Accepted++
	if canonical := next.Marshal(); known == nil || !known.valid || known.sum != sha256.Sum256(canonical) {
		if r.held += len(canonical); r.held > maxHeld {
			r.incomplete = true
			return nil
		}
		ch.document = canonical
	} else if known.refused == "" {
		return nil // another form of what is stored
	}
	r.changes = append(r.changes, ch)
	return nil
}

// refuse records that an entry is refused. The refusal is stored if an attestation is that counts.
func (r *reading) refuse(ch change, known *stored, err error) {
	r.count.Refused++
	ch.refused, ch.refusal = relationship.ReasonOf(err), relationship.Clip(err.Error())
	if r.firstRefused == "" {
		r.firstRefused = ch.td + ": " + ch.refusal
	}
	switch {
	case known == nil:
	case !known.valid:
		known.seen = false // what is stored does not count, and is deleted
	case known.refused != ch.refused || known.refusal != ch.refusal:
		r.changes = append(r.changes, ch)
	}
}

// refuseLarge replaces a change that is too large to be stored by its refusal. It returns a change without a refusal if
// nothing has to be written.
func (r *reading) refuseLarge(ch change, err error) change {
	refusal := change{
		td:      ch.td,
		known:   ch.known,
		refused: relationship.ReasonOf(err),
		refusal: relationship.Clip(err.Error()),
	}
	r.count.Accepted--
	r.count.Refused++
	if r.firstRefused == "" {
		r.firstRefused = ch.td + ": " + refusal.refusal
	}
	if known := r.known[ch.td]; known == nil || !known.valid || known.refused == refusal.refused {
		return change{td: ch.td}
	}
	return refusal
}

// compare compares an entry with what the domain itself showed, if there is a relationship with it.
func (r *reading) compare(name string, next *bundle.Bundle) error {
	view := statement.ViewOf(next, "hub "+r.hub)
	split, err := relationship.Contradicts(r.view, name, view)
	if err == nil && split != nil && len(r.contradictions) < maxContradictions {
		r.contradictions = append(r.contradictions, contradiction{name, view})
	}
	return err
}

// finish adds the domains that the hub does not attest any more, once the map was read completely.
func (r *reading) finish() {
	for td, known := range r.known {
		if !known.seen {
			r.changes = append(r.changes, change{td: td, known: known.revision, withdrawn: true})
		}
	}
}

// tagBasis identifies everything that the result of a reading depends on. Of the stored attestations, these are only
// the hub's own, so that a change of one hub's map does not cause all others to be read. Every write has a newer
// revision, and every deletion leaves one row less. Of hosted domains only the names count, so that a new bundle of a
// hosted domain does not cause a reading.
func (r *reading) tagBasis(b intake.Basis) string {
	var newest raftstore.Revision
	for _, known := range r.known {
		newest = max(newest, known.revision)
	}
	return fmt.Sprint(b.Rel.Generation, " ", len(r.known), " ", newest, " ", r.trust.HostedNames(r.view))
}

// report logs what was refused, if it may be logged, and raises the alarms on contradictions. An error means that an
// alarm was not written; the next reading raises it.
func (c *Config) report(ctx context.Context, r *reading, logged bool) error {
	if r.count.Refused > 0 && logged {
		c.Log.Warn("entries of a hub's map refused; what is stored of these domains is kept", "hub", r.hub,
			"refused", r.count.Refused, "first", r.firstRefused)
	}
	var failed error
	for _, found := range r.contradictions {
		failed = errors.Join(failed, c.Intake.Compare(ctx, found.td, found.view))
	}
	return failed
}
