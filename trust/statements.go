package trust

import (
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
)

// Statements returns the signed statements on a hosted domain's bundle, parsed once for each change, with the revision
// of that change. The list is nil if the cluster makes no statements.
func (i *Index) Statements(r raftstore.Reader, td string) (*statement.List, raftstore.Revision, error) {
	return i.statements.of(r, td)
}

// statements keeps the parsed statements of hosted domains.
type statements struct {
	hosted Hosted
	byName *lru.Cache[string, statementsAt]
}

// statementsAt are the statements of a domain, by one revision of its history.
type statementsAt struct {
	revision raftstore.Revision
	list     *statement.List
}

func newStatements(h Hosted) *statements {
	return &statements{hosted: h, byName: newLRU[statementsAt]()}
}

func (s *statements) of(r raftstore.Reader, td string) (*statement.List, raftstore.Revision, error) {
	if s.hosted.Statements == nil {
		return nil, 0, nil
	}
	revision := s.hosted.History.PrefixRevision(r, td+"/")
	if known, ok := s.byName.Get(td); ok && known.revision == revision {
		return known.list, revision, nil
	}
	domain, err := bundle.ParseTrustDomain(td)
	if err != nil {
		return nil, 0, err
	}
	compact, err := s.hosted.Statements(r, td)
	if err != nil {
		return nil, 0, fmt.Errorf("statements on the bundle of %s: %w", td, err)
	}
	list := statement.NewList(domain, compact)
	s.byName.Add(td, statementsAt{revision, list})
	return list, revision, nil
}
