package federation

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/peer"
)

// depot plays who has something to carry: each stream's freight sends what lies in out, once, and keeps what comes.
type depot struct {
	mu       sync.Mutex
	out      []*ententev1.PeerMessage
	came     []*ententev1.PeerMessage
	streams  []peer.PayloadStream
	ended    int
	refusals error
}

func (d *depot) Open(s peer.PayloadStream) peer.PayloadSession {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams = append(d.streams, s)
	return d
}

func (d *depot) Run(ctx context.Context) {
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended++
}

func (d *depot) Next(time.Time) (out []*ententev1.PeerMessage, again time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, d.out = d.out, nil
	return out, 0
}

func (d *depot) Receive(m *ententev1.PeerMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.came = append(d.came, m)
	return d.refusals
}

// load gives the newest stream a message to carry.
func (d *depot) load(m *ententev1.PeerMessage) {
	d.mu.Lock()
	d.out = append(d.out, m)
	d.mu.Unlock()
	d.newest().Wake()
}

func (d *depot) newest() peer.PayloadStream {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.streams[len(d.streams)-1]
}

func (d *depot) taken() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.came)
}

// TestStreamsCarryCargo: what is none of federation's business travels with the bundles, both ways, and ends with the
// stream; a peer that does not keep to its rules loses the stream for a named reason, and the bundles come by the
// endpoint.
func TestStreamsCarryCargo(t *testing.T) {
	ours, theirs := &depot{}, &depot{}
	a := newSite(t, "eu.example.org", func(c *Config) { c.Peers.Payload = ours })
	b := newSite(t, "us.example.org", func(c *Config) { c.Peers.Payload = theirs })
	b.trusts(t, a)
	a.trusts(t, b, b.address)
	a.awaitStream(t, b, true)
	b.awaitStream(t, a, true)
	stream := theirs.newest()
	require.Equal(t, "eu.example.org", stream.Home)
	require.Equal(t, []string{"eu.example.org"}, stream.Domains())

	interest := &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Services{
			Services: &ententev1.PeerServices{Subscription: &ententev1.PeerServiceSubscription{Number: 7}},
		},
	}
	ours.load(interest)
	until(t, "the message to arrive", func() bool { return theirs.taken() == 1 })
	theirs.mu.Lock()
	require.EqualValues(t, 7, theirs.came[0].GetServices().GetSubscription().GetNumber())
	theirs.mu.Unlock()
	theirs.load(
		&ententev1.PeerMessage{
			Content: &ententev1.PeerMessage_ServiceSets{ServiceSets: &ententev1.PeerServiceSets{Confirmed: 7}},
		},
	)
	until(t, "the answer to arrive", func() bool { return ours.taken() == 1 })

	theirs.mu.Lock()
	theirs.refusals = errors.New("the peer says nonsense")
	theirs.mu.Unlock()
	ours.load(interest)
	until(t, "the stream to end for a named reason", func() bool {
		return b.streamsEnded(t, "malformed_services") == 1
	})
	theirs.mu.Lock()
	theirs.refusals = nil
	theirs.mu.Unlock()
	a.awaitStream(t, b, true)
	until(t, "the freight to end with its stream", func() bool {
		theirs.mu.Lock()
		defer theirs.mu.Unlock()
		return theirs.ended > 0
	})
}
