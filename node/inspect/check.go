package inspect

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
)

// BundleCheck compares a saved bundle, statements about it and a cluster's history.
type BundleCheck struct {
	TrustDomain string  `json:"trust_domain"`
	Sequence    *uint64 `json:"sequence,omitempty"`
	Digest      string  `json:"digest"`
	// Findings describe in words which statement continues which, and what could not be checked.
	Findings []string `json:"findings"`
	// Contradictions are what an honest domain never shows.
	Contradictions []string `json:"contradictions"`

	td     spiffeid.TrustDomain
	bundle *bundle.Bundle
	views  []statement.View // of the statements
}

// NewBundleCheck reads a saved bundle document of a trust domain.
func NewBundleCheck(trustDomain string, document []byte) (*BundleCheck, error) {
	td, err := bundle.ParseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	b, _, err := bundle.ParseFile(td, document)
	if err != nil {
		return nil, err
	}
	digest := b.Digest()
	c := &BundleCheck{
		TrustDomain: td.Name(), Digest: hex.EncodeToString(digest[:]),
		Findings: []string{}, Contradictions: []string{}, td: td, bundle: b,
	}
	if n, ok := b.Sequence(); ok {
		c.Sequence = &n
	}
	return c, nil
}

func (c *BundleCheck) found(format string, args ...any) {
	c.Findings = append(c.Findings, fmt.Sprintf(format, args...))
}

func (c *BundleCheck) contradicts(format string, args ...any) {
	c.Contradictions = append(c.Contradictions, fmt.Sprintf(format, args...))
}

// StatementsDocument returns the document of statements that a bundle endpoint serves.
func StatementsDocument(trustDomain string, statements []string) ([]byte, error) {
	td, err := bundle.ParseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	return statement.MarshalList(td, statements), nil
}

// StatementsDomain returns the trust domain of a document of statements, or "" if it is not one.
func StatementsDomain(document []byte) string {
	name, err := statement.ListDomain(document)
	if err != nil {
		return ""
	}
	return name
}

// Statements checks the chain of a document of statements, and the bundle against it.
func (c *BundleCheck) Statements(document []byte) error {
	statements, err := statement.ParseList(c.td, document)
	if err != nil {
		return err
	}
	if len(statements) == 0 {
		c.found("there are no statements")
		return nil
	}
	var before *statement.Statement
	for _, s := range statements {
		c.views = append(c.views, s.View("the statement in the file"))
		c.link(before, s)
		before = s
	}
	c.own(statements)
	return nil
}

// link checks a statement against the one before it.
func (c *BundleCheck) link(before, s *statement.Statement) {
	switch {
	case s.Starts():
		if err := s.VerifiedByOwn(); err != nil {
			c.contradicts("sequence %d: starts a chain, but %v", s.Sequence(), err)
			return
		}
		c.found("sequence %d: a chain starts here (%s), signed by key %q of this version; the versions before it are "+
			"unknown", s.Sequence(), s.Claims().Start, s.KeyID())
	case before == nil:
		c.found("sequence %d: continues a statement that is not in the file; its link and its signature cannot be "+
			"checked", s.Sequence())
	default:
		if err := s.Continues(before); err != nil {
			c.contradicts("sequence %d: %v", s.Sequence(), err)
			return
		}
		c.found("sequence %d: continues %d, signed by key %q", s.Sequence(), before.Sequence(), s.KeyID())
	}
}

// own compares the bundle with the statement about its sequence.
func (c *BundleCheck) own(statements []*statement.Statement) {
	if c.Sequence == nil {
		c.found("the bundle has no sequence, so no statement covers it")
		return
	}
	i := slices.IndexFunc(statements, func(s *statement.Statement) bool { return s.Sequence() == *c.Sequence })
	if i < 0 {
		c.found("no statement covers the bundle's sequence %d: they cover %d to %d",
			*c.Sequence, statements[0].Sequence(), statements[len(statements)-1].Sequence())
		return
	}
	mine, theirs := statement.ViewOf(c.bundle, "the bundle"), statements[i].View("its statement")
	if err := statement.CompareViews(mine, theirs); err != nil {
		c.contradicts("%v", err)
		return
	}
	keys := c.bundle.JWTAuthorities()
	for _, kid := range slices.Sorted(maps.Keys(statements[i].Claims().Next)) {
		if !statements[i].Claims().Next[kid].Equal(keys[kid]) {
			c.contradicts("the statement on sequence %d names the key %q for the next one, which the bundle does not "+
				"hold",
				*c.Sequence, kid)
		}
	}
	c.found("the bundle matches the statement on sequence %d", *c.Sequence)
}

// Shown is one version in the history of a cluster, as its API returns it.
type Shown struct {
	Sequence        *uint64
	Digest          string
	StatementDigest string
	Source          string
}

// Against compares the bundle, and the statements that were checked before, with the history of a cluster.
func (c *BundleCheck) Against(cluster string, history []Shown) error {
	views := slices.Clone(c.views)
	if c.Sequence != nil {
		views = append(views, statement.ViewOf(c.bundle, "the bundle in the file"))
	}
	met := false
	for _, shown := range history {
		if shown.Sequence == nil {
			continue
		}
		theirs, err := shown.view(cluster)
		if err != nil {
			return err
		}
		for _, mine := range views {
			if mine.Sequence != theirs.Sequence {
				continue
			}
			met = true
			var split *statement.SplitView
			if err := statement.CompareViews(mine, theirs); errors.As(err, &split) {
				c.contradicts("%v", err)
			} else {
				c.found("sequence %d: %s equals what %s", mine.Sequence, mine.Source, theirs.Source)
			}
		}
	}
	if !met {
		c.found("nothing to compare: the history of %s holds none of the sequences in the file", cluster)
	}
	return nil
}

func (s Shown) view(cluster string) (statement.View, error) {
	v := statement.View{Source: fmt.Sprintf("%s has from %s", cluster, s.Source), Sequence: *s.Sequence, Ordered: true}
	for _, part := range []struct {
		text string
		to   []byte
	}{{s.Digest, v.Keys[:]}, {s.StatementDigest, v.Statement[:]}} {
		b, err := hex.DecodeString(part.text)
		if err != nil || len(b) != len(part.to) && len(b) != 0 {
			return v, fmt.Errorf("the history has the digest %q, which is not a SHA-256", part.text)
		}
		copy(part.to, b)
	}
	return v, nil
}

// BundleDifferences describes in words the differences between two documents of one trust domain. An empty first
// document is an empty bundle.
func BundleDifferences(trustDomain string, from, to []byte) ([]string, error) {
	td, err := bundle.ParseTrustDomain(trustDomain)
	if err != nil {
		return nil, err
	}
	var was *bundle.Bundle
	if len(bytes.TrimSpace(from)) > 0 {
		if was, _, err = bundle.Parse(td, from); err != nil {
			return nil, err
		}
	}
	is, _, err := bundle.Parse(td, to)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, d := range bundle.Differences(was, is) {
		lines = append(lines, d.Text)
	}
	return lines, nil
}
