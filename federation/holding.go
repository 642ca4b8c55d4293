package federation

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/raftstore"
)

// holding is what the loops need to know of a stored bundle. The bundle itself stays in the store: ten thousand of them, parsed,
// would be most of a member's memory.
type holding struct {
	// revision is that of the row; zero: no bundle is stored.
	revision   raftstore.Revision
	sequence   uint64
	ordered    bool
	digest     [32]byte
	hint       time.Duration
	hinted     bool
	x509Until  time.Time
	x509Keys   int
	jwtKeys    int
	changeTime time.Time
}

// holdingOf keeps of a bundle what the loops need.
func holdingOf(b *bundle.Bundle, changed time.Time, revision raftstore.Revision) holding {
	h := holding{revision: revision, digest: b.Digest(), jwtKeys: len(b.JWTAuthorities()), changeTime: changed}
	h.sequence, h.ordered = b.Sequence()
	h.hint, h.hinted = b.RefreshHint()
	for _, authority := range b.X509Authorities() {
		h.x509Keys++
		if authority.NotAfter.After(h.x509Until) {
			h.x509Until = authority.NotAfter
		}
	}
	return h
}

// facts is what [Judge] needs, with the relationship's own settings.
func (h holding) facts(r *Relationship, lastSuccess time.Time, least time.Duration) Facts {
	if !r.Kinds.X509 {
		h.x509Until = time.Time{}
	}
	if !r.Kinds.JWT {
		h.jwtKeys = 0
	}
	return Facts{
		Stored:       h.revision > 0,
		LastSuccess:  lastSuccess,
		Interval:     Interval(h.hint, h.hinted, least),
		X509Until:    h.x509Until,
		JWTKeys:      h.jwtKeys,
		MaxStaleX509: r.MaxStaleX509,
		MaxStaleJWT:  r.MaxStaleJWT,
	}
}

// each calls fn for every relationship, in no order. fn must not come back to the catalog.
func decodeHolding(value []byte, revision raftstore.Revision) (holding, error) {
	row := &statev1.Bundle{}
	if err := proto.Unmarshal(value, row); err != nil {
		return holding{}, err
	}
	return readHolding(row, revision)
}

func readHolding(row *statev1.Bundle, revision raftstore.Revision) (holding, error) {
	b, err := bundle.FromRow(row)
	if err != nil {
		return holding{}, err
	}
	return holdingOf(b, row.GetChangeTime().AsTime(), revision), nil
}

// version is that of what is held for a relationship.
func (h holding) version() version {
	if h.revision == 0 {
		return version{}
	}
	return version{h.sequence, h.ordered, h.digest}
}

// leftOut says in words what of a stored bundle is not relied on; empty: nothing.
func (k Kinds) leftOut(h holding) string {
	switch {
	case !k.X509 && h.x509Keys > 0:
		return fmt.Sprintf("%d X.509 authorities", h.x509Keys)
	case !k.JWT && h.jwtKeys > 0:
		return fmt.Sprintf("%d JWT authorities", h.jwtKeys)
	}
	return ""
}
