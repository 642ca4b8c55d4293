package federation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/access"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/raftstore"
)

// patience bounds every wait: far longer than anything takes on a busy machine.
const patience = 30 * time.Second

// peer is a bundle endpoint of another cluster, on loopback.
type peer struct {
	*httptest.Server
	mu      sync.Mutex
	cert    tls.Certificate
	handler http.HandlerFunc
	// statements answers for those, which are no requests for the bundle; nil: the endpoint makes none.
	statements http.HandlerFunc
	requests   []*http.Request
	asked      chan struct{}
}

// newPeer starts an endpoint that presents an SVID of the authority and serves a document.
func newPeer(t testing.TB, a *federationtest.Authority, b *bundle.Bundle) *peer {
	t.Helper()
	p := &peer{cert: a.SVID(t), asked: make(chan struct{}, 1)}
	p.serve(b)
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/statements") {
			p.state(w, r)
			return
		}
		p.mu.Lock()
		handler := p.handler
		p.requests = append(p.requests, r)
		p.mu.Unlock()
		select {
		case p.asked <- struct{}{}:
		default:
		}
		handler(w, r)
	}))
	p.Config.ErrorLog = hclog.NewNullLogger().StandardLogger(nil)
	p.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{p.cert}}, nil
	}}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// state answers a request for statements.
func (p *peer) state(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	handler := p.statements
	p.mu.Unlock()
	if handler == nil {
		handler = http.NotFound
	}
	handler(w, r)
}

func (p *peer) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
}

// serve serves a bundle as an endpoint should, with a strong ETag.
func (p *peer) serve(b *bundle.Bundle) {
	document := b.Marshal()
	sum := sha256.Sum256(document)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", fmt.Sprintf("%q", hex.EncodeToString(sum[:8])))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(document))
	})
}

func (p *peer) present(t testing.TB, a *federationtest.Authority) {
	cert := a.SVID(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cert = cert
}

// count is how many requests there were.
func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.requests)
}

// ledger is an audit log in memory.
type ledger struct {
	mu    sync.Mutex
	lines []access.Event
	full  bool
}

func (l *ledger) Record(e access.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full {
		return errors.New("no space left on device")
	}
	l.lines = append(l.lines, e)
	return nil
}

// said is the lines as "action object result".
func (l *ledger) said() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.lines {
		out = append(out, e.Action+" "+e.Object+": "+e.Result)
	}
	return out
}

// directLeader plays a membership of one member, which leads.
type directLeader struct {
	observations *Observations
	peers        *PeerReports
}

func (l *directLeader) Query(_ context.Context, section string, query []byte) ([]byte, error) {
	l.beat()
	switch section {
	case Section:
		return l.observations.Answer(query)
	case PeerSection:
		return l.peers.Answer(query)
	}
	return nil, errors.New("no such section")
}

// beat is a heartbeat of the member to itself.
func (l *directLeader) beat() {
	if report := l.observations.Collect(false); report != nil {
		l.observations.Deliver("member-1", report)
	}
	if report := l.peers.Collect(false); report != nil {
		l.peers.Deliver("member-1", report)
	}
}

// hostedBundles plays authority's table.
var hostedBundles = raftstore.NewTable[*statev1.Bundle]("hosted_bundles")

func isHosted(r raftstore.Reader, td string) (bool, error) {
	_, found, err := hostedBundles.Get(r, td)
	return found, err
}

// aliveMembers plays the rows that the leader writes of who is alive.
var aliveMembers = raftstore.NewTable[*statev1.AliveMember]("alive_in_test")

func alive(r raftstore.Reader) (names []string, err error) {
	for row, err := range aliveMembers.All(r, "") {
		if err != nil {
			return nil, err
		}
		names = append(names, row.Key)
	}
	return names, nil
}

// markAlive says which members are alive from now on.
func markAlive(t testing.TB, s *raftstore.Store, members ...string) {
	t.Helper()
	_, err := s.Update(context.Background(), func(tx *raftstore.Tx) error {
		rows, err := aliveMembers.List(tx, "")
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !slices.Contains(members, row.Key) {
				if err := aliveMembers.Delete(tx, row.Key); err != nil {
					return err
				}
			}
		}
		for _, member := range members {
			if err := aliveMembers.Put(tx, member, &statev1.AliveMember{}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
}
