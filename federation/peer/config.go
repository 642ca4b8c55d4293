package peer

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Transport configures how this member reaches the members of other clusters.
type Transport struct {
	// Home is the home trust domain of this cluster.
	Home spiffeid.TrustDomain
	// Dial opens a verified connection on a route to a member of the cluster with the given home trust domain, for gRPC
	// with Credentials. The X509-SVID of the other end is read from the connection's AuthInfo, an [access.Identified].
	// If Dial and Open are nil, this member only accepts streams.
	Dial func(
		ctx context.Context, route egress.Route, address string, home spiffeid.TrustDomain,
	) (net.Conn, error)
	Credentials credentials.TransportCredentials
	// Open opens a stream. If nil, it is a gRPC call over a connection of Dial; a simulation has its own network.
	Open func(ctx context.Context, route egress.Route, address string, home spiffeid.TrustDomain) (Opened, error)
	// Route is the way to peers whose relationship names none.
	Route egress.Route
	// Payload has more messages for peers than bundles. If nil, streams carry nothing else.
	Payload Payload
	// Ahead is called when a peer has a later version of a hosted bundle than this member. It must not block. It may be
	// nil.
	Ahead func(home, trustDomain string, sequence uint64)
}

// Opened is a stream that a member of the peer has accepted.
type Opened struct {
	Wire Wire
	// Remote is the ID of that member.
	Remote string
	// HangUp ends the call and its connection.
	HangUp func()
}

// Wire is one end of a stream. Send and Recv are each called from one goroutine.
type Wire interface {
	Send(*ententev1.PeerMessage) error
	Recv() (*ententev1.PeerMessage, error)
	// Finish is called after the last Send.
	Finish()
}

// Config lists what [Streams] depends on. All fields are required, unless a comment states a default.
type Config struct {
	Transport
	Store *raftstore.Store
	// Trust supplies the hosted bundles, which are sent to peers, and their statements.
	Trust *trust.Index
	// PlanOf returns what the relationships in force require of a peer, and whether any relationship names the peer, in
	// force or not. Homes returns the home trust domains of all peers that relationships name.
	PlanOf func(home string) (plan relationship.PeerPlan, named bool)
	Homes  func() []string
	// Receiver and Hub take in what peers send, and provide what is sent to them.
	Receiver Receiver
	Hub      Hub
	// Leader answers queries about the streams of all members.
	Leader Leader
	// Alive returns the members that send heartbeats.
	Alive func() ([]string, error)
	// Changed is called when a stream begins or ceases to keep foreign domains up to date.
	Changed func(domains []string)
	// Ended is called when a peer ended a stream because it has no relationship with this cluster any more.
	Ended func(home string)
	// Unreadable reports a row that this version cannot read. The row is skipped.
	Unreadable func(error)
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Leader sends a query to a section of the leader's memory. It fails while there is no leader.
type Leader interface {
	Query(ctx context.Context, section string, query []byte) ([]byte, error)
}

// Fault is whose fault it is that something that a peer sent is not accepted.
type Fault int

const (
	// FaultNone means that it was accepted, was known already, or could not be examined.
	FaultNone Fault = iota
	// FaultUnclear means that a peer that works correctly may send it for a moment, for example because the bundle
	// stored here is one version behind, or because an operator has just ended the relationship. A peer has a budget of
	// these.
	FaultUnclear
	// FaultPeer means that no peer that works correctly sends it, whatever is stored here.
	FaultPeer
)

// Outcome is what became of a bundle that a peer sent.
type Outcome struct {
	// Version is that of the bundle, if it was accepted.
	Version relationship.Version
	// Refusal is a name from a bounded set, or empty if the bundle was accepted.
	Refusal string
	Fault   Fault
	// Unavailable is set if this cluster cannot store the bundle at the moment. The peer has to send it again.
	Unavailable bool
	// Final is set if the same document is refused again without being examined.
	Final bool
}

// Receiver accepts or refuses what peers send of the domains of relationships. Its methods are called from the
// goroutines of streams, one at a time per peer except for ConfirmBundle. home is the verified home trust domain of the
// peer.
type Receiver interface {
	// ReceiveBundle applies the rules for a fetched bundle, and stores the bundle if it is accepted.
	ReceiveBundle(ctx context.Context, home, trustDomain string, document []byte) Outcome
	// ReceiveStatements checks statements on a stored bundle. result is a name from a bounded set.
	ReceiveStatements(
		ctx context.Context,
		home string,
		statements *ententev1.PeerStatements,
	) (result string, fault Fault)
	// ConfirmBundle records that the peer still has what is stored of a domain.
	ConfirmBundle(trustDomain string)
	// MissingStatements returns the sequence from which statements on a foreign bundle are missing.
	MissingStatements(trustDomain string) (from uint64, missing bool)
}

// Hub is the part of the protocol that is about bundle maps: of this cluster's, which peers follow, and of hubs', which
// this cluster follows.
type Hub interface {
	// Serve returns the sender of this cluster's map for a new stream.
	Serve(MapBudget) MapSender
	// SetHosted records the version of a hosted bundle for the map. The zero version removes the domain.
	SetHosted(trustDomain string, v relationship.Version)
	// Attested returns the versions of the bundles that are stored because of a hub's attestations.
	Attested(hub string) map[string]relationship.Version
	// ReceiveChanges stores what a hub sent of its map. An error ends the stream.
	ReceiveChanges(ctx context.Context, home string, changes *ententev1.PeerMapChanges) error
	// ConfirmMap records that a hub has sent all of its map, as of a generation of the relationship with it.
	ConfirmMap(hub string, generation uint64)
}

// MapSender sends one peer what it subscribes to of this cluster's map. Its methods may be called concurrently. An
// error ends the stream.
type MapSender interface {
	// Subscribe takes over a subscription, or a part of one.
	Subscribe(interest *ententev1.PeerMapSubscription, now time.Time) error
	// Acknowledge records that the peer has stored a message.
	Acknowledge(stored *ententev1.PeerMapAcknowledgement, now time.Time) error
	// Next returns the messages to send now. If again is positive, Next is to be called after that time. every is the
	// interval of heartbeats.
	Next(now time.Time, every time.Duration) (messages []*ententev1.PeerMessage, again time.Duration, err error)
	// Active reports whether the peer subscribes to anything.
	Active() bool
	// Close releases what is kept for the peer.
	Close()
}

// MapBudget limits what one peer causes by following this cluster's map, over all its streams.
type MapBudget struct {
	// Subscriptions limits how often the peer subscribes.
	Subscriptions *rate.Limiter
	// Bytes limits how fast the map is sent.
	Bytes *rate.Limiter
	// Held limits the bytes that are kept in memory for the peer, at most [MaxHeld].
	Held *semaphore.Weighted
}
