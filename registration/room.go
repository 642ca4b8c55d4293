package registration

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/origin"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/registration/agenttoken"
	"github.com/ententehq/entente/registration/nodeattest"
)

const (
	// maxAgents and maxEntries bound the memory of a member: an entry takes about 1 KiB there.
	maxAgents  = 20_000
	maxEntries = 100_000
	// maxTokens bounds the open tokens, so that those of a forgotten script do not fill the table.
	maxTokens = 1024
	// maxPageBytes leaves room for the rest of a response below the 4 MiB that gRPC clients accept in one message.
	maxPageBytes = 3 << 20
)

// Signer signs SVIDs. It is called from many goroutines.
type Signer interface {
	// IssueAgentX509 signs the X509-SVID of an agent. caller is for the audit log.
	IssueAgentX509(ctx context.Context, id spiffeid.ID, csr []byte, caller string) (
		*ententev1.IssueX509SVIDResponse, error)
	// SVIDService signs the SVIDs of workloads, within the rate of the caller in the context, which is the agent.
	SVIDService() ententev1.SVIDServiceServer
}

// Lifetimes are the longest lifetimes of SVIDs in a trust domain.
type Lifetimes struct {
	X509, JWT time.Duration
}

// Config configures a [Room]. All fields are required but X509PoP, Kubernetes, MaxEntries, Logger and Now.
type Config struct {
	Store *raftstore.Store
	// Home is the home trust domain.
	Home   spiffeid.TrustDomain
	Signer Signer
	// Lifetimes returns those of a trust domain, and false if it is not hosted.
	Lifetimes func(raftstore.Reader, spiffeid.TrustDomain) (Lifetimes, bool, error)
	// Servers returns the present members, as agents reach them.
	Servers func() []agenttoken.Server
	// AuthorMay is [access.GuardConfig.AuthorMay].
	AuthorMay func(
		r raftstore.Reader, author, method string, request proto.Message, without ...grant.Grant,
	) error
	// ParseCSR returns the key of a certificate request that its signature proves.
	ParseCSR func(der []byte) (crypto.PublicKey, error)
	// X509PoP and Kubernetes, by the names of the clusters, verify evidence other than tokens. What is nil is refused.
	X509PoP    *nodeattest.X509PoP
	Kubernetes map[string]*nodeattest.Kubernetes
	// Certificate returns the X509-SVID of this member.
	Certificate func() (*tls.Certificate, error)
	// Binding returns the value that both ends derive from the TLS session of a call under entente-join/1.
	Binding func(context.Context) ([]byte, bool)
	// Origin returns where a call comes from.
	Origin func(context.Context) origin.Origin
	// MaxEntries bounds the entries. If 0, it is 100,000.
	MaxEntries int
	Logger     hclog.Logger
	Now        func() time.Time
}

// Room has the agents and the entries of a cluster, and the services for them.
type Room struct {
	cfg    Config
	index  *Index
	limits *limits
}

// New returns a room. Its services wait until [Room.Run] runs.
func New(cfg Config) *Room {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = maxEntries
	}
	cfg.Store.Snapshots().Survive("registration", surviveRestore)
	return &Room{cfg: cfg, index: newIndex(cfg.Logger, cfg.MaxEntries), limits: newLimits()}
}

// Run follows the tables until ctx ends, and returns its error.
func (r *Room) Run(ctx context.Context) error {
	over := []raftstore.Prefix{entries.Prefix(""), agents.Prefix("")}
	return feed.Batches(ctx, r.cfg.Store, over, r.index.load, r.index.apply)
}

// RegisterServices registers the services that the API has of this room.
func (r *Room) RegisterServices(s grpc.ServiceRegistrar) {
	ententev1.RegisterAgentServiceServer(s, &agentService{room: r})
	ententev1.RegisterEntryServiceServer(s, &entryService{room: r})
	ententev1.RegisterNodeServiceServer(s, &nodeService{room: r})
}

// view returns the state for a read of resources: linearizable unless the request allows a stale one.
func (r *Room) view(ctx context.Context, o *ententev1.ReadOptions) (*raftstore.View, error) {
	if _, known := ententev1.Consistency_name[int32(o.GetConsistency())]; !known {
		return nil, status.Errorf(codes.InvalidArgument, "consistency %d is unknown; use stale or linearizable",
			int32(o.GetConsistency()))
	}
	view, err := r.cfg.Store.Read(ctx, raftstore.ReadOptions{
		Linearizable: o.GetConsistency() != ententev1.Consistency_CONSISTENCY_STALE,
		MinRevision:  raftstore.Revision(o.GetMinRevision()),
	})
	return view, raftstore.StatusError(err)
}

func checkPageSize(n int32) error {
	if n < 0 {
		return status.Error(codes.InvalidArgument,
			"page_size is negative; leave it out for as many as fit into one message")
	}
	return nil
}

// ServersChanged is called after a member was added, was removed or has moved. Agents have the new list at once.
func (r *Room) ServersChanged() { r.index.serversChanged() }

// servers returns the members as messages have them, sorted.
func (r *Room) servers() (servers []*ententev1.AgentServer) {
	for _, s := range r.cfg.Servers() {
		servers = append(servers, &ententev1.AgentServer{Address: s.Address, Identity: s.Identity[:]})
	}
	slices.SortFunc(servers, func(a, b *ententev1.AgentServer) int {
		return bytes.Compare(a.GetIdentity(), b.GetIdentity())
	})
	return servers
}

// privileged returns the roles of an ID that an entry does not give away by itself, each with the trust domain of the
// grant.
func privileged(r raftstore.Reader, id spiffeid.ID) (roles []*statev1.HeldRole, err error) {
	held, err := grant.Of(r, id)
	if err != nil {
		return nil, fmt.Errorf("read the roles of %s: %w", id, err)
	}
	for _, g := range held {
		role := &statev1.HeldRole{Role: int32(g.Role), TrustDomain: g.TrustDomain.Name()}
		known := slices.ContainsFunc(roles, func(had *statev1.HeldRole) bool { return proto.Equal(had, role) })
		if grant.Privileged.Has(g.Role) && !known {
			roles = append(roles, role)
		}
	}
	return roles, nil
}

// covers reports whether a role that an ID had includes another one: the same, in the same domain or in every one.
func covers(had, role *statev1.HeldRole) bool {
	return had.GetRole() == role.GetRole() &&
		(had.GetTrustDomain() == "" || had.GetTrustDomain() == role.GetTrustDomain())
}

// caller returns who makes a call, for rows.
func caller(ctx context.Context) string { return access.CallerFrom(ctx).String() }

// keyOf returns the key of an agent's certificate request, of which only P-256 is accepted.
func keyOf(key any) (*ecdsa.PublicKey, error) {
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve.Params().BitSize != 256 {
		return nil, status.Error(codes.InvalidArgument, "csr has a key that no agent makes: it is ECDSA P-256")
	}
	return public, nil
}
