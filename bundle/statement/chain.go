package statement

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
)

// View is the version of a domain's bundle that one source served: its endpoint, a stream, a hub, or its own signed
// statement.
type View struct {
	// Source names the source in a few words.
	Source string
	// Sequence is that of the version. A view without one is not compared.
	Sequence uint64
	Ordered  bool
	// Keys is [bundle.Bundle.Digest].
	Keys [32]byte
	// Statement is the [Statement.Digest] of the statement on the version, or zero if the source served none.
	Statement [32]byte
}

// ViewOf returns the view of a bundle from source.
func ViewOf(b *bundle.Bundle, source string) View {
	sequence, ordered := b.Sequence()
	return View{Source: source, Sequence: sequence, Ordered: ordered, Keys: b.Digest()}
}

// View returns the view of the statement itself.
func (s *Statement) View(source string) View {
	return View{Source: source, Sequence: s.claims.Sequence, Ordered: true, Keys: s.claims.Keys, Statement: s.Digest()}
}

// SplitView is the error of two readers that were served different versions under one sequence, which an honest domain
// never does.
type SplitView struct{ A, B View }

// Error implements error.
func (e *SplitView) Error() string {
	if e.A.Keys != e.B.Keys {
		return fmt.Sprintf(
			"under sequence %d %s shows the keys %x, and %s %x",
			e.A.Sequence,
			e.A.Source,
			e.A.Keys[:8],
			e.B.Source,
			e.B.Keys[:8],
		)
	}
	return fmt.Sprintf(
		"under sequence %d %s and %s show the same keys and different statements",
		e.A.Sequence,
		e.A.Source,
		e.B.Source,
	)
}

// CompareViews compares two views of one domain. The error is a [*SplitView]. Views of different sequences, or without
// any, do not contradict each other; a missing statement contradicts none.
func CompareViews(a, b View) error {
	var none [32]byte
	switch {
	case !a.Ordered || !b.Ordered || a.Sequence != b.Sequence:
		return nil
	case a.Keys != b.Keys, a.Statement != none && b.Statement != none && a.Statement != b.Statement:
		return &SplitView{a, b}
	}
	return nil
}

// Known is the state of a reader of a domain's chain before it reads on.
type Known struct {
	TrustDomain spiffeid.TrustDomain
	// Newest is the newest checked statement, or nil.
	Newest *Statement
	// Seen returns the view that was served under a sequence, by whatever source.
	Seen func(sequence uint64) (View, bool)
	// Signers are the JWT authorities of the version before the one with sequence SignedFrom. They check the first
	// statement if Newest is nil. They are nil if unknown.
	Signers    map[string]crypto.PublicKey
	SignedFrom uint64
}

// Followed is the result of reading a chain.
type Followed struct {
	// Newest is the last accepted statement, or nil.
	Newest *Statement
	// Taken are all accepted statements, in order, without Newest of [Known].
	Taken []*Statement
	// Broken is the first reason why a statement does not continue the one before it. The statements after it were
	// read.
	Broken error
	// Restart is the first statement that starts the chain again, after there was one before.
	Restart *Statement
	// Split is the first contradiction between a statement and the view under its sequence.
	Split error
}

// Follow checks that statements continue the known chain, in the order of their sequences, up to the sequence until.
// The first violation of each kind is reported, and reading goes on: trust in a bundle does not depend on its
// statements, and later ones can be valid again. Known statements and those after until are skipped.
//
// The first statement that a reader ever gets is accepted without a check, unless the signers of the version before are
// known.
func Follow(known Known, statements []*Statement, until uint64) Followed {
	f := Followed{Newest: known.Newest}
	for _, s := range statements {
		if s.Sequence() > until {
			break
		}
		if known.Seen != nil && s.TrustDomain() == known.TrustDomain {
			if seen, ok := known.Seen(s.Sequence()); ok {
				if err := CompareViews(seen, s.View("its statement")); err != nil && f.Split == nil {
					f.Split = err
				}
			}
		}
		if f.Newest != nil && s.Sequence() <= f.Newest.Sequence() {
			continue
		}
		restarts := f.Newest != nil && s.Starts()
		if err := f.check(known, s); err != nil {
			if f.Broken == nil {
				f.Broken = err
			}
			if errors.Is(err, ErrSignature) || s.TrustDomain() != known.TrustDomain {
				continue // the domain did not sign it
			}
		} else if restarts && f.Restart == nil {
			f.Restart = s
		}
		f.Newest, f.Taken = s, append(f.Taken, s)
	}
	return f
}

func (f *Followed) check(known Known, s *Statement) error {
	switch {
	case s.TrustDomain() != known.TrustDomain:
		return fmt.Errorf("%w: it is on %s, not on %s", ErrLink, s.TrustDomain(), known.TrustDomain)
	case s.Starts():
		return s.VerifiedByOwn()
	case f.Newest != nil:
		return s.Continues(f.Newest)
	case known.Signers != nil && known.SignedFrom == s.Sequence():
		return s.VerifiedBy(known.Signers)
	}
	return nil
}
