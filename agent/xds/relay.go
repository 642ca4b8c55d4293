package xds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// DefaultMaxStale is the default of [Config.MaxStale]: the default lifetime of an X509-SVID, after which a caller has
// no valid one anyway if no member answers.
const DefaultMaxStale = time.Hour

// Config configures a [Relay].
type Config struct {
	// MaxStale is for how long instances of foreign domains are kept without a stream to a member.
	MaxStale time.Duration
	// Metadata is added to the node of each stream to a member.
	Metadata map[string]string
	Logger   hclog.Logger
}

// Relay is safe for concurrent use. Its zero value cannot be used.
type Relay struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // that of the streams to members, which outlive each program
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	groups map[string]*group
	// connections are those of identities whose streams run.
	connections map[string]*connection
}

// connection is the one to members with the credentials of an identity.
type connection struct {
	grpc.ClientConnInterface
	done    func()
	streams int
}

const (
	// maxGroups bounds the streams to members.
	maxGroups = 1024
	// shares is the part of what others leave that one identity can have. Its programs choose what they are, and so how
	// many kinds of them there are: those of others on the same machine have their streams all the same.
	shares = 64
	// linger is how long an identity's stream and a resource stay without a program that uses them: one that restarts
	// during an outage is served then.
	linger = 10 * time.Minute
	sweep  = time.Minute
)

// New returns a relay, which [Relay.Close] ends.
func New(cfg Config) *Relay {
	if cfg.MaxStale == 0 {
		cfg.MaxStale = DefaultMaxStale
	}
	r := &Relay{cfg: cfg, groups: map[string]*group{}, connections: map[string]*connection{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.tasks.Go(r.sweep)
	return r
}

// Close ends the streams to members, and waits for them. Subscribers end before.
func (r *Relay) Close() {
	r.cancel()
	r.tasks.Wait()
}

// Dial returns a connection with the credentials of an identity, and what closes it.
type Dial func() (conn grpc.ClientConnInterface, done func(), err error)

// Subscribe returns the source of one program's stream. identity names whose rights it has, and dial connects with
// them; it is called if no other program has the same identity. One identity can have only a share of all streams,
// except the empty one, which is that of a relay with one connection.
func (r *Relay) Subscribe(identity string, node *core.Node, dial Dial) (discovery.Source, error) {
	node = r.reduced(node)
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(node)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "encode the node: %v", err)
	}
	key := identity + "\x00" + string(raw)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.ctx.Err(); err != nil {
		return nil, status.Error(codes.Unavailable, "the relay stops")
	}
	g := r.groups[key]
	if g != nil && g.refused() { // it is about to end
		delete(r.groups, key)
		g = nil
	}
	if g == nil {
		if err := r.room(identity); err != nil {
			return nil, err
		}
		conn, err := r.connect(identity, dial)
		if err != nil {
			return nil, err
		}
		g = newGroup(r.cfg, identity, node)
		ctx, cancel := context.WithCancel(r.ctx)
		g.end = cancel
		r.groups[key] = g
		r.tasks.Go(func() {
			defer r.forget(key, g, conn)
			g.run(ctx, conn)
		})
	}
	g.use(1)
	return &subscriber{group: g, subscriptions: map[typed]bool{}}, nil
}

// room makes room for one more stream of an identity, or returns why there is none. A stream of the same identity that
// no program uses gives way. r.mu is held.
func (r *Relay) room(identity string) error {
	var own int
	var spare string
	var since time.Time
	for key, g := range r.groups {
		if g.identity != identity {
			continue
		}
		own++
		if idle, unused := g.unused(); unused && (spare == "" || idle.Before(since)) {
			spare, since = key, idle
		}
	}
	free, share := maxGroups-len(r.groups), maxGroups
	if identity != "" {
		share = max(1, (free+own)/shares)
	}
	switch {
	case free > 0 && own < share:
		return nil
	case spare != "":
		r.groups[spare].end()
		delete(r.groups, spare)
		return nil
	}
	return status.Errorf(codes.ResourceExhausted, "the programs of %q have %d streams of routes on this node, one for "+
		"each locality and listener, and can have no more: all together have %d of %d", identity, own, maxGroups-free,
		maxGroups)
}

// connect returns the connection of an identity for one more stream. r.mu is held.
func (r *Relay) connect(identity string, dial Dial) (*connection, error) {
	c := r.connections[identity]
	if c == nil {
		conn, done, err := dial()
		if err != nil {
			return nil, err
		}
		c = &connection{ClientConnInterface: conn, done: done}
		r.connections[identity] = c
	}
	c.streams++
	return c, nil
}

// forget removes a group whose stream has ended for good, and its connection with the last one.
func (r *Relay) forget(key string, g *group, conn *connection) {
	g.end()
	r.mu.Lock()
	if r.groups[key] == g {
		delete(r.groups, key)
	}
	conn.streams--
	last := conn.streams == 0
	if last {
		delete(r.connections, g.identity)
	}
	r.mu.Unlock()
	if last {
		conn.done()
	}
}

// sweep ends groups and subscriptions that no program uses, but none during an outage.
func (r *Relay) sweep() {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			for key, g := range r.groups {
				if g.sweep(now) {
					g.end()
					delete(r.groups, key)
				}
			}
			r.mu.Unlock()
		}
	}
}

// reduced returns what a member reads of a node. Programs of which that is equal share a stream.
func (r *Relay) reduced(node *core.Node) *core.Node {
	l := node.GetLocality()
	out := &core.Node{
		Id:       "entente",
		Locality: &core.Locality{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()},
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{}},
	}
	key := xdsupdate.OutboundKey
	if slices.Contains(node.GetClientFeatures(), xdsupdate.NoOverprovisioning) {
		key = xdsupdate.RootsKey
		out.ClientFeatures = []string{xdsupdate.NoOverprovisioning}
		if strings.HasPrefix(node.GetUserAgentName(), xdsupdate.NodeJS) {
			out.UserAgentName = xdsupdate.NodeJS
		}
	}
	if value := node.GetMetadata().GetFields()[key].GetStringValue(); value != "" {
		out.Metadata.Fields[key] = structpb.NewStringValue(value)
	}
	for key, value := range r.cfg.Metadata {
		out.Metadata.Fields[key] = structpb.NewStringValue(value)
	}
	return out
}

// refused returns the error of a stream if a member has decided, so that the program receives it: its identity has no
// rights, or its node is malformed.
func refused(err error) error {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return status.Error(status.Code(err), firstLine(err))
	}
	return nil
}

func firstLine(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

var errEnded = errors.New("the member ended the stream")
