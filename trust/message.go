package trust

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// Entry is a bundle with the facts about it that the API shows.
type Entry struct {
	Bundle     *bundle.Bundle
	Hosted     bool
	ChangeTime time.Time
	Freshness  ententev1.Freshness
	// IgnoredKeys counts the keys of the domain's own document that are left out.
	IgnoredKeys uint32
	// Revision is that of the stored row.
	Revision uint64
}

// Message returns the entry in the form of the API.
func (e Entry) Message() *ententev1.Bundle {
	c := e.Bundle.Content()
	digest := e.Bundle.Digest()
	m := &ententev1.Bundle{
		TrustDomain:     e.Bundle.TrustDomain().Name(),
		Hosted:          e.Hosted,
		Document:        e.Bundle.Document(),
		Sequence:        c.Sequence,
		X509Authorities: int32(len(c.X509Authorities)),
		JwtAuthorities:  int32(len(c.JWTAuthorities)),
		Digest:          hex.EncodeToString(digest[:]),
		Freshness:       cmp.Or(e.Freshness, ententev1.Freshness_FRESHNESS_FRESH),
		Revision:        e.Revision,
		IgnoredKeys:     e.IgnoredKeys,
	}
	if c.RefreshHint != nil {
		m.RefreshHint = durationpb.New(*c.RefreshHint)
	}
	if !e.ChangeTime.IsZero() {
		m.ChangeTime = timestamppb.New(e.ChangeTime)
	}
	return m
}

// Message returns the bundle of a domain in the form of the API, and whether there is one. A withheld bundle is not
// returned. The message is shared by all callers and must not be changed.
func (i *Index) Message(r raftstore.Reader, td string) (*ententev1.Bundle, bool, error) {
	d, err := i.Decide(r, td)
	if err != nil {
		return nil, false, err
	}
	return i.messages.of(r, td, d)
}

// Messages returns the bundles of all domains in the form of the API, by name, as [Index.Message] does.
func (i *Index) Messages(r raftstore.Reader) (map[string]*ententev1.Bundle, error) {
	all := make(map[string]*ententev1.Bundle)
	for d, err := range i.All(r) {
		if err != nil {
			return nil, fmt.Errorf("list bundles: %w", err)
		}
		m, found, err := i.messages.of(r, d.Name, d.Decision)
		if err != nil {
			return nil, err
		}
		if found {
			all[d.Name] = m
		}
	}
	return all, nil
}

// messages keeps the newest message of each domain. The bundle service holds all of them anyway.
type messages struct {
	index *Index

	mu     sync.Mutex
	byName map[string]builtMessage
}

// builtMessage is a message with the rows that it was built from.
type builtMessage struct {
	of      messageSource
	message *ententev1.Bundle
}

type messageSource struct {
	origin               Origin
	hub                  string
	bundle, relationship raftstore.Revision
	freshness            ententev1.Freshness
}

func newMessages(i *Index) *messages {
	return &messages{index: i, byName: make(map[string]builtMessage)}
}

func (m *messages) of(r raftstore.Reader, td string, d Decision) (*ententev1.Bundle, bool, error) {
	revision, found := m.index.revision(r, td, d)
	if !found || d.Status.State.Withheld() {
		m.mu.Lock()
		delete(m.byName, td)
		m.mu.Unlock()
		return nil, false, nil
	}
	of := messageSource{d.Origin, d.Attestation.Hub, revision, d.Relationship.Revision, d.Status.State.Freshness()}
	m.mu.Lock()
	built, ok := m.byName[td]
	m.mu.Unlock()
	if ok && built.of == of {
		return built.message, true, nil
	}
	message, err := m.build(r, td, d)
	if err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	m.byName[td] = builtMessage{of, message}
	m.mu.Unlock()
	return message, true, nil
}

func (m *messages) build(r raftstore.Reader, td string, d Decision) (*ententev1.Bundle, error) {
	row, _, err := m.index.Stored(r, td, d)
	if err != nil {
		return nil, err
	}
	b, err := Parse(row.Value)
	if err != nil {
		return nil, fmt.Errorf("stored bundle of %s: %w", td, err)
	}
	if d.Origin == ByRelationship {
		if b, err = m.index.Foreign.Usable(d.Relationship.Value, b); err != nil {
			return nil, fmt.Errorf("usable part of the bundle of %s: %w", td, err)
		}
	}
	return Entry{
		Bundle: b, Hosted: d.Origin == ByHosting, ChangeTime: row.Value.GetChangeTime().AsTime(),
		Freshness: d.Status.State.Freshness(), Revision: uint64(row.Revision),
		IgnoredKeys: row.Value.GetIgnoredKeys(),
	}.Message(), nil
}
