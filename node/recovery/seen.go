package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/internal/sealed"
)

const (
	// maxSeen bounds the domains in the file, and maxSeenBytes the file: far above what a cluster hosts.
	maxSeen, maxSeenBytes = 1024, 1 << 20
	// seenPause bounds how often a peer can cause a write.
	seenPause = time.Second
)

// Seen keeps, in a file of a running member, which later versions of hosted bundles peers have than the member itself.
// Nothing is written while there are none: the state has everything that the cluster has published. A member that lags,
// or that has lost its cluster, learns here what a recovery must not fall below.
type Seen struct {
	path    string
	log     hclog.Logger
	changed chan struct{}

	mu       sync.Mutex
	byDomain map[string]*statev1.SeenSequence
}

// NewSeen returns what a file has. A damaged file is begun anew.
func NewSeen(path string, log hclog.Logger) *Seen {
	s := &Seen{path: path, log: log, changed: make(chan struct{}, 1), byDomain: map[string]*statev1.SeenSequence{}}
	stored, err := readSeen(path)
	if err != nil {
		log.Warn("which versions of its bundles the peers have is not known any more; they report it again",
			"error", err)
	}
	for _, row := range stored {
		s.byDomain[row.GetTrustDomain()] = row
	}
	return s
}

// Record keeps what a peer has reported, from any goroutine. A sequence that no cluster counts up to is ignored: it
// would only take room from later ones.
func (s *Seen) Record(peer, trustDomain string, sequence uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, known := s.byDomain[trustDomain]
	if sequence <= before.GetSequence() || sequence > plausible(now) || !known && len(s.byDomain) == maxSeen {
		return
	}
	s.byDomain[trustDomain] = &statev1.SeenSequence{
		TrustDomain: trustDomain, Sequence: sequence, Peer: peer, Time: timestamppb.New(now),
	}
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// plausible is the highest sequence that a peer is believed to have seen: a cluster counts from 1, or from the time in
// milliseconds of a recovery.
func plausible(now time.Time) uint64 {
	return uint64(max(0, now.Add(longestAway).UnixMilli())) //nolint:gosec // not negative
}

// Run writes the file until ctx ends.
func (s *Seen) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		if err := s.write(); err != nil {
			s.log.Warn("which versions of its bundles the peers have could not be written; a recovery of the cluster "+
				"from this member alone would not know it", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(seenPause):
		}
	}
}

func (s *Seen) write() error {
	s.mu.Lock()
	all := &statev1.SeenSequences{}
	for _, row := range s.byDomain {
		all.Sequences = append(all.Sequences, row)
	}
	s.mu.Unlock()
	content, err := proto.Marshal(all)
	if err != nil {
		return err
	}
	return sealed.Write(s.path, content)
}

// readSeen returns what a file has, the highest sequence first; nothing, if there is no file.
func readSeen(path string) ([]*statev1.SeenSequence, error) {
	content, err := sealed.Read(path, maxSeenBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	all := &statev1.SeenSequences{}
	if err == nil {
		err = proto.Unmarshal(content, all)
	}
	if err != nil {
		return nil, fmt.Errorf("read what peers have seen from %s: %w", path, err)
	}
	slices.SortFunc(all.Sequences, func(a, b *statev1.SeenSequence) int {
		return cmp.Compare(b.GetSequence(), a.GetSequence())
	})
	return all.Sequences, nil
}
