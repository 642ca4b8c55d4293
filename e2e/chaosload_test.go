package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/e2e/chaos"
)

const (
	// callLimit bounds a call of the load: a member that is paused does not answer.
	callLimit = 3 * time.Second
	// rowsOfTable and callsOfTable bound a table of transactions, so that its history can be checked.
	rowsOfTable, callsOfTable, unknownOfTable = 3, 60, 6
)

// load is the clients of a run of chaos, and what they record.
type load struct {
	c     *cluster
	name  string
	h     *chaos.History
	began time.Time
	seed  uint64
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu     sync.Mutex
	tables map[int]*table // by group of clients
	wrong  []string       // answers that are wrong by themselves
	calls  int
}

// table is a table of transactions that is in use.
type table struct {
	name           string
	calls, unknown int
}

// startLoad starts the clients. name distinguishes what they write from what earlier loads wrote.
func startLoad(t *testing.T, c *cluster, h *chaos.History, began time.Time, seed uint64, name string) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{c: c, name: name, h: h, began: began, seed: seed, stop: stop, tables: map[int]*table{}}
	for i := range 4 {
		l.repeat(ctx, 5*time.Millisecond, func(random *rand.Rand, n int) { l.transact(ctx, random, name, i, n) })
	}
	for i, p := range c.members {
		l.repeat(ctx, 50*time.Millisecond, func(_ *rand.Rand, n int) { l.write(ctx, p, name, i, n) })
		l.repeat(ctx, 20*time.Millisecond, func(*rand.Rand, int) { l.fetch(p) })
		l.repeat(ctx, 50*time.Millisecond, func(*rand.Rand, int) { l.hint(ctx, p, name) })
		l.repeat(ctx, 100*time.Millisecond, func(*rand.Rand, int) { l.watch(ctx, p) })
	}
	l.repeat(
		ctx,
		50*time.Millisecond,
		func(random *rand.Rand, _ int) { l.issue(ctx, c.members[random.IntN(len(c.members))]) },
	)
	l.repeat(ctx, 300*time.Millisecond, func(random *rand.Rand, n int) {
		l.changeBundle(ctx, c.members[random.IntN(len(c.members))], n)
	})
	return l
}

// renew lets the clients begin new tables.
func (l *load) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.tables)
}

// end ends the clients.
func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// repeat calls a function with pauses until ctx ends.
func (l *load) repeat(ctx context.Context, pause time.Duration, act func(random *rand.Rand, n int)) {
	random := rand.New(rand.NewPCG(l.seed, rand.Uint64()))
	l.done.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				act(random, n)
				l.mu.Lock()
				l.calls++
				l.mu.Unlock()
			}
		}
	})
}

func (l *load) now() time.Duration { return time.Since(l.began) }

func (l *load) wrongf(format string, arguments ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, arguments...))
}

func (l *load) seen(call time.Duration, p *process, what string, value uint64) {
	l.h.Add(chaos.Seen{Span: chaos.Span{Call: call, Return: l.now()}, Member: p.id, What: what, Value: value})
}

// instanceOf is a row: an instance of a service, whose weight is a value.
func (l *load) instanceOf(service, address string, weight uint32) *ententev1.Instance {
	return &ententev1.Instance{
		Service: service, Address: address, Weight: weight, Locality: &ententev1.Locality{Region: "r", Zone: "z"},
		SpiffeId: "spiffe://" + l.c.domain + "/load",
	}
}

// transact makes one transaction through a member, on a service that two clients share. Its instances are the rows.
func (l *load) transact(ctx context.Context, random *rand.Rand, name string, id, n int) {
	p := l.c.members[random.IntN(len(l.c.members))]
	l.mu.Lock()
	shared := l.tables[id/2]
	if shared == nil || shared.calls >= callsOfTable || shared.unknown >= unknownOfTable {
		shared = &table{name: fmt.Sprintf("table-%s-%d-%d", name, id, n)}
		l.tables[id/2] = shared
	}
	shared.calls++
	l.mu.Unlock()
	t := chaos.Transaction{
		Client: id, Table: shared.name, Action: chaos.Action(random.IntN(3)),
		Row: fmt.Sprintf("10.0.0.%d:80", random.IntN(rowsOfTable)),
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	t.Call = l.now()
	var err error
	switch routing := p.socket().Routing(); t.Action {
	case chaos.Put:
		weight := uint32(n*4 + id + 1) //nolint:gosec // G115: a run has few calls
		t.Value = fmt.Sprint(weight)
		_, err = routing.RegisterInstance(call, &ententev1.RegisterInstanceRequest{
			Instance: l.instanceOf(t.Table, t.Row, weight),
		})
	case chaos.Delete:
		_, err = routing.DeregisterInstance(
			call,
			&ententev1.DeregisterInstanceRequest{Service: t.Table, Address: t.Row},
		)
		t.Existed = err == nil
		if errors.Is(err, client.ErrNotFound) {
			err = nil
		}
	default:
		t.Row = ""
		var service *ententev1.Service
		service, err = routing.GetService(call, &ententev1.GetServiceRequest{
			Name: t.Table, Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_LINEARIZABLE},
		})
		if errors.Is(err, client.ErrNotFound) {
			err = nil
		}
		t.Rows = map[string]string{}
		for _, i := range service.GetInstances() {
			t.Rows[i.GetAddress()] = fmt.Sprint(i.GetWeight())
		}
	}
	t.Return = l.now()
	switch {
	case err == nil:
	case t.Action == chaos.List || !errors.Is(err, client.ErrUnknownOutcome):
		return // a failed read has no result; a write that failed with another error was not made
	default:
		t.Unknown = true
		l.mu.Lock()
		shared.unknown++
		l.mu.Unlock()
	}
	l.h.Add(t)
}

// write adds a row through one member, after it was asked whether it is ready to write.
func (l *load) write(ctx context.Context, p *process, name string, member, n int) {
	begun := l.now()
	ready := p.readyTo("/ready/write") == nil
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	w := chaos.Write{Row: fmt.Sprintf("rows-%s-%d 10.%d.%d.%d:80", name, member, n>>16&255, n>>8&255, n&255)}
	service, address, _ := strings.Cut(w.Row, " ")
	w.Call = l.now()
	_, err := p.socket().Routing().RegisterInstance(call, &ententev1.RegisterInstanceRequest{
		Instance: l.instanceOf(service, address, 1),
	})
	w.Return, w.Acknowledged = l.now(), err == nil
	l.h.Add(w)
	if ctx.Err() != nil {
		return
	}
	health := chaos.Health{Span: chaos.Span{Call: begun, Return: w.Return}, Member: p.id, Ready: ready}
	if err != nil {
		health.Refusal = err.Error()
	}
	l.h.Add(health)
}

// fetch reads the bundle endpoint of a member, between two questions for /ready.
func (l *load) fetch(p *process) {
	asked := chaos.Asked{Member: p.id}
	asked.Call = l.now()
	before := p.ready() == nil
	call := l.now()
	sequence, err := p.sequence()
	if err == nil {
		l.seen(call, p, "bundle", sequence)
	} else if strings.HasPrefix(err.Error(), "503 ") || strings.Contains(err.Error(), "remote error: tls") {
		asked.Refusal = err.Error()
	}
	after := before && p.ready() == nil
	asked.Return = l.now()
	if before && after {
		l.h.Add(asked)
	}
}

// hint reads a hint, which any member answers by itself.
func (l *load) hint(ctx context.Context, p *process, name string) {
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	begun := l.now()
	hint, err := p.socket().Routing().GetHint(call, &ententev1.GetHintRequest{
		Service: fmt.Sprintf("rows-%s-0", name), Locality: &ententev1.Locality{Region: "r", Zone: "z"},
	})
	if err == nil {
		l.seen(begun, p, "hint of revision", hint.GetRevision())
	}
}

// watch follows the bundle of the home domain until the stream ends.
func (l *load) watch(ctx context.Context, p *process) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begun := l.now()
	stream, err := p.socket().Bundles().WatchBundles(ctx, &ententev1.WatchBundlesRequest{})
	for err == nil {
		var change *ententev1.WatchBundlesResponse
		if change, err = stream.Recv(); err == nil {
			for _, b := range change.GetChanged() {
				l.seen(begun, p, "watched bundle", b.GetSequence())
			}
			begun = l.now()
		}
	}
}

// issue requests an X509-SVID, and verifies it by the bundle that comes with it.
func (l *load) issue(ctx context.Context, p *process) {
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		panic(err)
	}
	csr, err := x509.CreateCertificateRequest(cryptorand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		panic(err)
	}
	id := "spiffe://" + l.c.domain + "/load"
	svid, err := p.socket().SVIDs().IssueX509SVID(call, &ententev1.IssueX509SVIDRequest{SpiffeId: id, Csr: csr})
	if err != nil {
		return
	}
	td := spiffeid.RequireTrustDomainFromString(l.c.domain)
	bundle, err := spiffebundle.Parse(td, svid.GetBundle())
	var chain []*x509.Certificate
	if err == nil {
		chain, err = x509.ParseCertificates(slices.Concat(svid.GetCertificates()...))
	}
	if err == nil {
		_, _, err = x509svid.Verify(chain, bundle)
	}
	if err != nil {
		l.wrongf("%s issued an SVID at %s that its bundle does not verify: %v", p.id, l.now(), err)
		return
	}
	l.h.Add(chaos.Issued{
		Member: p.id, Authority: svid.GetAuthorityId(), Serial: chain[0].SerialNumber.String(),
	})
}

// changeBundle changes the bundle of the home domain.
func (l *load) changeBundle(ctx context.Context, p *process, n int) {
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, _ = p.socket().Domains().UpdateDomain(call, &ententev1.UpdateDomainRequest{
		Domain: &ententev1.Domain{
			TrustDomain: l.c.domain, RefreshHint: durationpb.New(time.Duration(1+n%5) * time.Second),
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"refresh_hint"}},
	}) // in a fault it fails
}

// contentOf returns what a member has, at one revision.
type contentOf struct {
	revision uint64
	rows     map[string]bool // those that the load wrote and nothing deletes
	text     string
}

// content reads what a member has, with the rows of one load. at is a revision that it must have reached.
func content(t *testing.T, p *process, load string, at uint64) (contentOf, error) {
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	read := &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_STALE, MinRevision: at}
	services, err := p.socket().Routing().ListServices(ctx, &ententev1.ListServicesRequest{Read: read})
	if err != nil {
		return contentOf{}, err
	}
	bundles, err := p.socket().Bundles().ListBundles(ctx, &ententev1.ListBundlesRequest{Read: read})
	if err != nil {
		return contentOf{}, err
	}
	authorities, err := p.socket().Authorities().ListAuthorities(ctx, &ententev1.ListAuthoritiesRequest{Read: read})
	if err != nil {
		return contentOf{}, err
	}
	domains, err := p.socket().Domains().ListDomains(ctx, &ententev1.ListDomainsRequest{Read: read})
	if err != nil {
		return contentOf{}, err
	}
	revisions := []uint64{
		services.GetRevision(), bundles.GetRevision(), authorities.GetRevision(), domains.GetRevision(),
	}
	if slices.Min(revisions) != slices.Max(revisions) {
		return contentOf{}, fmt.Errorf("%s changed meanwhile: %v", p.id, revisions)
	}
	out := contentOf{revision: revisions[0], rows: map[string]bool{}}
	for _, s := range services.GetServices() {
		service, err := p.socket().
			Routing().
			GetService(ctx, &ententev1.GetServiceRequest{Name: s.GetName(), Read: read})
		if err != nil {
			return contentOf{}, err
		}
		if strings.HasPrefix(service.GetName(), "rows-"+load+"-") {
			for _, i := range service.GetInstances() {
				out.rows[service.GetName()+" "+i.GetAddress()] = true
			}
		}
		service.Revision = 0 // that of the answer
		out.text += prototext.Format(service)
	}
	for _, m := range []proto.Message{bundles, authorities, domains} {
		out.text += prototext.Format(m)
	}
	return out, nil
}

// contents reads what all members have at the same revision, with the rows of one load.
func contents(t *testing.T, c *cluster, load string) (found map[string]map[string]bool, texts map[string]string) {
	eventually(t, "all members have the same revision", func() error {
		found, texts = map[string]map[string]bool{}, map[string]string{}
		revisions := map[uint64]bool{}
		at := uint64(0)
		for _, p := range c.members {
			have, err := content(t, p, load, at)
			if err != nil {
				return err
			}
			at = max(at, have.revision)
			revisions[have.revision] = true
			found[p.id], texts[p.id] = have.rows, have.text
		}
		if len(revisions) != 1 {
			return fmt.Errorf("revisions %v", slices.Sorted(maps.Keys(revisions)))
		}
		return nil
	})
	return found, texts
}

// tidy removes what a load has written.
func (l *load) tidy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	routing := l.c.members[0].socket().Routing()
	services, err := routing.ListServices(ctx, &ententev1.ListServicesRequest{})
	require.NoError(t, err)
	for _, s := range services.GetServices() {
		stream, err := routing.ReplaceInstances(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&ententev1.ReplaceInstancesRequest{
			Target: &ententev1.ReplaceTarget{Service: s.GetName()},
		}))
		_, err = stream.CloseAndRecv()
		require.NoError(t, err)
	}
}

// diverged returns the members of which the leader says that their state differs.
func diverged(t *testing.T, c *cluster) (wrong []string) {
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	answer, err := c.members[0].socket().Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
	require.NoError(t, err)
	for _, m := range answer.GetMembers() {
		if m.GetDiverged() {
			wrong = append(wrong, m.GetId()+" has diverged, by its digest")
		}
	}
	return wrong
}
