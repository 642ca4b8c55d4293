package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bounds of a document of statements, written or read. A reader that needs more asks for those behind the last.
const (
	// MaxStatements is how many versions of a hosted domain are kept.
	MaxStatements = 100
	// MaxStatementsBytes holds all of them where a domain has up to some thirty JWT authorities.
	MaxStatementsBytes = 512 << 10
)

// statementsDocument is what an endpoint serves beside a bundle.
type statementsDocument struct {
	TrustDomain string   `json:"trust_domain"`
	Statements  []string `json:"statements"`
}

// MarshalStatements writes the statements on the bundle of td, in compact serialization and in the order of their
// sequences: as many from the first on as a document can hold.
func MarshalStatements(td spiffeid.TrustDomain, statements []string) []byte {
	d := statementsDocument{TrustDomain: td.Name(), Statements: append([]string{}, statements[:holds(td, statements)]...)}
	var buf bytes.Buffer
	if err := writeJSON(&buf, d); err != nil {
		return nil // cannot be: it is made of strings
	}
	return buf.Bytes()
}

// holds is how many of the first statements a document can hold.
func holds(td spiffeid.TrustDomain, statements []string) int {
	size := len(`{"trust_domain":"","statements":[]}`) + len(td.Name())
	for i, s := range statements {
		if size += len(s) + len(`"",`); size > MaxStatementsBytes || i == MaxStatements {
			return i
		}
	}
	return len(statements)
}

// ParseStatements reads such a document. It is refused as a whole if it is for another domain, holds what is no statement
// on td, or is out of order.
func ParseStatements(td spiffeid.TrustDomain, document []byte) ([]*Statement, error) {
	statements, err := parseStatements(td, document)
	if err != nil {
		return nil, fmt.Errorf("statements of %s: %w", td, err)
	}
	return statements, nil
}

func parseStatements(td spiffeid.TrustDomain, document []byte) ([]*Statement, error) {
	if len(document) > MaxStatementsBytes {
		return nil, fmt.Errorf("%w: they have %d bytes, at most %d are allowed", ErrTooLarge, len(document), MaxStatementsBytes)
	}
	values, err := objectOf(document, "the document")
	if err != nil {
		return nil, err
	}
	name, err := parseString(values["trust_domain"], "trust_domain")
	if err != nil {
		return nil, err
	}
	if name != td.Name() {
		return nil, fmt.Errorf("%w: they are on %s", ErrStatement, clip(name))
	}
	n, err := countElements(values["statements"], "statements", MaxStatements, ErrStatement)
	if err != nil {
		return nil, err
	}
	statements := make([]*Statement, 0, n)
	err = eachElement(values["statements"], "statements", MaxStatements, ErrStatement, func(i int, element json.RawMessage) error {
		compact, err := parseString(element, "a statement")
		if err != nil {
			return err
		}
		s, err := ParseStatement(compact)
		if err != nil {
			return fmt.Errorf("statement %d: %w", i, err)
		}
		switch {
		case s.TrustDomain() != td:
			return fmt.Errorf("statement %d: %w: it is on %s", i, ErrStatement, s.TrustDomain())
		case i > 0 && s.Sequence() <= statements[i-1].Sequence():
			return fmt.Errorf("statement %d: %w: sequence %d does not come after %d", i, ErrStatement, s.Sequence(), statements[i-1].Sequence())
		}
		statements = append(statements, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return statements, nil
}

// StatementsDomain reads from a document of statements, and from nothing else of it, which trust domain it is about. It says
// so itself: it is a hint, for where nobody else says it.
func StatementsDomain(document []byte) (string, error) {
	if len(document) > MaxStatementsBytes {
		return "", fmt.Errorf("%w: they have %d bytes, at most %d are allowed", ErrTooLarge, len(document), MaxStatementsBytes)
	}
	values, err := objectOf(document, "the document")
	if err != nil {
		return "", err
	}
	return parseString(values["trust_domain"], "trust_domain")
}
