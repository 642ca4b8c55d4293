package intake

import (
	"bytes"
	"context"
	"fmt"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// A version may be without a statement for stateWithin refresh intervals, and at least stateWithinLeast, where earlier
// versions have one. Members sign at once, but one that lost its leadership may need a moment.
const (
	stateWithin      = 3
	stateWithinLeast = time.Minute
)

// StatementsDue returns the first sequence whose statement is missing. There is none where the bundle has no sequence.
func StatementsDue(h *statev1.ForeignHistory) (from uint64, due bool) {
	newest := relationship.NewestVersion(h)
	if newest == nil || newest.Sequence == nil || len(newest.GetStatementDigest()) > 0 {
		return 0, false
	}
	if last, err := statement.Parse(h.GetStatement()); err == nil && last.Sequence() < newest.GetSequence() {
		return last.Sequence() + 1, true
	}
	return newest.GetSequence(), true
}

// JudgeStatements decides on statements of a foreign bundle. It adds those that continue the chain to the history. It
// returns the alarms to raise, and a result: [StatementsTaken], also where all statements are known, or why none was
// taken.
func JudgeStatements(
	h *statev1.ForeignHistory,
	statements []*statement.Statement,
	now time.Time,
	interval time.Duration,
) (alarms []relationship.Alarm, result string) {
	newest := relationship.NewestVersion(h)
	if newest == nil || newest.Sequence == nil {
		return nil, StatementsEarly
	}
	td, err := bundle.ParseTrustDomain(newest.GetTrustDomain())
	if err != nil {
		return nil, StatementsUnjudged
	}
	known := statement.Known{
		TrustDomain: td,
		Seen:        func(sequence uint64) (statement.View, bool) { return relationship.Shown(h, sequence) },
	}
	if h.GetStatement() != "" {
		if known.Newest, err = statement.Parse(h.GetStatement()); err != nil {
			return []relationship.Alarm{
				{
					Name:     relationship.AlarmBrokenChain,
					Sequence: newest.GetSequence(),
					Detail:   "the stored statement cannot be read: " + err.Error(),
				},
			}, StatementsUnjudged
		}
	} else if n := len(h.GetVersions()); n > 1 && !newest.GetResetsSequence() {
		if before := h.GetVersions()[n-2]; before.Sequence != nil && before.GetSequence()+1 == newest.GetSequence() {
			if b, err := relationship.VersionOf(h, before); err == nil {
				known.Signers, known.SignedFrom = b.JWTAuthorities(), newest.GetSequence()
			}
		}
	}
	f := statement.Follow(known, statements, newest.GetSequence())
	if f.Broken != nil {
		alarms = append(
			alarms,
			relationship.Alarm{
				Name:     relationship.AlarmBrokenChain,
				Sequence: newest.GetSequence(),
				Detail:   f.Broken.Error(),
			},
		)
	}
	if f.Restart != nil {
		alarms = append(
			alarms,
			relationship.Alarm{
				Name:     relationship.AlarmNewChain,
				Sequence: f.Restart.Sequence(),
				Detail: fmt.Sprintf(
					"the domain says that its chain of statements restarts (%s); "+
						"nothing but its endpoint confirms that this is no forgery",
					f.Restart.Claims().Start,
				),
			},
		)
	}
	if f.Split != nil {
		alarms = append(
			alarms,
			relationship.Alarm{
				Name:     relationship.AlarmSplitView,
				Sequence: newest.GetSequence(),
				Detail:   f.Split.Error(),
			},
		)
	}
	for _, s := range f.Taken {
		digest, keys := s.Digest(), s.Claims().Keys
		for _, v := range h.GetVersions() {
			if v.Sequence != nil && v.GetSequence() == s.Sequence() && bytes.Equal(v.GetDigest(), keys[:]) {
				v.StatementDigest = digest[:]
			}
		}
	}
	if f.Newest != nil {
		h.Statement = f.Newest.String()
	}
	if known.Newest != nil && f.Newest.Sequence() < newest.GetSequence() &&
		now.Sub(newest.GetTime().AsTime()) > max(stateWithin*interval, stateWithinLeast) {
		alarms = append(
			alarms,
			relationship.Alarm{
				Name:     relationship.AlarmBrokenChain,
				Sequence: newest.GetSequence(),
				Detail: fmt.Sprintf(
					"there is no statement on sequence %d, and there was one on %d",
					newest.GetSequence(),
					f.Newest.Sequence(),
				),
			},
		)
	}
	return alarms, resultOf(f, statements, newest.GetSequence())
}

// The results of statements, besides the reasons of package bundle.
const (
	StatementsTaken = "ok"
	// StatementsEarly is the result of statements on versions after the stored one.
	StatementsEarly = "early"
	// StatementsUnjudged is the result where this cluster could not judge them, or not write the result.
	StatementsUnjudged = "not_stored"
)

// resultOf names the result of statements that were read up to a sequence.
func resultOf(f statement.Followed, statements []*statement.Statement, until uint64) string {
	switch n := len(statements); {
	case f.Split != nil:
		return relationship.AlarmSplitView
	case len(f.Taken) > 0:
		return StatementsTaken
	case f.Broken != nil:
		return relationship.ReasonOf(f.Broken)
	case n > 0 && statements[n-1].Sequence() > until:
		return StatementsEarly
	}
	return StatementsTaken
}

// LacksStatements returns the first sequence of a foreign bundle whose statement is missing.
func (in *Intake) LacksStatements(name string) (from uint64, missing bool) {
	h, err := relationship.HistoryOf(in.config.Store.View(), name)
	if err != nil {
		return 0, false
	}
	return StatementsDue(h)
}

// TakeStatements judges statements from any source, in the order of their sequences, and writes what is new: statements
// that continue the chain, and alarms. The result is that of [JudgeStatements]. An error means that it could not be
// written.
func (in *Intake) TakeStatements(
	ctx context.Context,
	name string,
	statements []*statement.Statement,
) (result string, err error) {
	var raised []relationship.Alarm
	revision, err := in.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		raised, result = nil, relationship.ReasonNotWanted
		row, found, err := relationship.Relationships.Get(tx, name)
		if err != nil || !found {
			return err
		}
		h, err := relationship.HistoryOf(tx, name)
		if err != nil {
			return err
		}
		was := proto.Clone(h)
		var alarms []relationship.Alarm
		alarms, result = JudgeStatements(h, statements, in.config.Now(), in.statementInterval(tx, name))
		if !proto.Equal(was, h) {
			if err := relationship.ForeignHistory.Put(tx, name, h); err != nil {
				return err
			}
		}
		if raised = relationship.Raise(row.Value, alarms, timestamppb.New(in.config.Now())); len(raised) == 0 {
			return nil
		}
		return relationship.Relationships.Put(tx, name, row.Value)
	})
	if err != nil {
		return StatementsUnjudged, fmt.Errorf("write the result of the statements on %s: %w", name, err)
	}
	in.Announce(name, raised, revision)
	return result, nil
}

func (in *Intake) statementInterval(r raftstore.Reader, name string) time.Duration {
	row, found, err := relationship.ForeignBundles.Get(r, name)
	if err != nil || !found {
		return in.Interval(0, relationship.Holding{})
	}
	b, err := trust.Parse(row.Value)
	if err != nil {
		return in.Interval(0, relationship.Holding{})
	}
	return in.Interval(0, relationship.NewHolding(b, time.Time{}, row.Revision))
}

// StatedSequence returns the sequence up to which the statements of a domain were checked, or nil.
func StatedSequence(r raftstore.Reader, name string) (*uint64, error) {
	h, err := relationship.HistoryOf(r, name)
	if err != nil || h.GetStatement() == "" {
		return nil, err
	}
	s, err := statement.Parse(h.GetStatement())
	if err != nil {
		return nil, err
	}
	return new(s.Sequence()), nil
}
