// Package bundleapi serves the gRPC BundleService: the bundles of hosted and foreign trust domains, one, all, or as
// they change.
//
// It reads through a [Catalog] and stores nothing. Reads answer from this member's state unless the request needs more.
// A watch begins with the present state and continues with changes and deletions. A watcher that is slower than the
// changes gets the newest state of each bundle, without the states between. All watches share one follower and its
// messages, so that a thousand of them cost one rendering for each change.
//
// Start reading at catalog.go; indexed.go has the catalog of a member, and snapshot.go the rule for what a watcher is
// sent.
package bundleapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
)

const (
	// maxMessageBytes is below the 4 MiB that a gRPC client accepts by default. A bundle has at most 1 MiB.
	maxMessageBytes = 3 << 20
	// maxWatchedDomains bounds the names of one watch. A watch without names has all domains.
	maxWatchedDomains = 1000
	// followRetry is the pause before a failed follower is started again.
	followRetry = time.Second
)

// Config is the configuration of a [Service].
type Config struct {
	Catalog    Catalog
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// Service implements BundleService. Watches need [Service.Run].
type Service struct {
	ententev1.UnimplementedBundleServiceServer
	config    Config
	broadcast *broadcast
	watchers  prometheus.Gauge
	sent      prometheus.Counter
}

// New returns a service.
func New(c Config) (*Service, error) {
	if c.Catalog == nil {
		return nil, errors.New("the bundle service needs a catalog")
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	s := &Service{
		config:    c,
		broadcast: newBroadcast(),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "entente_bundle_watchers", Help: "Open watches of bundles.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "entente_bundle_watch_messages_total", Help: "Messages sent to watchers of bundles.",
		}),
	}
	if c.Registerer != nil {
		for _, m := range []prometheus.Collector{s.watchers, s.sent} {
			if err := c.Registerer.Register(m); err != nil {
				return nil, fmt.Errorf("register metrics of the bundle service: %w", err)
			}
		}
	}
	return s, nil
}

// Run follows the catalog for the watches until ctx ends, and then ends them.
func (s *Service) Run(ctx context.Context) error {
	defer s.broadcast.close()
	for {
		err := s.config.Catalog.Follow(ctx, func(state State) error {
			s.broadcast.publish(state)
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		s.config.Logger.Warn("watches of bundles stand still; following again", "error", err, "in", followRetry)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followRetry):
		}
	}
}

// GetBundle returns the bundle of one domain.
func (s *Service) GetBundle(ctx context.Context, r *ententev1.GetBundleRequest) (*ententev1.Bundle, error) {
	td := s.config.Catalog.Home()
	if name := r.GetTrustDomain(); name != "" {
		var err error
		if td, err = bundle.ParseTrustDomain(name); err != nil {
			return nil, apierror.Invalid(apierror.InField("trust_domain", err))
		}
	}
	options, err := readOptions(r.GetRead())
	if err != nil {
		return nil, err
	}
	b, err := s.config.Catalog.Get(ctx, td, options)
	if missing, ok := errors.AsType[missingError](err); ok {
		return nil, status.Errorf(codes.NotFound, "there is no bundle of %s in use: %s", td, missing.because)
	}
	if errors.Is(err, ErrNotFound) {
		return nil, status.Errorf(
			codes.NotFound,
			"there is no bundle of %s here: it is neither hosted nor federated with; \"entente bundle list\" shows "+
				"those that are",
			td,
		)
	}
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return b, nil
}

// ListBundles returns all bundles, by name, a page at a time.
func (s *Service) ListBundles(
	ctx context.Context,
	r *ententev1.ListBundlesRequest,
) (*ententev1.ListBundlesResponse, error) {
	options, err := readOptions(r.GetRead())
	if err != nil {
		return nil, err
	}
	if r.GetPageSize() < 0 {
		return nil, status.Errorf(
			codes.InvalidArgument,
			"page_size is %d; give 0 for the default or how many bundles a page may have",
			r.GetPageSize(),
		)
	}
	var after spiffeid.TrustDomain
	if token := r.GetPageToken(); token != "" {
		if after, err = bundle.ParseTrustDomain(token); err != nil {
			return nil, status.Error(
				codes.InvalidArgument,
				"page_token is not the next_page_token of a page; leave it empty to begin again",
			)
		}
	}
	state, err := s.config.Catalog.List(ctx, options)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return page(state, after, int(r.GetPageSize())), nil
}

// page returns the bundles after a domain, as many as size and a message allow.
func page(state State, after spiffeid.TrustDomain, size int) *ententev1.ListBundlesResponse {
	bundles := slices.SortedFunc(slices.Values(state.Bundles), byDomain)
	first, found := slices.BinarySearchFunc(
		bundles,
		after.Name(),
		func(b *ententev1.Bundle, name string) int { return strings.Compare(b.GetTrustDomain(), name) },
	)
	if found {
		first++
	}
	answer := &ententev1.ListBundlesResponse{Revision: state.Revision}
	bytes := 0
	for _, m := range bundles[first:] {
		bytes += proto.Size(m)
		if n := len(answer.Bundles); n > 0 && (n == size || bytes > maxMessageBytes) {
			answer.NextPageToken = answer.Bundles[n-1].GetTrustDomain()
			break
		}
		answer.Bundles = append(answer.Bundles, m)
	}
	return answer
}

func byDomain(x, y *ententev1.Bundle) int {
	return strings.Compare(x.GetTrustDomain(), y.GetTrustDomain())
}

// readOptions reads the options of a request. By default bundles are read from this member's state.
func readOptions(r *ententev1.ReadOptions) (ReadOptions, error) {
	o := ReadOptions{MinRevision: r.GetMinRevision()}
	switch c := r.GetConsistency(); c {
	case ententev1.Consistency_CONSISTENCY_UNSPECIFIED, ententev1.Consistency_CONSISTENCY_STALE:
	case ententev1.Consistency_CONSISTENCY_LINEARIZABLE:
		o.Linearizable = true
	default:
		return o, apierror.Invalid(apierror.InField("read.consistency",
			fmt.Errorf("consistency %d is not known; use stale or linearizable", c)))
	}
	return o, nil
}
