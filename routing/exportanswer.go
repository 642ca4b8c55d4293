package routing

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxReportedAnswers bounds one report of a member, and maxAnswersKept what the leader remembers, and tells.
	maxReportedAnswers, maxAnswersKept = 1000, 20000
	// maxRefusalWord bounds the reason that a peer gives.
	maxRefusalWord = 40
	// askedWithin is how long a listing waits for the leader, without whom it says less.
	askedWithin = 2 * time.Second
)

// Leader asks a section of the leader's memory for an answer, from any goroutine. It fails while there is no leader.
type Leader interface {
	Query(ctx context.Context, section string, query []byte) ([]byte, error)
}

// peerAnswer is what a peer said last of a set.
type peerAnswer struct {
	digest  digest
	refusal string
	at      time.Time
}

// refusalWord is a peer's reason as it is shown: a short word, whatever the peer wrote.
func refusalWord(reason string) string {
	if len(reason) > maxRefusalWord {
		return "other"
	}
	for _, c := range reason {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return "other"
		}
	}
	return reason
}

// answered takes down what the peer said of a set, for the leader. The zero digest: it does not import it any more.
func (f *Freight) answered(key sharedKey, which digest, refusal string) {
	f.heard[key] = peerAnswer{which, refusalWord(refusal), f.m.now()}
	f.unreported[key] = true
}

// report returns what the peer said since the last report, or all, as far as there is room.
func (f *Freight) report(full bool, room int) (out []*statev1.ExportAnswer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if full {
		for key := range f.heard {
			f.unreported[key] = true
		}
	}
	for key := range f.unreported {
		if len(out) >= room {
			break // the rest goes with the next report
		}
		a := f.heard[key]
		m := &statev1.ExportAnswer{
			HomeTrustDomain: f.stream.Home, TrustDomain: key.domain, Service: key.service, Refusal: a.refusal, Age: durationpb.New(max(0, f.m.now().Sub(a.at))),
		}
		if a.digest.none() {
			delete(f.heard, key)
		} else {
			m.Digest = a.digest[:]
		}
		out = append(out, m)
		delete(f.unreported, key)
	}
	return out
}

// answerLedger is the leader's memory of what peers said of what is exported to them.
type answerLedger struct {
	mu      sync.Mutex
	answers map[answerKey]peerAnswer
}

type answerKey struct {
	home string
	sharedKey
}

func newAnswerLedger() *answerLedger { return &answerLedger{answers: make(map[answerKey]peerAnswer)} }

func (l *answerLedger) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.answers)
}

func (l *answerLedger) deliver(list []*statev1.ExportAnswer, now time.Time) error {
	if len(list) > maxReportedAnswers {
		return fmt.Errorf("it has %d answers; %d are allowed", len(list), maxReportedAnswers)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range list {
		key := answerKey{m.GetHomeTrustDomain(), sharedKey{m.GetTrustDomain(), m.GetService()}}
		a := peerAnswer{refusal: m.GetRefusal(), at: now.Add(-max(0, m.GetAge().AsDuration()))}
		was, known := l.answers[key]
		switch {
		case known && was.at.After(a.at): // another stream of the peer has a later one
		case len(m.GetDigest()) != len(a.digest):
			delete(l.answers, key)
		case known || len(l.answers) < maxAnswersKept:
			copy(a.digest[:], m.GetDigest())
			l.answers[key] = a
		}
	}
	return nil
}

func (l *answerLedger) tell(now time.Time) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := &statev1.ExportAnswers{}
	for key, a := range l.answers {
		out.Answers = append(out.Answers, &statev1.ExportAnswer{
			HomeTrustDomain: key.home, TrustDomain: key.domain, Service: key.service, Digest: a.digest[:], Refusal: a.refusal, Age: durationpb.New(now.Sub(a.at)),
		})
	}
	return proto.Marshal(out)
}

// peerAnswers are what peers said, by the peer's home domain and the name of the export.
type peerAnswers map[[2]string][]saidOf

// saidOf is what a peer said of an export's instances in one trust domain.
type saidOf struct {
	sharedKey
	peerAnswer
}

// peerAnswers asks the leader what peers have said of what is exported to them. Without an answer nothing is known.
func (m *Manager) peerAnswers(ctx context.Context) peerAnswers {
	out := make(peerAnswers)
	if m.leader == nil {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, askedWithin)
	defer cancel()
	reply, err := m.leader.Query(ctx, ImportSection, nil)
	var answers statev1.ExportAnswers
	if err == nil {
		err = proto.Unmarshal(reply, &answers)
	}
	if err != nil {
		m.log.Debug("the leader did not tell what peers say of what is exported to them", "error", err)
		return out
	}
	now := m.now()
	for _, a := range answers.GetAnswers() {
		p := peerAnswer{refusal: a.GetRefusal(), at: now.Add(-a.GetAge().AsDuration())}
		copy(p.digest[:], a.GetDigest())
		of := [2]string{a.GetHomeTrustDomain(), a.GetService()}
		out[of] = append(out[of], saidOf{sharedKey{a.GetTrustDomain(), a.GetService()}, p})
	}
	return out
}

// standing says in an export what its peer has said of it: the worst of what it said of the domains of the instances.
func (m *Manager) standing(r raftstore.Reader, e Export, agreement Agreement, answers peerAnswers, out *ententev1.ServiceExport) error {
	for _, a := range answers[[2]string{agreement.Peer, e.Name}] {
		now, _, err := m.offered(r, []string{e.To}, a.sharedKey)
		if err != nil {
			return err
		}
		switch {
		case now.withheld || now.digest != a.digest:
			continue // it is on its way, or what was said was of another export
		case a.refusal != "":
			out.State, out.Refusal = ententev1.ExportState_EXPORT_STATE_REFUSED, a.refusal
			out.Detail = fmt.Sprintf("the cluster of %s refuses it (%s) and keeps what it had; 'entente service imports' there says more", e.To, a.refusal)
		case out.GetState() == ententev1.ExportState_EXPORT_STATE_OFFERED:
			out.State = ententev1.ExportState_EXPORT_STATE_ACKNOWLEDGED
		}
		if at := timestamppb.New(a.at); out.AnswerTime == nil || a.refusal != "" {
			out.AnswerTime = at
		}
	}
	return nil
}
