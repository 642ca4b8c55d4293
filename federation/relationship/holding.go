package relationship

import (
	"fmt"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Holding has the facts about a stored bundle that loops need. The bundle itself stays in the store: ten thousand
// parsed bundles would be most of a member's memory.
type Holding struct {
	// Revision is that of the row. If zero, no bundle is stored.
	Revision  raftstore.Revision
	Sequence  uint64
	Ordered   bool
	Digest    [32]byte
	Hint      time.Duration
	Hinted    bool
	X509Until time.Time
	x509Keys  int
	JwtKeys   int
	// IgnoredKeys counts the keys of the document that are left out.
	IgnoredKeys int
	ChangeTime  time.Time
}

// NewHolding returns the facts about a bundle.
func NewHolding(b *bundle.Bundle, changed time.Time, revision raftstore.Revision) Holding {
	h := Holding{
		Revision: revision, Digest: b.Digest(), JwtKeys: len(b.JWTAuthorities()), IgnoredKeys: b.LeftOut(),
		ChangeTime: changed,
	}
	h.Sequence, h.Ordered = b.Sequence()
	h.Hint, h.Hinted = b.RefreshHint()
	for _, authority := range b.X509Authorities() {
		h.x509Keys++
		if authority.NotAfter.After(h.X509Until) {
			h.X509Until = authority.NotAfter
		}
	}
	return h
}

// Facts returns the input of [Judge] under a relationship's settings.
func (h Holding) Facts(r *Relationship, lastSuccess time.Time, least time.Duration) Facts {
	if !r.Kinds.X509 {
		h.X509Until = time.Time{}
	}
	if !r.Kinds.JWT {
		h.JwtKeys = 0
	}
	return Facts{
		Stored:       h.Revision > 0,
		Static:       r.Static,
		LastSuccess:  lastSuccess,
		Interval:     Interval(r.PollInterval, h.Hint, h.Hinted, least),
		X509Until:    h.X509Until,
		JWTKeys:      h.JwtKeys,
		MaxStaleX509: r.MaxStaleX509,
		MaxStaleJWT:  r.MaxStaleJWT,
	}
}

// DecodeHolding reads the value of a row.
func DecodeHolding(value []byte, revision raftstore.Revision) (Holding, error) {
	row := &statev1.Bundle{}
	if err := proto.Unmarshal(value, row); err != nil {
		return Holding{}, err
	}
	return ReadHolding(row, revision)
}

// ReadHolding returns the facts about a stored bundle.
func ReadHolding(row *statev1.Bundle, revision raftstore.Revision) (Holding, error) {
	b, err := trust.Parse(row)
	if err != nil {
		return Holding{}, err
	}
	h := NewHolding(b, row.GetChangeTime().AsTime(), revision)
	h.IgnoredKeys = int(row.GetIgnoredKeys())
	return h, nil
}

// Version returns the version of the bundle.
func (h Holding) Version() Version {
	if h.Revision == 0 {
		return Version{}
	}
	return Version{h.Sequence, h.Ordered, h.Digest}
}

// LeftOut describes the part of a stored bundle that the relationship does not rely on, or returns "".
func (k Kinds) LeftOut(h Holding) string {
	switch {
	case !k.X509 && h.x509Keys > 0:
		return fmt.Sprintf("%d X.509 authorities", h.x509Keys)
	case !k.JWT && h.JwtKeys > 0:
		return fmt.Sprintf("%d JWT authorities", h.JwtKeys)
	}
	return ""
}

// Version names one version of a bundle. The zero value is that of none.
type Version struct {
	Sequence uint64
	Ordered  bool
	Digest   [32]byte
}

// None reports whether there is no bundle.
func (v Version) None() bool { return v == Version{} }

// Replaces reports whether a bundle of this version is worth sending to a peer that has another one.
func (v Version) Replaces(had Version) bool {
	switch {
	case had.None():
		return true
	case v.Ordered && had.Ordered:
		return v.Sequence > had.Sequence || v.Sequence == had.Sequence && v.Digest != had.Digest
	}
	return v.Digest != had.Digest
}

// Message returns the version as peers exchange it.
func (v Version) Message(td string) *ententev1.PeerBundleVersion {
	m := &ententev1.PeerBundleVersion{TrustDomain: td}
	if v.None() {
		return m
	}
	m.Digest = v.Digest[:]
	if v.Ordered {
		m.Sequence = &v.Sequence
	}
	return m
}
