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

// payloadQueue is a payload service. Each stream sends the messages in its queue once, and keeps received ones.
type payloadQueue struct {
	mu       sync.Mutex
	out      []*ententev1.PeerMessage
	came     []*ententev1.PeerMessage
	streams  []peer.PayloadStream
	ended    int
	refusals error
}

func (d *payloadQueue) Open(s peer.PayloadStream) peer.PayloadSession {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams = append(d.streams, s)
	return d
}

func (d *payloadQueue) Run(ctx context.Context) {
	<-ctx.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended++
}

func (d *payloadQueue) Next(time.Time) (out []*ententev1.PeerMessage, again time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, d.out = d.out, nil
	return out, 0
}

func (d *payloadQueue) Receive(m *ententev1.PeerMessage) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.came = append(d.came, m)
	return d.refusals
}

// enqueue queues a message for the newest stream.
func (d *payloadQueue) enqueue(m *ententev1.PeerMessage) {
	d.mu.Lock()
	d.out = append(d.out, m)
	d.mu.Unlock()
	d.newest().Wake()
}

func (d *payloadQueue) newest() peer.PayloadStream {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.streams[len(d.streams)-1]
}

func (d *payloadQueue) received() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.came)
}

// TestPayloadOverStreams tests that another service's messages travel beside bundles in both directions, and end with
// the stream. A peer that violates the service's rules loses the stream for a named reason, and its bundles are polled.
func TestPayloadOverStreams(t *testing.T) {
	ours, theirs := &payloadQueue{}, &payloadQueue{}
	a := newSite(t, "eu.example.org", func(c *Config) { c.Peers.Payload = ours })
	b := newSite(t, "us.example.org", func(c *Config) { c.Peers.Payload = theirs })
	b.federateWith(t, a)
	a.federateWith(t, b, b.address)
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
	ours.enqueue(interest)
	until(t, "the message to arrive", func() bool { return theirs.received() == 1 })
	theirs.mu.Lock()
	require.EqualValues(t, 7, theirs.came[0].GetServices().GetSubscription().GetNumber())
	theirs.mu.Unlock()
	theirs.enqueue(
		&ententev1.PeerMessage{
			Content: &ententev1.PeerMessage_ServiceSets{ServiceSets: &ententev1.PeerServiceSets{Confirmed: 7}},
		},
	)
	until(t, "the answer to arrive", func() bool { return ours.received() == 1 })

	theirs.mu.Lock()
	theirs.refusals = errors.New("the peer sent an invalid message")
	theirs.mu.Unlock()
	ours.enqueue(interest)
	until(t, "the stream to end for a named reason", func() bool {
		return b.streamsEnded(t, "malformed_services") == 1
	})
	theirs.mu.Lock()
	theirs.refusals = nil
	theirs.mu.Unlock()
	a.awaitStream(t, b, true)
	until(t, "the payload session to end with its stream", func() bool {
		theirs.mu.Lock()
		defer theirs.mu.Unlock()
		return theirs.ended > 0
	})
}
