// Package invitation makes agreements with clusters that are not known yet, and keeps both sides' consent.
//
// An operator invites a foreign domain and hands the [Token] to the other cluster's operator, who accepts it there. The
// accepting cluster calls the members that the token names, known by their identity keys, and cross-checks the answer
// with a second one. Each side then has a relationship with an agreement, in force once both sides consent. The
// [Service] answers other clusters; [Agreements] has the operators' part and the transactions; its poller sends this
// side's consent to the other side and receives theirs, with the members, addresses and URLs of each.
//
// A secret is sent only to the holder of an identity key that the token names. An invitation is redeemed once.
// Everything that comes from another cluster is hostile until it is parsed. An end is final: a new agreement needs a
// new invitation.
//
// Start reading at [Agreements.CreateInvitation], then [Agreements.RedeemInvitation] and [Service.AcceptInvitation].
package invitation

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/trust"
)

// Transport is what this cluster announces of itself to clusters that cannot verify a bundle of it yet, and how it
// calls them. Without Members and Dial there are no invitations.
type Transport struct {
	// Identity is this member's identity key, and Members are all members.
	Identity *memberid.Identity
	Members  func() []Member
	// Endpoints returns the URLs at which endpoints serve a hosted domain's bundle, and Profile is how they
	// authenticate.
	Endpoints func(trustDomain string, addresses []string) []string
	Profile   ententev1.EndpointProfile
	// Endpoint returns how other clusters reach and verify the endpoint of this member, and why they may not be able to
	// verify it, or "". If nil, it is at EndpointPort of the member's address.
	Endpoint     func() (own *statev1.MemberEndpoint, doubt string, err error)
	EndpointPort string
	// Dial opens a connection under entente-join/1. If accept refuses the identity key of the other end, Dial closes
	// the connection before anything is sent. It returns the binding of the session with the connection.
	Dial func(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error)
	// Credentials are gRPC's for such a connection. Binding returns the binding of the session of an incoming call.
	Credentials credentials.TransportCredentials
	Binding     func(ctx context.Context) ([]byte, bool)
	// Host returns the host of an incoming call, for the rate limit of one host. If nil, all calls are of one host.
	Host func(ctx context.Context) string
	// NoApproval means that agreements need no operator's approval on this side.
	NoApproval bool
}

// Member is the ID and the address of a member, and the digest of its identity key.
type Member struct {
	ID       string
	Address  string
	Identity [32]byte
}

// Config has the dependencies of [Agreements]. All fields but Transport and Registerer are required.
type Config struct {
	Transport Transport
	Store     *raftstore.Store
	Trust     *trust.Index
	Intake    *intake.Intake
	Mirror    *mirror.Mirror
	Audit     audit.Recorder
	// Home is the home trust domain of this cluster.
	Home string
	// Alive returns the members that share the work.
	Alive func(r raftstore.Reader) ([]string, error)
	// Streamed reports whether a stream with a peer keeps a domain's bundle up to date, and so would report an end.
	Streamed func(home, name string) bool
	// Show returns a relationship as the API has it.
	Show func(ctx context.Context, view *raftstore.View, name string) (*ententev1.Relationship, error)

	Log        hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// errDisabled is the error of members without a Transport.
var errDisabled = status.Error(codes.Unimplemented, "this member was not set up for invitations")

// Agreements makes agreements and keeps them. It is safe for concurrent use.
type Agreements struct {
	config      Config
	poller      *poller
	redemptions *prometheus.CounterVec
}

// New returns agreements and registers their metrics. Consents are not exchanged before [Agreements.Run].
func New(c Config) (*Agreements, error) {
	m := &Agreements{config: c, redemptions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "entente_federation_invitations_total",
		Help: "Attempts of other clusters to accept an invitation of this one, by result.",
	}, []string{"result"})}
	m.poller = newPoller(m)
	if c.Registerer != nil {
		if err := c.Registerer.Register(m.redemptions); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Run exchanges consents until ctx ends, and returns nil.
func (m *Agreements) Run(ctx context.Context) error { return m.poller.run(ctx) }

// Trigger schedules an immediate exchange of consents for a relationship, after an operator's decision.
func (m *Agreements) Trigger(name string) { m.poller.trigger(name) }

// TriggerHome schedules an immediate exchange for every agreement with a cluster, after that cluster reported that it
// has no relationship any more.
func (m *Agreements) TriggerHome(home string) { m.poller.triggerHome(home) }

func (m *Agreements) read(ctx context.Context, o *ententev1.ReadOptions) (*raftstore.View, error) {
	view, err := m.config.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: o.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(o.GetMinRevision()),
	})
	return view, raftstore.StatusError(err)
}
