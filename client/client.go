package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

const (
	// maxMessageBytes bounds a response: lists of many thousand rows.
	maxMessageBytes = 64 << 20
	// keepaliveTime and keepaliveTimeout detect a host that lost its power, which ends no connection. Members accept a
	// ping every five seconds.
	keepaliveTime, keepaliveTimeout = 10 * time.Second, 5 * time.Second
)

// Client is a connection to a cluster.
type Client struct {
	conn  *grpc.ClientConn
	turns *rotation
}

// Option configures a client.
type Option func(*config) error

type config struct {
	addresses []string
	sockets   []string
	creds     credentials.TransportCredentials
	dial      []grpc.DialOption
}

// WithAddresses names the members by HOST:PORT of their cluster port. They are tried in the given order; when the
// connection is lost the client starts again from the first. With several addresses it also leaves a member that is
// frozen or unreachable, within two seconds, and one that answers [ErrStarting], at once: it repeats a unary call at
// the next member, and the next stream begins there. Needs one of [WithFiles], [WithPEM] and [WithSource].
func WithAddresses(addresses ...string) Option {
	return func(c *config) error {
		for _, address := range addresses {
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
				return fmt.Errorf("%q is not an address: write HOST:PORT, such as eu-1.example.org:7440", address)
			}
		}
		c.addresses = append(c.addresses, addresses...)
		return nil
	}
}

// WithAdminSocket connects through the admin socket of a member on this machine, admin.sock in its data folder. The
// caller is the local administrator; the user of the process must be that of the member, or root. Several sockets are
// tried in the given order.
func WithAdminSocket(paths ...string) Option {
	return func(c *config) error {
		for _, path := range paths {
			absolute, err := filepath.Abs(path)
			if err != nil {
				return fmt.Errorf("find the admin socket: %w", err)
			}
			c.sockets = append(c.sockets, absolute)
		}
		return nil
	}
}

// WithDialOptions adds options of gRPC, such as interceptors. They come after those of the client.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(c *config) error {
		c.dial = append(c.dial, options...)
		return nil
	}
}

// New returns a client. It needs either [WithAddresses] with credentials, or [WithAdminSocket].
//
// New loads the credentials and returns an error if they are unusable. It does not connect: the first call does, and
// returns an error that is [ErrUnavailable] if no member can be reached. The end of ctx does not affect the client.
func New(ctx context.Context, options ...Option) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var c config
	for _, option := range options {
		if err := option(&c); err != nil {
			return nil, err
		}
	}
	switch {
	case len(c.sockets) == 0 && len(c.addresses) == 0:
		return nil, errors.New("the client has no member to connect to: use WithAddresses or WithAdminSocket")
	case len(c.sockets) > 0 && len(c.addresses) > 0:
		return nil, errors.New("the client has addresses and admin sockets: use one kind")
	case len(c.addresses) > 0 && c.creds == nil:
		return nil, errors.New("the client has no credentials: use WithFiles, WithPEM or WithSource")
	}
	return c.client()
}

func (c *config) client() (*Client, error) {
	members := manual.NewBuilderWithScheme("entente")
	state := resolver.State{Addresses: resolved(c.addresses)}
	for _, socket := range c.sockets {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: socket, ServerName: "localhost"})
	}
	members.InitialState(state)
	turns := &rotation{resolver: members, addresses: state.Addresses}
	options := []grpc.DialOption{
		grpc.WithResolvers(members),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithChainUnaryInterceptor(repeatUnary, wrapUnary, turns.unary),
		grpc.WithChainStreamInterceptor(wrapStream, turns.stream),
	}
	if len(c.sockets) > 0 {
		// Only this process and the member hold the ends of a Unix socket.
		options = append(
			options,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(dialUnix),
		)
	} else {
		options = append(options, grpc.WithTransportCredentials(c.creds))
		if len(c.addresses) > 1 {
			options = append(options, grpc.WithContextDialer(dialTimed))
		}
	}
	conn, err := grpc.NewClient(members.Scheme()+":///cluster", append(options, c.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection: %w", err)
	}
	return &Client{conn: conn, turns: turns}, nil
}

// SetAddresses replaces the members that [WithAddresses] has named. A connection to one that is still among them stays.
// No address changes nothing.
func (c *Client) SetAddresses(addresses ...string) {
	if len(addresses) > 0 {
		c.turns.replace(resolved(addresses))
	}
}

func resolved(addresses []string) (of []resolver.Address) {
	for _, address := range addresses {
		of = append(of, resolver.Address{Addr: address, ServerName: address})
	}
	return of
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// Close closes the connection. Calls that are under way end with an error.
func (c *Client) Close() error { return c.conn.Close() }

// Conn returns the connection, for services that have no accessor, such as xDS. It belongs to the client.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Access returns the service that grants roles.
func (c *Client) Access() ententev1.AccessServiceClient {
	return ententev1.NewAccessServiceClient(c.conn)
}

// Audit returns the service that reads the audit log of a member.
func (c *Client) Audit() ententev1.AuditServiceClient { return ententev1.NewAuditServiceClient(c.conn) }

// Authorities returns the service that manages signing authorities.
func (c *Client) Authorities() ententev1.AuthorityServiceClient {
	return ententev1.NewAuthorityServiceClient(c.conn)
}

// Bundles returns the service that reads trust bundles.
func (c *Client) Bundles() ententev1.BundleServiceClient {
	return ententev1.NewBundleServiceClient(c.conn)
}

// Cluster returns the service that manages members and snapshots.
func (c *Client) Cluster() ententev1.ClusterServiceClient {
	return ententev1.NewClusterServiceClient(c.conn)
}

// Debug returns a client of DebugService, which members serve on their admin sockets alone.
func (c *Client) Debug() ententev1.DebugServiceClient { return ententev1.NewDebugServiceClient(c.conn) }

// Domains returns the service that manages hosted trust domains.
func (c *Client) Domains() ententev1.DomainServiceClient {
	return ententev1.NewDomainServiceClient(c.conn)
}

// Federation returns the service that manages relationships and invitations.
func (c *Client) Federation() ententev1.FederationServiceClient {
	return ententev1.NewFederationServiceClient(c.conn)
}

// Routing returns the service that manages instances, exports, imports and rules, and answers with hints.
func (c *Client) Routing() ententev1.RoutingServiceClient {
	return ententev1.NewRoutingServiceClient(c.conn)
}

// Agents returns the service that manages agents.
func (c *Client) Agents() ententev1.AgentServiceClient {
	return ententev1.NewAgentServiceClient(c.conn)
}

// Entries returns the service that manages registration entries.
func (c *Client) Entries() ententev1.EntryServiceClient {
	return ententev1.NewEntryServiceClient(c.conn)
}

// SVIDs returns the service that issues SVIDs.
func (c *Client) SVIDs() ententev1.SVIDServiceClient { return ententev1.NewSVIDServiceClient(c.conn) }
