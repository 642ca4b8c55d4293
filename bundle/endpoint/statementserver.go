package endpoint

import (
	"net/url"
	"strconv"

	"github.com/ententehq/entente/bundle/statement"
)

// statementsDocument returns the document of the statements from a sequence on. It is made for each request, since
// requests are rare and need few statements.
func statementsDocument(s *statement.List, query string) (*cachedDocument, bool) {
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
	document, _ := s.From(from)
	if document == nil {
		document = statement.MarshalList(s.TrustDomain(), nil)
	}
	return newCachedDocument(document), true
}

// statementsAt returns the statements at a path. At the host of one domain there are only those of that domain.
func (r *rendered) statementsAt(host, path string) *statement.List {
	s := r.statements[path]
	if td, ok := r.domains[host]; ok && s != nil && s.TrustDomain() != td {
		return nil
	}
	return s
}
