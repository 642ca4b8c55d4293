package bundle

import (
	"net/url"
	"slices"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Statements are those on one domain's bundle, as an endpoint serves them. They do not change.
type Statements struct {
	td        spiffeid.TrustDomain
	sequences []uint64
	compact   []string
}

// NewStatements takes statements in compact serialization, in the order of their sequences, as they were signed here. What
// cannot be read is left out rather than served.
func NewStatements(td spiffeid.TrustDomain, statements []string) *Statements {
	s := &Statements{td: td}
	for _, compact := range statements {
		if parsed, err := ParseStatement(compact); err == nil {
			s.sequences, s.compact = append(s.sequences, parsed.Sequence()), append(s.compact, compact)
		}
	}
	return s
}

// From returns the document of the statements from a sequence on, as many as it can hold, and the sequence behind the last of them:
// there may be more. It is nil where there are none.
func (s *Statements) From(sequence uint64) (document []byte, next uint64) {
	if s == nil {
		return nil, sequence
	}
	first, _ := slices.BinarySearch(s.sequences, sequence)
	n := holds(s.td, s.compact[first:])
	if n == 0 {
		return nil, sequence
	}
	return MarshalStatements(s.td, s.compact[first:first+n]), s.sequences[first+n-1] + 1
}

// answer is the document of the statements from a sequence on. It is made for each request: who asks is few, seldom, and
// behind a little.
func (s *Statements) answer(query string) (*answer, bool) {
	from := uint64(0)
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, false
	}
	if text := values.Get("from"); text != "" {
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			return nil, false
		}
	}
	first, _ := slices.BinarySearch(s.sequences, from)
	return newAnswer(MarshalStatements(s.td, s.compact[first:])), true
}

// statementsAt returns the statements that stand at a path. At a host that a domain has for itself there are those of that
// domain alone.
func (r *rendered) statementsAt(host, path string) *Statements {
	s := r.statements[path]
	if td, ok := r.domains[host]; ok && s != nil && s.td != td {
		return nil
	}
	return s
}
