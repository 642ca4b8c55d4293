package bundleapi_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
	"github.com/ententehq/entente/trust/bundleapi"
)

var home = spiffeid.RequireTrustDomainFromString("eu.example.org")

// catalog is a Catalog in memory, its state changed by set.
type catalog struct {
	mu      sync.Mutex
	state   bundleapi.State
	changed chan struct{}
	options bundleapi.ReadOptions
	history *bundleapi.History
	err     error
}

func newCatalog(entries ...*ententev1.Bundle) *catalog {
	return &catalog{changed: make(chan struct{}), state: bundleapi.State{Revision: 1, Bundles: entries}}
}

func (c *catalog) set(revision uint64, entries ...*ententev1.Bundle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = bundleapi.State{Revision: revision, Bundles: entries}
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *catalog) Home() spiffeid.TrustDomain { return home }

func (c *catalog) Get(_ context.Context, td spiffeid.TrustDomain, o bundleapi.ReadOptions) (*ententev1.Bundle, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.options = o
	for _, e := range c.state.Bundles {
		if e.GetTrustDomain() == td.Name() {
			return e, c.err
		}
	}
	return nil, bundleapi.ErrNotFound
}

func (c *catalog) List(_ context.Context, o bundleapi.ReadOptions) (bundleapi.State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.options = o
	return c.state, c.err
}

// History is that of the home domain, if the test gave one.
func (c *catalog) History(
	_ context.Context,
	td spiffeid.TrustDomain,
	o bundleapi.ReadOptions,
) (bundleapi.History, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.options = o
	if c.history == nil || td != home {
		return bundleapi.History{}, bundleapi.ErrNotFound
	}
	return *c.history, c.err
}

func (c *catalog) Follow(ctx context.Context, fn func(bundleapi.State) error) error {
	for {
		c.mu.Lock()
		state, changed := c.state, c.changed
		c.mu.Unlock()
		if err := fn(state); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func document(t testing.TB, name string, sequence uint64) *bundle.Bundle {
	t.Helper()
	b, err := bundle.New(
		spiffeid.RequireTrustDomainFromString(name),
		bundle.Content{Sequence: &sequence, RefreshHint: new(time.Minute)},
	)
	require.NoError(t, err)
	return b
}

func entry(t testing.TB, name string, sequence uint64) *ententev1.Bundle {
	t.Helper()
	return trust.Entry{
		Bundle:     document(t, name, sequence),
		Revision:   sequence,
		ChangeTime: time.Unix(int64(sequence), 0),
	}.Message()
}

// start serves c, and returns a client and what stops the follower.
func start(t testing.TB, c bundleapi.Catalog) (ententev1.BundleServiceClient, func()) {
	t.Helper()
	s, err := bundleapi.New(
		bundleapi.Config{Catalog: c, Registerer: prometheus.NewRegistry()},
	)
	require.NoError(t, err)
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	ententev1.RegisterBundleServiceServer(server, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() { _ = s.Run(ctx) })
	conn, err := grpc.NewClient(
		"passthrough:///bundles",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		),
	)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		server.Stop()
		wg.Wait()
	})
	return ententev1.NewBundleServiceClient(conn), stop
}

func TestGetBundle(t *testing.T) {
	hosted := entry(t, "eu.example.org", 5)
	hosted.Hosted = true
	stale := entry(t, "us.example.org", 7)
	stale.Freshness = ententev1.Freshness_FRESHNESS_STALE
	c := newCatalog(hosted, stale)
	client, _ := start(t, c)

	got, err := client.GetBundle(t.Context(), &ententev1.GetBundleRequest{})
	require.NoError(t, err)
	require.Equal(t, "eu.example.org", got.GetTrustDomain(), "an empty name is the home domain")
	require.True(t, got.GetHosted())
	require.Equal(t, string(document(t, "eu.example.org", 5).Marshal()), string(got.GetDocument()))
	require.Equal(t, uint64(5), got.GetSequence())
	require.Equal(t, time.Minute, got.GetRefreshHint().AsDuration())
	digest := document(t, "eu.example.org", 5).Digest()
	require.Equal(t, hex.EncodeToString(digest[:]), got.GetDigest())
	require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, got.GetFreshness())
	require.Equal(t, bundleapi.ReadOptions{}, c.options, "stale is the default")

	got, err = client.GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: "us.example.org",
		Read: &ententev1.ReadOptions{Consistency: ententev1.Consistency_CONSISTENCY_LINEARIZABLE, MinRevision: 3}})
	require.NoError(t, err)
	require.False(t, got.GetHosted())
	require.Equal(t, ententev1.Freshness_FRESHNESS_STALE, got.GetFreshness())
	require.Equal(t, bundleapi.ReadOptions{Linearizable: true, MinRevision: 3}, c.options)
}

func TestErrors(t *testing.T) {
	c := newCatalog(entry(t, "eu.example.org", 1))
	client, _ := start(t, c)
	for _, test := range []struct {
		name string
		call func() error
		code codes.Code
		text string
	}{
		{"unknown domain", func() error {
			_, err := client.GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: "x.test"})
			return err
		}, codes.NotFound, `there is no bundle of x.test here: it is neither hosted nor federated with; "entente ` +
			`bundle list" shows those that are`},
		{"no name of a domain", func() error {
			_, err := client.GetBundle(t.Context(), &ententev1.GetBundleRequest{TrustDomain: "X"})
			return err
		}, codes.InvalidArgument,
			`trust domain "X": the name is not a valid trust domain: byte 1 is 'X'; lower-case letters, digits, dot, ` +
				`dash and underscore are allowed`},
		{"unknown consistency", func() error {
			_, err := client.GetBundle(t.Context(),
				&ententev1.GetBundleRequest{Read: &ententev1.ReadOptions{Consistency: 9}})
			return err
		}, codes.InvalidArgument, "consistency 9 is not known; use stale or linearizable"},
		{"negative page", func() error {
			_, err := client.ListBundles(t.Context(), &ententev1.ListBundlesRequest{PageSize: -1})
			return err
		}, codes.InvalidArgument, "page_size is -1; give 0 for the default or how many bundles a page may have"},
		{"made-up token", func() error {
			_, err := client.ListBundles(t.Context(), &ententev1.ListBundlesRequest{PageToken: "?"})
			return err
		}, codes.InvalidArgument, "page_token is not the next_page_token of a page; leave it empty to begin again"},
		{"a watch of no domain", func() error {
			w, err := client.WatchBundles(t.Context(), &ententev1.WatchBundlesRequest{TrustDomains: []string{""}})
			require.NoError(t, err)
			_, err = w.Recv()
			return err
		}, codes.InvalidArgument, "the name is not a valid trust domain: it is empty"},
		{"a watch of too many", func() error {
			w, err := client.WatchBundles(t.Context(),
				&ententev1.WatchBundlesRequest{TrustDomains: slices.Repeat([]string{"a"}, 1001)})
			require.NoError(t, err)
			_, err = w.Recv()
			return err
		}, codes.InvalidArgument,
			"a watch of 1001 trust domains is too large: name at most 1000, or none to watch all"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.call()
			require.Equal(t, test.code, status.Code(err))
			require.Equal(t, test.text, status.Convert(err).Message())
		})
	}

	_, err := bundleapi.New(bundleapi.Config{})
	require.EqualError(t, err, "the bundle service needs a catalog")
}

// An error of the store keeps its code and its reason, also if what caused it has a status of its own.
func TestReadErrors(t *testing.T) {
	c := newCatalog()
	client, _ := start(t, c)
	for _, test := range []struct {
		err    error
		code   codes.Code
		reason string
	}{
		{raftstore.ErrNoLeader, codes.Unavailable, apierror.NoLeader},
		{
			fmt.Errorf("%w (%w)", raftstore.ErrNoLeader, status.Error(codes.Unavailable, "connection refused")),
			codes.Unavailable, apierror.NoLeader,
		},
		{raftstore.ErrBehind, codes.Unavailable, apierror.Behind},
		{raftstore.ErrClosed, codes.Unavailable, apierror.Unavailable},
		{errors.New("a row is malformed"), codes.Internal, apierror.Internal},
	} {
		c.err = test.err
		_, err := client.ListBundles(t.Context(), &ententev1.ListBundlesRequest{})
		require.EqualError(t, err, fmt.Sprintf("rpc error: code = %s desc = %s", test.code, test.err))
		require.Equal(t, test.reason, apierror.Reason(status.Convert(err)))
	}
}

func TestListBundlesInPages(t *testing.T) {
	var entries []*ententev1.Bundle
	for i := range 7 {
		entries = append(entries, entry(t, fmt.Sprintf("d%d.test", 6-i), 1))
	}
	client, _ := start(t, newCatalog(entries...))
	var names []string
	pages, token := 0, ""
	for {
		r, err := client.ListBundles(t.Context(), &ententev1.ListBundlesRequest{PageSize: 3, PageToken: token})
		require.NoError(t, err)
		require.Equal(t, uint64(1), r.GetRevision())
		for _, b := range r.GetBundles() {
			names = append(names, b.GetTrustDomain())
		}
		pages++
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	require.Equal(t, 3, pages)
	require.Equal(t, "d0.test d1.test d2.test d3.test d4.test d5.test d6.test", strings.Join(names, " "))
}

// line is a message of a watch in one line.
func line(r *ententev1.WatchBundlesResponse) string {
	var parts []string
	for _, b := range r.GetChanged() {
		parts = append(parts, fmt.Sprintf("%s=%d", b.GetTrustDomain(), b.GetSequence()))
	}
	for _, name := range r.GetDeleted() {
		parts = append(parts, "-"+name)
	}
	return fmt.Sprintf("%d: %s", r.GetRevision(), strings.Join(parts, " "))
}

func TestWatchBundles(t *testing.T) {
	a1, a2 := entry(t, "a.test", 1), entry(t, "a.test", 2)
	b1, c1 := entry(t, "b.test", 1), entry(t, "c.test", 1)
	c := newCatalog(b1, a1)
	client, stop := start(t, c)
	watch := func(names ...string) func() string {
		w, err := client.WatchBundles(t.Context(), &ententev1.WatchBundlesRequest{TrustDomains: names})
		require.NoError(t, err)
		return func() string {
			r, err := w.Recv()
			if err != nil {
				return err.Error()
			}
			return line(r)
		}
	}
	all, one, none := watch(), watch("a.test"), watch("z.test")
	require.Equal(t, "1: a.test=1 b.test=1", all(), "the present state first")
	require.Equal(t, "1: a.test=1", one())
	require.Equal(t, "1: ", none(), "a message even if there is nothing")

	c.set(2, a1, b1, c1)
	require.Equal(t, "2: c.test=1", all())
	c.set(3, a2, c1)
	require.Equal(t, "3: a.test=2 -b.test", all())
	require.Equal(t, "3: a.test=2", one(), "nothing of other domains comes between")

	c.set(4, a2, c1) // a revision in which no bundle changed
	stale := proto.Clone(c1).(*ententev1.Bundle)
	stale.Freshness = ententev1.Freshness_FRESHNESS_STALE
	c.set(5, a2, stale)
	require.Equal(t, "5: c.test=1", all())
	c.set(6)
	require.Equal(t, "6: -a.test -c.test", all())
	require.Equal(t, "6: -a.test", one())

	stop()
	for _, w := range []func() string{all, one, none} {
		require.Equal(
			t,
			"rpc error: code = Unavailable desc = this member is stopping; watch again, at another member",
			w(),
		)
	}
}
