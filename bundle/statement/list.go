package statement

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/refusal"
	"github.com/ententehq/entente/bundle/internal/strictjson"
)

// Bounds of a document of statements, written or read. A reader fetches the statements after the last one separately.
const (
	// MaxListed is the number of versions of a hosted domain that are kept.
	MaxListed = 100
	// MaxListBytes holds all of them for a domain with up to some thirty JWT authorities.
	MaxListBytes = 512 << 10
)

// statementsDocument is the document that an endpoint serves beside a bundle.
type statementsDocument struct {
	TrustDomain string   `json:"trust_domain"`
	Statements  []string `json:"statements"`
}

// MarshalList returns the document of the statements on the bundle of td, in compact serialization and in the order of
// their sequences: as many of the first as fit.
func MarshalList(td spiffeid.TrustDomain, statements []string) []byte {
	d := statementsDocument{
		TrustDomain: td.Name(),
		Statements:  append([]string{}, statements[:holds(td, statements)]...),
	}
	var buf bytes.Buffer
	if err := strictjson.WriteJSON(&buf, d); err != nil {
		return nil // impossible: it is made of strings
	}
	return buf.Bytes()
}

// holds returns the number of the first statements that fit into a document.
func holds(td spiffeid.TrustDomain, statements []string) int {
	size := len(`{"trust_domain":"","statements":[]}`) + len(td.Name())
	for i, s := range statements {
		if size += len(s) + len(`"",`); size > MaxListBytes || i == MaxListed {
			return i
		}
	}
	return len(statements)
}

// ParseList reads such a document. It is refused as a whole if it is for another domain, has an invalid statement, or
// is out of order.
func ParseList(td spiffeid.TrustDomain, document []byte) ([]*Statement, error) {
	statements, err := parseList(td, document)
	if err != nil {
		return nil, fmt.Errorf("statements of %s: %w", td, err)
	}
	return statements, nil
}

func parseList(td spiffeid.TrustDomain, document []byte) ([]*Statement, error) {
	if len(document) > MaxListBytes {
		return nil, fmt.Errorf(
			"%w: they have %d bytes, at most %d are allowed",
			bundle.ErrTooLarge,
			len(document),
			MaxListBytes,
		)
	}
	values, err := objectOf(document, "the document")
	if err != nil {
		return nil, err
	}
	name, err := strictjson.ParseString(values["trust_domain"], "trust_domain")
	if err != nil {
		return nil, err
	}
	if name != td.Name() {
		return nil, fmt.Errorf("%w: they are on %s", ErrInvalid, refusal.Clip(name))
	}
	n, err := strictjson.CountElements(values["statements"], "statements", MaxListed, ErrInvalid)
	if err != nil {
		return nil, err
	}
	statements := make([]*Statement, 0, n)
	err = strictjson.EachElement(
		values["statements"],
		"statements",
		MaxListed,
		ErrInvalid,
		func(i int, element json.RawMessage) error {
			compact, err := strictjson.ParseString(element, "a statement")
			if err != nil {
				return err
			}
			s, err := Parse(compact)
			if err != nil {
				return fmt.Errorf("statement %d: %w", i, err)
			}
			switch {
			case s.TrustDomain() != td:
				return fmt.Errorf("statement %d: %w: it is on %s", i, ErrInvalid, s.TrustDomain())
			case i > 0 && s.Sequence() <= statements[i-1].Sequence():
				return fmt.Errorf(
					"statement %d: %w: sequence %d does not come after %d",
					i,
					ErrInvalid,
					s.Sequence(),
					statements[i-1].Sequence(),
				)
			}
			statements = append(statements, s)
			return nil
		},
	)
	if err != nil {
		return nil, err
	}
	return statements, nil
}

// ListDomain returns the trust domain that a document of statements names for itself, and reads nothing else. It is a
// hint that must not be trusted.
func ListDomain(document []byte) (string, error) {
	if len(document) > MaxListBytes {
		return "", fmt.Errorf(
			"%w: they have %d bytes, at most %d are allowed",
			bundle.ErrTooLarge,
			len(document),
			MaxListBytes,
		)
	}
	values, err := objectOf(document, "the document")
	if err != nil {
		return "", err
	}
	return strictjson.ParseString(values["trust_domain"], "trust_domain")
}

// List holds the statements on one domain's bundle for an endpoint. It never changes.
type List struct {
	td        spiffeid.TrustDomain
	sequences []uint64
	compact   []string
}

// NewList returns the list of statements in compact serialization and in the order of their sequences. Unreadable ones
// are left out.
func NewList(td spiffeid.TrustDomain, statements []string) *List {
	s := &List{td: td}
	for _, compact := range statements {
		if parsed, err := Parse(compact); err == nil {
			s.sequences, s.compact = append(s.sequences, parsed.Sequence()), append(s.compact, compact)
		}
	}
	return s
}

// From returns the document of the statements from a sequence on, as many as fit, and the sequence after the last of
// them. The document is nil if there are none.
func (s *List) From(sequence uint64) (document []byte, next uint64) {
	if s == nil {
		return nil, sequence
	}
	first, _ := slices.BinarySearch(s.sequences, sequence)
	n := holds(s.td, s.compact[first:])
	if n == 0 {
		return nil, sequence
	}
	return MarshalList(s.td, s.compact[first:first+n]), s.sequences[first+n-1] + 1
}

// TrustDomain returns the domain of the statements.
func (s *List) TrustDomain() spiffeid.TrustDomain { return s.td }
