package statement

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
)

// View is what one source showed of a domain's bundle: its endpoint, a stream, a hub, or its own signed statement.
type View struct {
	// Source says in a few words whose word it is.
	Source string
	// Sequence is that of the version; a view without one cannot be compared.
	Sequence uint64
	Ordered  bool
	// Keys is [Bundle.Digest].
	Keys [32]byte
	// Statement is [Statement.Digest] of the statement on the version; all zero: the source showed none.
	Statement [32]byte
}

// ViewOf is what source showed by a bundle.
func ViewOf(b *bundle.Bundle, source string) View {
	sequence, ordered := b.Sequence()
	return View{Source: source, Sequence: sequence, Ordered: ordered, Keys: b.Digest()}
}

// View is what the statement says, by itself.
func (s *Statement) View(source string) View {
	return View{Source: source, Sequence: s.claims.Sequence, Ordered: true, Keys: s.claims.Keys, Statement: s.Digest()}
}

// SplitView is an error that says that two readers were shown different things under one sequence, which an honest
// domain does to nobody.
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

// CompareViews holds two views of one domain against each other. The error is a [*SplitView]. Views of different
// sequences, or without any, do not contradict each other, and neither do two of which one shows no statement.
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

// Known is what a reader of a domain's chain knows before it reads on.
type Known struct {
	TrustDomain spiffeid.TrustDomain
	// Newest is the newest statement that it has checked; nil: none yet.
	Newest *Statement
	// Seen returns what it was shown under a sequence, by whatever source.
	Seen func(sequence uint64) (View, bool)
	// Signers are the JWT authorities of the version before the one with sequence SignedFrom; they check the first
	// statement where Newest is nil. Nil: not known.
	Signers    map[string]crypto.PublicKey
	SignedFrom uint64
}

// Followed is what came of reading a chain.
type Followed struct {
	// Newest is the last statement that was taken; nil: there is none.
	Newest *Statement
	// Taken are all that were taken, in order. Newest of [Known] is not among them.
	Taken []*Statement
	// Broken says why a statement does not continue the one before it: the first such reason. The reading went on
	// behind it.
	Broken error
	// Restart is the first statement by which the chain starts anew, as it says itself, after there was one before.
	Restart *Statement
	// Split says that a statement contradicts what was shown under its sequence: the first such.
	Split error
}

// Follow reads statements, in the order of their sequences, up to the sequence until, and says whether they continue
// what is known. Whatever is wrong is said once and read over: trust in a bundle does not hang on its statements, and
// those that follow are of use again. Statements that are known already and those beyond until are passed over.
//
// The first statement that a reader ever gets is taken as it is, unless it can be checked by the version before: who
// has seen nothing has nothing to compare with.
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
				continue // it is nobody's word on this domain
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
