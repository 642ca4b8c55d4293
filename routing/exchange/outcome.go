package exchange

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore/membership/memory"
)

const (
	// OutcomeSection is the name under which [Outcomes] is registered with the membership.
	OutcomeSection = "exports"
	// maxReportedOutcomes bounds one report of a member, maxOutcomes what the leader keeps.
	maxReportedOutcomes, maxOutcomes = 1000, 20000
	// maxReasonWord bounds the reason that a peer gives.
	maxReasonWord = 40
	// queryTimeout is how long a listing waits for the leader. Without it, outcomes are unknown.
	queryTimeout = 2 * time.Second
)

// Leader queries a section of the leader's memory, from any goroutine. It fails while there is no leader.
type Leader interface {
	Query(ctx context.Context, section string, query []byte) ([]byte, error)
}

// Outcomes knows what peers have acknowledged or refused of the sets that are exported to them. It is a section of the
// leader's memory: each member reports the outcomes of its streams with its heartbeats, and any member can query all of
// them from the leader.
type Outcomes struct {
	*memory.Section[outcomeKey, outcome]
	leader Leader
	now    func() time.Time
	log    hclog.Logger
}

// outcomeKey identifies a set at a peer.
type outcomeKey struct {
	home string
	setKey
}

// outcome is the last answer of a peer for a set. The zero digest means that the peer does not import the set any more.
type outcome struct {
	digest  digest
	refusal string
	at      time.Time
}

func newOutcomes(c Config) *Outcomes {
	o := &Outcomes{leader: c.Leader, now: c.Now, log: c.Logger}
	o.Section = memory.New(memory.Config[outcomeKey, outcome]{
		Name: OutcomeSection, Now: c.Now, MaxReport: maxReportedOutcomes, MaxReceived: maxOutcomes,
		Encode: func(r memory.Report[outcomeKey, outcome]) ([]byte, error) { return o.encode(r.Entries) },
		Decode: func(_ string, report []byte) (memory.Report[outcomeKey, outcome], error) {
			entries, err := o.decode(report, maxReportedOutcomes)
			return memory.Report[outcomeKey, outcome]{Entries: entries}, err
		},
		Once: func(_ outcomeKey, is outcome) bool { return is.digest.none() },
		Merge: func(was outcome, known bool, is outcome) (outcome, bool) {
			if known && was.at.After(is.at) {
				return was, true // another stream of the peer has a later outcome
			}
			return is, !is.digest.none()
		},
		Answer: func([]byte) ([]byte, error) {
			var all []memory.Entry[outcomeKey, outcome]
			for key, value := range o.Received.All() {
				all = append(all, memory.Entry[outcomeKey, outcome]{Key: key, Value: value})
			}
			return o.encode(all)
		},
		Refused: func(member string, err error) {
			c.Logger.Warn("a report of the outcomes of exports is refused", "member", member, "error", err)
		},
	})
	return o
}

// set records the answer of a peer for a set.
func (o *Outcomes) set(home string, key setKey, version digest, refusal string) {
	o.Own.Set(outcomeKey{home, key}, outcome{version, reasonWord(refusal), o.now()})
}

// deletePeer forgets what this member reports of a peer. The leader keeps what it has received.
func (o *Outcomes) deletePeer(home string) {
	o.Own.DeleteFunc(func(key outcomeKey, _ outcome) bool { return key.home == home })
}

// reasonWord returns the reason that a peer gives, or "other" if it is not a short word.
func reasonWord(reason string) string {
	if len(reason) > maxReasonWord {
		return "other"
	}
	for _, c := range reason {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return "other"
		}
	}
	return reason
}

func (o *Outcomes) encode(entries []memory.Entry[outcomeKey, outcome]) ([]byte, error) {
	now := o.now()
	report := &statev1.ExportReport{}
	for _, e := range entries {
		m := &statev1.ExportOutcome{
			HomeTrustDomain: e.Key.home, TrustDomain: e.Key.domain, Service: e.Key.service,
			Refusal: e.Value.refusal, Age: durationpb.New(max(0, now.Sub(e.Value.at))),
		}
		if !e.Value.digest.none() {
			m.Digest = e.Value.digest[:]
		}
		report.Outcomes = append(report.Outcomes, m)
	}
	return proto.Marshal(report)
}

func (o *Outcomes) decode(encoded []byte, limit int) (entries []memory.Entry[outcomeKey, outcome], err error) {
	var report statev1.ExportReport
	if err := proto.Unmarshal(encoded, &report); err != nil {
		return nil, err
	}
	if n := len(report.GetOutcomes()); n > limit {
		return nil, fmt.Errorf("it has %d outcomes; %d are allowed", n, limit)
	}
	now := o.now()
	for _, m := range report.GetOutcomes() {
		value := outcome{refusal: m.GetRefusal(), at: now.Add(-max(0, m.GetAge().AsDuration()))}
		if len(m.GetDigest()) == len(value.digest) {
			copy(value.digest[:], m.GetDigest())
		}
		entries = append(entries, memory.Entry[outcomeKey, outcome]{
			Key: outcomeKey{m.GetHomeTrustDomain(), setKey{m.GetTrustDomain(), m.GetService()}}, Value: value,
		})
	}
	return entries, nil
}

// outcomesByExport has the outcomes of the sets of an export.
type outcomesByExport map[exportName][]setOutcome

// exportName identifies an export by the home trust domain of the peer and the name of the service there.
type exportName struct{ home, name string }

// setOutcome is the outcome of the instances of an export in one trust domain.
type setOutcome struct {
	setKey
	outcome
}

// query returns what the leader knows. Without a leader it returns nothing.
func (o *Outcomes) query(ctx context.Context) outcomesByExport {
	all := make(outcomesByExport)
	if o.leader == nil {
		return all
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	reply, err := o.leader.Query(ctx, OutcomeSection, nil)
	var entries []memory.Entry[outcomeKey, outcome]
	if err == nil {
		entries, err = o.decode(reply, maxOutcomes)
	}
	if err != nil {
		o.log.Debug("the outcomes of exports are unknown", "error", err)
		return all
	}
	for _, e := range entries {
		name := exportName{e.Key.home, e.Key.service}
		all[name] = append(all[name], setOutcome{e.Key.setKey, e.Value})
	}
	return all
}
